"""Endurance: runs that are killed, hours of short solves, files that attack the loaders.

    python benchmarks/soak.py kills [--count 200]
    python benchmarks/soak.py solves [--minutes 120]
    python benchmarks/soak.py fuzz [--minutes 10]

Each prints one JSON object. Seeds are fixed; what a kill meets depends on the machine.
"""

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

PROBLEM = '''"""A run of some seconds."""
import jax.numpy as jnp
import optax

import constrainednn as cx


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


problem = cx.Problem(
    cx.Constraint(on_circle, over=cx.Normal(2), points=64), model=cx.MLP(2, 2, width=16)
)
methods = {"adam": cx.Optax(optax.adam(1e-3))}
'''
# What a finished run holds that must not depend on where it was interrupted.
RESULTS = ("model.npz", "history.npz")


def command(*arguments: object) -> list[str]:
    """A call of the command line that is installed beside this Python."""
    return [str(Path(sys.executable).with_name("constrainednn")), *map(str, arguments)]


def solve_command(file: Path, out: Path, steps: int) -> list[str]:
    counts = ("--heldout", 64, "--monitor", 16, "--redraw", 700)
    return command("solve", file, "--method", "adam", "--steps", steps, *counts, "--out", out)


def killed(call: list[str], delay: float) -> int | None:
    """Run a command and kill it after a while; its exit code if it ended before."""
    process = subprocess.Popen(
        call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(delay)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def kills(folder: Path, count: int, *, steps: int, seed: int = 0) -> dict:
    """Kill a run `count` times at random moments, each time going on with what it left.

    After every kill a checkpoint must load that is not older than the last one seen, and nothing
    unknown may lie in the folder. Runs that end start anew. In the end each must equal one that was
    never interrupted, to the last bit.
    """
    from constrainednn._storage.run_folder import RunFolder, checkpoints

    rng = random.Random(seed)
    file = folder / "circle.py"
    file.write_text(PROBLEM)
    whole = folder / "whole"
    started = time.perf_counter()
    subprocess.run(solve_command(file, whole, steps), check=True, capture_output=True)
    length = time.perf_counter() - started
    expected = {name: (whole / name).read_bytes() for name in RESULTS}
    met, faults, runs, steps_seen = 0, [], 0, []
    while met < count:
        out, seen = folder / f"run{runs}", 0
        runs += 1
        call = solve_command(file, out, steps)
        while True:
            delay = rng.uniform(0.1, length) if met < count else 10 * length
            code = killed(call, delay)
            met += code is None
            if (out / "run.json").exists():
                call = command("resume", out)
            if code is None:
                files = checkpoints(out)
                reached = int(files[0].stem.partition("-")[2]) if files else 0
                loaded = RunFolder(out).newest() if files else None
                if files and (loaded is None or loaded.step != reached):
                    faults.append(f"run {runs}, kill {met}: checkpoint {reached} does not load")
                if reached < seen:
                    faults.append(f"run {runs}, kill {met}: {reached} after {seen}")
                seen = reached
                steps_seen.append(reached)
                continue
            if code != 0:
                faults.append(f"run {runs} ended with {code}")
            break
        found = {name: (out / name).read_bytes() for name in RESULTS if (out / name).exists()}
        if found != expected:
            faults.append(f"run {runs} differs from the uninterrupted one")
        left = [item.name for item in out.iterdir() if item.name.endswith(".tmp")]
        if left:
            faults.append(f"run {runs} left {left}")
        shutil.rmtree(out)
    return {
        "kills": met,
        "runs": runs,
        "kills_before_the_first_checkpoint": steps_seen.count(0),
        "seconds_of_a_whole_run": round(length, 1),
        "faults": faults,
    }


def memory_and_files() -> tuple[float, int]:
    """Resident megabytes and open files of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd"))


def solves(folder: Path, minutes: float) -> dict:
    """Solve small problems for a while in this process: with a folder, without, and by windows."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import optax

    import constrainednn as cx

    def on_circle(u, x):
        return jnp.linalg.norm(u(x)) - 1.0

    circle = cx.Problem(cx.Constraint(on_circle, over=cx.Normal(2), points=32), cx.MLP(2, 2))
    decay = cx.ivp(lambda t, y, args: -y, 1.0, (0.0, 2.0))
    adam = cx.Optax(optax.adam(1e-3))
    small = {"heldout": 64, "monitor": 16}
    started, rows, count = time.monotonic(), [], 0
    next_row = 0.0
    while (elapsed := time.monotonic() - started) < 60 * minutes:
        if elapsed >= next_row:
            rows.append((round(elapsed), count, *memory_and_files()))
            next_row += 60
        out = folder / "out"
        cx.solve(circle, steps=5, seed=count, **small)
        cx.solve(circle, adam, steps=50, seed=count, out=out, **small)
        cx.resume(out, circle, adam, steps=60)
        cx.solve(decay, seed=count, **small)
        shutil.rmtree(out)
        count += 4
    rows.append((round(elapsed), count, *memory_and_files()))
    settled = [row for row in rows if row[0] >= 0.1 * rows[-1][0]]  # caches fill at first
    return {
        "minutes": minutes,
        "solves": count,
        "megabytes": {
            "after_a_tenth": round(settled[0][2], 1),
            "end": round(rows[-1][2], 1),
            "most": round(max(row[2] for row in rows), 1),
        },
        "open_files": sorted({row[3] for row in settled}),
        "rows": [
            (seconds, number, round(megabytes, 1), files)
            for seconds, number, megabytes, files in rows[:: max(1, len(rows) // 24)]
        ],
    }


def archive(members: list[tuple[str, bytes]], *, deflated: bool = False) -> bytes:
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", kind) as target:
        warnings.simplefilter("ignore")  # of names that are there twice, which is the point
        for name, content in members:
            target.writestr(name, content)
    return buffer.getvalue()


def npy(shape: str, dtype: str = "<f8", data: bytes = b"") -> bytes:
    """An array file whose header says what it likes."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def npy_with(header: bytes) -> bytes:
    """An array file with anything for a header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)


def manifest(members: object, **more: object) -> bytes:
    return json.dumps({"format": 2, "facts": {}, "members": members, "sha256": "", **more}).encode()


def crafted(good: bytes) -> list[bytes]:
    """Archives made to hurt."""
    one = [{"name": "a", "dtype": "float64", "shape": [2]}]
    two = npy("(2,)", data=bytes(16))
    odd = [b"{'descr':", b"-" * 9000 + b"1", b"{'descr':" + b"-" * 5000, b"  1\n 2", b"(" * 9000]
    huge = 10**11
    with zipfile.ZipFile(io.BytesIO(good)) as source:
        members = [(name, source.read(name)) for name in source.namelist()]
    return [
        *(
            archive([("manifest.json", manifest(one)), ("0.npy", npy_with(header))])
            for header in odd
        ),
        archive(
            [("manifest.json", manifest([{**one[0], "shape": [2] * 2_500_000}])), ("0.npy", two)]
        ),
        archive([*members, ("extra.npy", two)]),
        archive([*members, members[-1]]),
        archive(members, deflated=True),
        archive([*members, *((f"{i}.npy", b"") for i in range(10_000))]),
        archive([("manifest.json", manifest(one)), ("../../0.npy", two)]),
        archive([("manifest.json", manifest(one)), ("/etc/0.npy", two)]),
        archive([("manifest.json", manifest([{**one[0], "name": "../a"}])), ("0.npy", two)]),
        archive([("manifest.json", manifest(one)), ("0.npy", bytes(50_000_000))], deflated=True),
        archive(
            [
                ("manifest.json", manifest([{**one[0], "shape": [huge]}])),
                ("0.npy", npy(f"({huge},)")),
            ]
        ),
        archive(
            [
                ("manifest.json", manifest([{**one[0], "dtype": "object"}])),
                ("0.npy", npy("(2,)", "|O")),
            ]
        ),
        archive([("manifest.json", manifest([{**one[0], "shape": [-1, -2]}])), ("0.npy", two)]),
        archive([("manifest.json", manifest([{**one[0], "shape": "ab"}])), ("0.npy", two)]),
        archive(
            [("manifest.json", manifest([{**one[0], "name": "x" * 10_000_000}])), ("0.npy", two)]
        ),
        archive([("manifest.json", b"[" * 1_000_000), ("0.npy", two)]),
        archive([("manifest.json", b'{"a":' * 100_000), ("0.npy", two)]),
        archive([("manifest.json", b'{"format": 2, "format": 1}'), ("0.npy", two)]),
        archive([("manifest.json", b"[" + b"[]," * 2_500_000 + b"[]]"), ("0.npy", two)]),
        archive([("manifest.json", b'{"format": 1' + b"0" * 1_000_000 + b"}"), ("0.npy", two)]),
        archive([("manifest.json", manifest(7)), ("0.npy", two)]),
        archive([("manifest.json", manifest([None])), ("0.npy", two)]),
        archive([("manifest.json", b"\xff\xfe"), ("0.npy", two)]),
        archive([("manifest.json", bytes(9_000_000))]),
        good + bytes(100),
        bytes(100) + good,
        good + good,
        b"",
        b"PK\5\6" + bytes(18),
    ]


def mutated(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """Flip, cut, insert, repeat or splice."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(damaged) + 1)
        kind = rng.randrange(6)
        if kind == 0 and place < len(damaged):
            damaged[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del damaged[place:]
        elif kind == 2:
            damaged[place:place] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 3:
            damaged[place : place + 4] = rng.choice((b"\xff" * 4, bytes(4), b"PK\1\2", b"PK\5\6"))
        elif kind == 4:
            damaged[place:place] = damaged[max(0, place - 64) : place]
        else:
            damaged[place:] = other[rng.randrange(len(other) + 1) :]
    return bytes(damaged)


def fuzz(folder: Path, minutes: float, seed: int = 0) -> dict:
    """Hand damaged and hostile files to everything that reads them.

    Each is refused with a `StoreError`, or read as what was saved; nothing else may come out, take
    more than five seconds, or more than 500 MB.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    import constrainednn as cx
    from constrainednn._storage.archive import read_arrays
    from constrainednn._storage.run_folder import RunFolder, read_record
    from constrainednn._storage.show import show

    def on_circle(u, x):
        return jnp.linalg.norm(u(x)) - 1.0

    circle = cx.Problem(
        cx.Constraint(on_circle, over=cx.Normal(2), points=8), cx.MLP(2, 2, width=4)
    )
    saved = folder / "saved"
    cx.solve(circle, steps=3, heldout=64, monitor=16, out=saved)
    names = [item.name for item in saved.iterdir() if item.suffix in (".npz", ".json", ".jsonl")]
    good = {name: (saved / name).read_bytes() for name in names}
    arrays = {name: read_arrays(saved / name)[0] for name in names if name.endswith(".npz")}
    attacks = {name: crafted(good[name]) for name in arrays}
    rng = random.Random(seed)
    # The compiler and the libraries are there before; what files add is measured from here.
    cx.load_solution(saved, circle)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    counts, faults, slowest = {"refused": 0, "read": 0}, [], 0.0
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a checkpoint is set aside
        while time.monotonic() - started < 60 * minutes and len(faults) < 20:
            name = rng.choice(names)
            waiting = attacks.get(name)
            content = (
                waiting.pop() if waiting else mutated(rng, good[name], good[rng.choice(names)])
            )
            (saved / name).write_bytes(content)
            readers = {
                "arrays": lambda: name in arrays and read_arrays(saved / name)[0],  # noqa: B023
                "checkpoint": RunFolder(saved).newest,
                "record": lambda: read_record(saved),
                "show": lambda: show(saved),
            }
            if rng.random() < 0.02:
                readers["solution"] = lambda: cx.load_solution(saved, circle)
            for reader, read in readers.items():
                began = time.perf_counter()
                try:
                    found = read()
                    counts["read"] += 1
                    if reader == "arrays" and found and not same(found, arrays[name]):
                        faults.append(f"{name}: other numbers were read")
                except cx.errors.StoreError:
                    counts["refused"] += 1
                except Exception as error:  # noqa: BLE001  (anything else is a fault)
                    faults.append(f"{reader} of {name}: {type(error).__name__}: {error!s:.200}")
                slowest = max(slowest, time.perf_counter() - began)
            for item in saved.iterdir():
                if item.name not in good and item.name.endswith(".damaged"):
                    item.unlink()
            (saved / name).write_bytes(good[name])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if slowest > 5:
        faults.append(f"a file took {slowest:.1f} s")
    if most - before > 500:
        faults.append(f"files took {most - before:.0f} MB")
    return {
        "minutes": minutes,
        **counts,
        "slowest_seconds": round(slowest, 2),
        "megabytes_before": round(before),
        "megabytes_most": round(most),
        "faults": faults,
    }


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in ((first[key], second[key]) for key in first)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("kills", "solves", "fuzz"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, default=60_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.what == "kills":
            found = kills(folder, chosen.count, steps=chosen.steps)
        elif chosen.what == "solves":
            found = solves(folder, chosen.minutes or 120)
        else:
            found = fuzz(folder, chosen.minutes or 10)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
