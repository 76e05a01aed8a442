"""Measure the bars for studies and print them as JSON.

    python benchmarks/study.py

`circle`: 40 runs of the unit circle (`points` 50 to 800, Levenberg-Marquardt, 8 seeds, at most 100
steps) in a whole process, compilation included. `resume`: seconds to find that nothing of 10,000
finished rows is left to run; the rows are those of the first study, under other seeds.
"""

import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    started = time.perf_counter()
    import constrainednn as cx

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "circle"
        points = [50, 100, 200, 400, 800]
        found = cx.study("unit_circle", vary={"points": points}, seeds=8, steps=100, out=out)
        circle = time.perf_counter() - started
        print(found)
        with (out / "runs.jsonl").open("w") as stream:
            for row in found.rows[::8]:  # one for each number of points
                for seed in range(2000):
                    stream.write(json.dumps(row | {"seed": seed}) + "\n")
        began = time.perf_counter()
        again = cx.study("unit_circle", vary={"points": points}, seeds=2000, steps=100, out=out)
        resume = time.perf_counter() - began
    result = {
        "circle": {"runs": len(found.rows), "seconds": circle},
        "resume": {"rows": len(again.rows), "seconds": resume},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
