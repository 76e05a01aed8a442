"""Compare packages that solve differential equations by neural residuals: error against CPU time.

    python benchmarks/peers/run.py install            # an environment for each, some minutes
    python benchmarks/peers/run.py all                # everything, some twenty CPU minutes
    python benchmarks/peers/run.py jinns heat wave    # some of it
    python benchmarks/peers/run.py draw               # figure and table from what is there

Each package runs in an environment of its own (folders `peers-NAME` in the system's folder for
temporary files) by its script `with_NAME.py`, on problems, equations and a clock that all share
(`common.py`): float64, one core and one thread, hard initial and boundary conditions where a
package supports them, a budget of CPU seconds for each problem, one seed. Runs are written to
`results/`. What the package itself does runs in the environment of this script.

CPU seconds are those of the process from the statement on; compilation is part of them.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from collect import collect
from common import PROBLEMS

HERE = Path(__file__).resolve().parent
# Packages of the index: their names there.
PEERS = {
    "jinns": "jinns",
    "deepxde": "deepxde torch",
    "pina": "pina-mathlab",
    "neurodiffeq": "neurodiffeq",
    "fastlsq": "fastlsq",
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def interpreter(name: str) -> Path:
    """The Python of a peer's environment, or the present one."""
    if name == "constrainednn":
        return Path(sys.executable)
    return Path(tempfile.gettempdir()) / f"peers-{name}" / "bin" / "python"


def install() -> None:
    """Make the environments, by uv.

    The index's torch brings CUDA along, several gigabytes of it; PEERS_TORCH may name a wheel, or a
    requirement that uv can find, in its place.
    """
    for name, packages in PEERS.items():
        folder = interpreter(name).parents[1]
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        line = ["uv", "pip", "install", "--python", interpreter(name), *packages.split()]
        if name != "jinns" and "PEERS_TORCH" in os.environ:
            line += [os.environ["PEERS_TORCH"]]
        if subprocess.run(line).returncode:
            print(f"{name} could not be installed and will be missing from the figure.")


def run(name: str, problems: list[str]) -> None:
    """Run one package, each problem in a process of its own."""
    if not interpreter(name).exists():
        print(f"{name} is not installed: run.py install")
        return
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"PEERS_OUT": str(HERE / "results")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    pin = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    for problem in problems:
        line = [*pin, interpreter(name), HERE / f"with_{name}.py", "0", problem]
        if subprocess.run(line, env=environment, cwd=HERE).returncode:
            print(f"{name} failed on {problem}.")


def main(arguments: list[str]) -> None:
    """What the command line asks for."""
    what, problems = arguments[0] if arguments else "all", arguments[1:] or list(PROBLEMS)
    if what == "install":
        install()
    elif what != "draw":
        for name in ("constrainednn", *PEERS) if what == "all" else [what]:
            run(name, problems)
    if what in ("all", "draw"):
        collect(HERE / "results", HERE.parents[1] / "docs" / "_static" / "peers.png")


if __name__ == "__main__":
    main(sys.argv[1:])
