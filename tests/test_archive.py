"""Files of arrays: what was packed comes back to the last bit, anything else is refused."""

import json
import os
import pickle
import shutil
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx
from constrainednn._common.pytrees import arrays_to_tree, tree_to_arrays
from constrainednn._storage import archive
from constrainednn._storage.archive import pack_arrays, read_arrays

FACTS = {"step": 3, "redraws": [1, 2]}


def same(first, second):
    """Equal names, types, shapes and bytes."""
    return first.keys() == second.keys() and all(
        (first[key].dtype, first[key].shape, first[key].tobytes())
        == (second[key].dtype, second[key].shape, second[key].tobytes())
        for key in first
    )


def small_arrays():
    return {
        ".weight": np.arange(6.0).reshape(2, 3),
        ".count": np.asarray(3, np.int32),
        ".half": np.asarray(jnp.asarray([1.5, -2.0], jnp.bfloat16)),
        ".scalar": np.asarray(jnp.asarray(0.1, jnp.bfloat16)),
        ".empty": np.zeros((0, 3), np.float32),
        ".turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }


@pytest.fixture
def write(tmp_path):
    path = tmp_path / "a.npz"

    def write(content):
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        return path

    return write


def test_f16_round_trip(write):
    path = write(pack_arrays(small_arrays(), FACTS))
    arrays, facts = read_arrays(path)
    assert same(arrays, small_arrays())
    assert facts == FACTS
    assert np.load(path)["0"].tolist() == [[0, 1, 2], [3, 4, 5]]  # readable by others
    assert pack_arrays(small_arrays(), FACTS) == path.read_bytes()  # and no time of day inside


def test_f16_trees_with_keys_none_and_weak_scalars(write):
    shared = jnp.arange(3.0)
    tree = {"key": jax.random.key(7), "old": jax.random.PRNGKey(7), "none": None, "text": "x"}
    tree |= {"weak": jnp.asarray(2.0), "pair": (shared, shared), "number": 4}
    arrays, _ = read_arrays(write(pack_arrays(tree_to_arrays(tree, "state"))))
    blank = {**tree, "key": jax.random.key(0), "weak": jnp.asarray(0.0), "pair": (shared * 0,) * 2}
    found = arrays_to_tree(blank, arrays, "file", "state")
    assert jax.random.key_data(found["key"]).tolist() == jax.random.key_data(tree["key"]).tolist()
    assert (found["none"], found["text"], found["number"]) == (None, "x", 4)
    assert float(found["weak"]) == 2 and found["weak"].weak_type
    assert all(jnp.array_equal(part, shared) for part in found["pair"])
    with pytest.raises(
        cx.errors.StoreError, match=r"leaf state\['pair'\]\[0\] is float64\[3\] in the"
    ):
        arrays_to_tree({**blank, "pair": (jnp.zeros(2),) * 2}, arrays, "file", "state")


@pytest.mark.slow
def test_f11_every_flipped_byte_is_refused(write):
    content = pack_arrays(small_arrays(), FACTS)
    assert len(content) < 4000
    accepted = []
    for index in range(len(content)):
        damaged = bytearray(content)
        damaged[index] ^= 0xFF if index % 2 else 0x01
        try:
            arrays, facts = read_arrays(write(damaged))
        except cx.errors.StoreError:
            continue
        assert same(arrays, small_arrays()) and facts == FACTS, index
        accepted.append(index)
    # Dates, attributes and the second copy of each header, which nothing reads.
    assert len(accepted) < len(content) / 5


def test_f10_every_cut_is_refused(write):
    content = pack_arrays(small_arrays(), FACTS)
    for length in range(len(content)):
        with pytest.raises(cx.errors.StoreError, match="damaged"):
            read_arrays(write(content[:length]))


@pytest.mark.slow
def test_f12_j3_crafted_archives_are_refused(write, soak):
    """Appended bytes, repeated and foreign members, bombs, claims of 800 GB, deep and wide JSON."""
    attacks = soak.crafted(pack_arrays(small_arrays(), FACTS))
    assert len(attacks) > 25
    for content in attacks:
        with pytest.raises(cx.errors.StoreError):
            read_arrays(write(content))


class Trap:
    """Unpickling this leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_j1_a_renamed_pickle_is_refused_and_never_run(write, tmp_path):
    mark = tmp_path / "ran"
    path = write(pickle.dumps(Trap(mark)))
    with pytest.raises(cx.errors.StoreError, match="damaged or no file of this package"):
        read_arrays(path)
    np.savez(path, a=np.asarray([Trap(mark)], object))
    with pytest.raises(cx.errors.StoreError):
        read_arrays(path)
    assert not mark.exists()


def test_j4_links_and_pipes_are_refused(write, tmp_path):
    path = write(pack_arrays(small_arrays()))
    link, pipe = tmp_path / "link.npz", tmp_path / "pipe.npz"
    link.symlink_to(path)
    with pytest.raises(cx.errors.StoreError, match=r"link.npz is a link; links are not followed"):
        read_arrays(link)
    os.mkfifo(pipe)
    with pytest.raises(cx.errors.StoreError, match="is no regular file"):
        read_arrays(pipe)  # and does not wait for a writer


def test_f15_newer_format_is_refused(write):
    from unittest import mock

    with mock.patch.object(archive, "FORMAT", 3):
        content = pack_arrays(small_arrays())
    words = "was written in format 3; this version of constrainednn reads format 2. Install a newer"
    with pytest.raises(cx.errors.StoreError, match=words):
        read_arrays(write(content))


def test_what_cannot_be_saved_is_named():
    with pytest.raises(
        cx.errors.StoreError, match=r"\.name is of type object, which cannot be saved"
    ):
        pack_arrays({".name": np.asarray([None])})


# Folders as earlier versions wrote them; see tests/golden/README.md.
GOLDEN = Path(__file__).parent / "golden"


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


STATED = {
    "circle": lambda: cx.Problem(
        cx.Constraint(on_circle, over=cx.Normal(2), points=8), cx.MLP(2, 2, width=4)
    ),
    "decay": lambda: cx.ivp(lambda t, y, args: -y, 1.0, (0.0, 1.0)),
}


@pytest.mark.parametrize(
    "folder", sorted(GOLDEN.glob("format-*/*")), ids=lambda path: str(path)[-15:]
)
def test_f14_folders_of_every_released_version_load(folder):
    with jax.numpy_rank_promotion("allow"):  # the march promotes ranks inside
        solution = cx.load_solution(folder, STATED[folder.name]())
    report = json.loads((folder / "report.json").read_text())
    assert (solution.status, solution.steps) == (report["status"], report["steps"])
    # Rounding may differ between machines; nothing else.
    scale = max(abs(report["gap"]["heldout"]["value"]), 1e-20)
    assert abs(solution.gap.heldout.value - report["gap"]["heldout"]["value"]) < 1e-6 * scale


@pytest.mark.slow
def test_f14_run_of_every_released_version_resumes(tmp_path):
    runs = sorted(GOLDEN.glob("format-*/circle/run.json"))
    assert runs
    for record in runs:
        folder = tmp_path / record.parts[-3]
        shutil.copytree(record.parent, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # versions and threads may be others here
            solution = cx.resume(folder, STATED["circle"](), steps=6)
        whole = cx.solve(STATED["circle"](), steps=6, seed=3, heldout=64, monitor=16)
        np.testing.assert_allclose(solution.history.loss, whole.history.loss, rtol=1e-6)
