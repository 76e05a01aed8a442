"""Elements on several devices: the same answer as on one."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

SOLVE = """
import sys
import jax
import numpy as np
import constrainednn as cx
from constrainednn._pieces import condensation

placed = []


def noted(batch, real=condensation.shared_out):
    found = real(batch)
    placed.append(len(found.sharding.device_set))
    return found


condensation.shared_out = noted
found = {}
for name, tolerance in [("bump", 1e-6), ("poisson_disk", 1e-10)]:
    problem = cx.load_problem(name)
    result = problem.scheme.solve(
        problem.model,
        tolerance=tolerance,
        steps=1000,
        key=jax.random.key(0),
        watch=lambda *_: False,
    )
    assert result.status == "converged"
    u = result.model
    low, high = u.corners
    found[name] = np.asarray(jax.vmap(u)((low + high) / 2 + 0.1 * (high - low)))
assert set(placed) == ({jax.local_device_count()} if jax.local_device_count() > 1 else set())
np.savez(sys.argv[1], devices=jax.local_device_count(), **found)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiles twice, in processes of their own
def test_two_devices_agree_with_one_to_rounding(tmp_path):
    found = []
    for count in (1, 2):
        flags = f"--xla_force_host_platform_device_count={count}"
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        path = tmp_path / f"{count}.npz"
        command = [sys.executable, "-c", textwrap.dedent(SOLVE), str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(dict(np.load(path)))
    one, two = found
    assert (one.pop("devices"), two.pop("devices")) == (1, 2)
    assert len(one["bump"]) >= 20
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=0, atol=1e-13)  # of values up to one
