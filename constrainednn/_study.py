"""Studies: a grid of settings times seeds, one row a run, in a table that outlives the study.

Runs are paired by construction: every stream of points, and the first parameters, depend on the
seed alone. A run that diverged or failed is a row like others.
"""

import contextlib
import dataclasses
import inspect
import itertools
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import constrainednn
from constrainednn._archive import seal, unseal
from constrainednn._check import ProblemError
from constrainednn._files import (
    RunWarning,
    StoreError,
    append_line,
    parse_json,
    read_limited,
    refusal,
    write_atomically,
)
from constrainednn._folders import check_folder, make_folder, sweep
from constrainednn._load import (
    LoadError,
    build,
    find,
    find_method,
    load_module,
    methods_of,
    problem_keywords,
    resolve,
)
from constrainednn._lock import locked
from constrainednn._methods._abstract import AbstractMethod
from constrainednn._problem import Problem
from constrainednn._solution import SolveFailed
from constrainednn._solve import solve
from constrainednn._stages import Stage
from constrainednn._store import report_dict
from constrainednn._validate import as_count, as_path, as_seed, known_names, shown

RECORD, ROWS = "study.json", "runs.jsonl"
# Arguments of `solve` that may be axes, or the same for all runs.
_ARGUMENTS = ("method", "steps", "tolerance", "heldout", "monitor", "redraw")
_MOST_BYTES = 1 << 31
# So many runs that fail alike, and nothing else before them, end a study.
_ALIKE = 3
# Statuses of runs whose numbers mean nothing: they count as infinite.
FAILED = ("nonfinite", "out_of_memory", "error")

Method = AbstractMethod | Stage | Sequence[Stage]


@dataclasses.dataclass(frozen=True)
class StudyProgress:
    """How far a study is: runs done and in all, and seconds that the rest may take."""

    done: int
    runs: int
    left: float


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """The table of a study.

    Attributes:
        rows: One dict a run, as in `runs.jsonl`: `given` (every keyword of the problem function
            and argument of `solve`), `seed`, `engine` and all of the run's report. Runs that failed
            have the status "error" and no gap.
        axes: Names of what was varied.
        complete: False if the study was interrupted.
    """

    rows: tuple[dict[str, Any], ...]
    axes: tuple[str, ...]
    complete: bool

    def table(self) -> list[dict[str, Any]]:
        """Flat rows: settings, seed, status, and the numbers of the gap in total.

        Runs that failed have infinite losses.
        """
        return [_flat(row) for row in self.rows]

    def to_csv(self, path: str | Path) -> None:
        """Write the flat rows; text that a spreadsheet would run is quoted."""
        import csv
        import io

        rows = self.table()
        names = list(dict.fromkeys(name for row in rows for name in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        write_atomically(Path(path), buffer.getvalue().encode())

    def to_pandas(self) -> Any:
        """The flat rows as a `pandas.DataFrame`; needs pandas."""
        import pandas  # pyright: ignore[reportMissingImports]

        return pandas.DataFrame(self.table())

    def to_polars(self) -> Any:
        """The flat rows as a `polars.DataFrame`; needs polars."""
        import polars  # pyright: ignore[reportMissingImports]

        return polars.DataFrame(self.table())

    def __repr__(self) -> str:
        return "\n".join(_summary(self))


def study(
    problem: Problem | Callable[..., Problem] | str | Path,
    *,
    vary: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 20,
    out: str | Path | None = None,
    progress: Callable[[StudyProgress], None] | None = None,
    **arguments: Any,
) -> Study:
    """Run a problem for every combination of settings and every seed.

    Args:
        problem: A function with keyword defaults that returns a problem, a file or gallery name
            with one, or a problem.
        vary: Axes by name: a sequence of values for a keyword of the function, or for `method`,
            `steps`, `tolerance`, `heldout`, `monitor` or `redraw` of `solve`. Values that are no
            plain numbers or text, such as methods, are given as a dict from labels to values.
        seeds: So many seeds from 0 on, or the seeds.
        out: Folder of the table, new or of the same study: what is finished there is not run again,
            and axes and seeds may be added, removed or in another order.
        progress: Called after each run.
        **arguments: The same for all runs: arguments of `solve` or keywords of the function.

    Returns:
        The rows of all combinations. Ctrl-C ends the study with what is finished.

    Raises:
        TypeError, ValueError: If an axis is not known or empty, or seeds repeat.
        StoreError: If `out` holds another study, or cannot be used.
    """
    stated = _Stated(problem)
    axes = _axes(vary or {}, arguments, stated)
    chosen = _seeds(seeds)
    runs = [
        _Planned(dict(zip(axes, labels, strict=True)), seed)
        for labels in itertools.product(*axes.values())
        for seed in chosen
    ]
    folder = None if out is None else _Folder(as_path(out, "out"), stated)
    with contextlib.nullcontext() if folder is None else folder:
        known = {} if folder is None else folder.rows
        keys = [stated.key(axes, run) for run in runs]
        found = {key: known[key] for key in keys if key in known}
        left = [(key, run) for key, run in zip(keys, runs, strict=True) if key not in found]
        began, alike, complete = time.monotonic(), [], True
        for number, (key, run) in enumerate(left, 1):
            row = stated.run(axes, run)
            if row is None:
                complete = False
                break
            found[key] = row
            if folder is not None:
                folder.append(row)
            if progress is not None:
                each = (time.monotonic() - began) / number
                progress(StudyProgress(len(found), len(runs), each * (len(left) - number)))
            alike = [*alike, row["reason"]] if row["status"] == "error" else [None]
            if len(alike) == number == _ALIKE and len(set(alike)) == 1 and len(found) == number:
                raise ValueError(f"the first {_ALIKE} runs all fail with: {alike[0]}")
    rows = tuple(found[key] for key in keys if key in found)
    return Study(rows, tuple(name for name in axes if len(axes[name]) > 1), complete)


@dataclasses.dataclass(frozen=True)
class _Planned:
    """One run: labels by axis, and its seed."""

    labels: dict[str, Any]
    seed: int


class _Stated:
    """What is studied: where problems come from, and what they are called with."""

    def __init__(self, problem: Any):
        self.module, self.path, self.name, self.methods = None, None, "problem", {}
        if isinstance(problem, (str, Path)):
            self.path, self.name = resolve(str(problem))
            self.module = load_module(self.path)
            self.methods = methods_of(self.module, self.path)
            problem = find(self.module, self.path, self.name)
        if not (isinstance(problem, Problem) or callable(problem)):
            raise TypeError(
                "problem of study must be a function that returns a cx.Problem, a file, or a "
                f"cx.Problem, got {shown(problem)}."
            )
        self.problem = problem
        keywords = problem_keywords(problem)
        for name, item in keywords.items():
            if item.default is inspect.Parameter.empty:
                raise TypeError(f"problem of study: give keyword {name!r} of it a default.")
            if name in (*_ARGUMENTS, "seed", "seeds", "vary", "out", "progress"):
                raise TypeError(
                    f"problem of study: its keyword {name!r} is an argument of solve or study. "
                    f"Give it another name, such as my_{name}."
                )
        self.defaults = {name: item.default for name, item in keywords.items()}

    def key(self, axes: dict[str, dict[Any, Any]], run: _Planned) -> str:
        """What tells a run from all others: every setting, whether it is varied or not."""
        return json.dumps({"given": self.given(run), "seed": run.seed}, sort_keys=True)

    def given(self, run: _Planned) -> dict[str, Any]:
        """All settings of a run, by their labels."""
        plain = {name: _label(value) for name, value in self.defaults.items()}
        return plain | dict.fromkeys(_ARGUMENTS) | run.labels

    def run(self, axes: dict[str, dict[Any, Any]], run: _Planned) -> dict[str, Any] | None:
        """Do one run; None if it was interrupted."""
        values = {name: axes[name][label] for name, label in run.labels.items()}
        keywords = {name: value for name, value in values.items() if name in self.defaults}
        arguments = {name: value for name, value in values.items() if name not in self.defaults}
        row = {"given": self.given(run), "seed": run.seed, "engine": "loop"}
        try:
            solution = solve(self._problem(keywords), seed=run.seed, **arguments)
        except SolveFailed as failure:
            solution = failure.solution
        except (ProblemError, LoadError, TypeError, ValueError) as error:
            return row | {"status": "error", "reason": str(error)[:1000]}
        if solution.status == "interrupted":
            return None
        return row | report_dict(solution)

    def _problem(self, keywords: dict[str, Any]) -> Problem:
        if isinstance(self.problem, Problem):
            return self.problem
        if self.module is not None and self.path is not None:
            return build(self.module, self.path, self.name, keywords)
        made = self.problem(**keywords)
        if not isinstance(made, Problem):
            raise TypeError(f"problem of study must return a cx.Problem, got {shown(made)}.")
        return made

    def record(self) -> dict[str, Any]:
        """What must be the same for rows to be of one table."""
        source = None
        if self.module is not None and self.path is not None:
            source = build(self.module, self.path, self.name, {}).source
        return {
            "problem": None if source is None else source.digest,
            "name": self.name if source else getattr(self.problem, "__name__", "problem"),
            "dtype": str(jnp.result_type(float)),
            "constrainednn": constrainednn.__version__,
        }


class _Folder:
    """The folder of a study: a record of what it is, and a line for each run."""

    def __init__(self, path: Path, stated: _Stated):
        self.path, self.record = path, stated.record()
        self.rows: dict[str, dict[str, Any]] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "_Folder":
        if not (self.path / RECORD).exists():
            check_folder(self.path)
        try:
            make_folder(self.path)
            check_lock = self._open.enter_context(locked(self.path))
            sweep(self.path)
            if (self.path / RECORD).exists():
                self._compare(unseal(self.path / RECORD))
            else:
                write_atomically(self.path / RECORD, seal(self.record))
        except OSError as error:
            self._open.close()
            raise refusal(self.path, error) from None
        except BaseException:
            self._open.close()
            raise
        self._check_lock = check_lock
        self.rows = read_rows(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _compare(self, before: dict[str, Any]) -> None:
        for name, now in self.record.items():
            if before.get(name) != now:
                raise StoreError(
                    f"{self.path} holds another study: its {name} was {before.get(name)!r} and is "
                    f"{now!r} now. Give a new folder."
                )

    def append(self, row: dict[str, Any]) -> None:
        """Add a row.

        Raises:
            StoreError: If it cannot be written; the rows before it are there.
        """
        try:
            self._check_lock()
            append_line(self.path / ROWS, json.dumps(row, allow_nan=False))
        except OSError as error:
            raise refusal(self.path / ROWS, error) from None


def read_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a study by what tells them apart; of two of the same the first counts.

    A line that a fault cut short is left out, with a warning: its run is done again.

    Raises:
        StoreError: If the table cannot be read.
    """
    file = folder / ROWS
    if not file.exists():
        return {}
    rows, torn = {}, 0
    for line in read_limited(file, _MOST_BYTES).split(b"\n"):
        if not line:
            continue
        try:
            row = parse_json(line, str(file))
            key = json.dumps({"given": row["given"], "seed": row["seed"]}, sort_keys=True)
            rows.setdefault(key, row)
        except (StoreError, TypeError, KeyError):
            torn += 1
    if torn:
        warnings.warn(
            f"{file}: {torn} lines are cut short or damaged and left out; their runs are done "
            "again.",
            RunWarning,
            stacklevel=4,
        )
    return rows


def _label(value: Any) -> Any:
    """A setting as it stands in a row."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return _label(value.item())
    return shown(value)


def _axes(
    vary: Mapping[str, Any], arguments: dict[str, Any], stated: _Stated
) -> dict[str, dict[Any, Any]]:
    """Labels and values of each axis; what is the same for all runs is an axis of one."""
    axes = {}
    for name, values in [*vary.items(), *((name, [value]) for name, value in arguments.items())]:
        known = [*stated.defaults, *_ARGUMENTS]
        if name not in known:
            raise ValueError(f"study cannot vary {shown(name)}. {known_names(str(name), known)}")
        if name in axes:
            raise ValueError(f"{name} is varied and given for all runs: leave out one.")
        if isinstance(values, Mapping):
            pairs = list(values.items())
        elif isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
            raise TypeError(
                f"axis {name!r} must be a sequence of values, or a dict from labels to values, got "
                f"{shown(values)}."
            )
        else:
            pairs = [(_label(value), value) for value in values]
        if not pairs:
            raise ValueError(f"axis {name!r} is empty: give at least one value.")
        if name == "method":
            pairs = [(label, _method(value, stated)) for label, value in pairs]
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError(f"axis {name!r} has a value twice: {shown([p[0] for p in pairs])}.")
        axes[name] = found
    return axes


def _method(value: Any, stated: _Stated) -> Any:
    return find_method(value, stated.methods) if isinstance(value, str) else value


def _seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, (int, float, np.number)):
        return list(range(as_count(seeds, "seeds", most=10**6)))
    if isinstance(seeds, (str, bytes)) or not hasattr(seeds, "__iter__"):
        raise TypeError(f"seeds must be a number of seeds or a sequence, got {shown(seeds)}.")
    found = [as_seed(seed) for seed in list(seeds)]
    if not found:
        raise ValueError("seeds is empty: give at least one.")
    if len(set(found)) < len(found):
        raise ValueError(f"seeds repeat: {shown(found)}. Each is one run, and paired with itself.")
    return found


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    gap = row.get("gap") or {}
    heldout, difference = gap.get("heldout") or {}, gap.get("difference") or {}
    failed = row["status"] in FAILED
    number = lambda value: math.inf if failed else math.nan if value is None else value  # noqa: E731
    timings = row.get("timings") or {}
    return {
        **row["given"],
        "seed": row["seed"],
        "status": row["status"],
        "taken": row.get("steps"),
        "parameters": row.get("parameters"),
        "loss": number(gap.get("loss")),
        "train_loss": number(gap.get("train")),
        "heldout_loss": number(heldout.get("value")),
        "heldout_low": number(heldout.get("low")),
        "heldout_high": number(heldout.get("high")),
        "gap": number(difference.get("value")),
        "seconds": timings.get("run"),
        "engine": row["engine"],
    }


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _groups(study: Study) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Flat rows of each combination of settings, seeds together."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in study.table():
        labels = {name: row[name] for name in study.axes}
        grouped.setdefault(json.dumps(labels), []).append(row)
    for labels, rows in grouped.items():
        yield json.loads(labels), rows


def _summary(study: Study) -> list[str]:
    lines = []
    for labels, rows in _groups(study):
        failed = sum(row["status"] in FAILED for row in rows)
        parts = [f"{name} {value}" for name, value in labels.items()]
        parts.append(f"{len(rows)} runs" + (f", {failed} failed" if failed else ""))
        for name in ("train_loss", "heldout_loss", "gap"):
            values = np.array([row[name] for row in rows], float)
            with np.errstate(invalid="ignore"):
                low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], method="nearest")
            parts.append(f"{name.partition('_')[0]} {middle:.3g} [{low:.3g}, {high:.3g}]")
        lines.append("; ".join(parts))
    lines.append(
        "losses: medians over seeds, with the quantiles 10 % and 90 %; a failed run is infinite"
    )
    if not study.complete:
        lines.append("interrupted: not all of the runs are done")
    return lines
