"""The gap report as text for terminals and as a table for notebooks."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from constrainednn._domains import Data
from constrainednn._estimates import Estimates, has_unknowns
from constrainednn._experiments import Experiments
from constrainednn._gap import ConstraintGap, GapReport, is_rounding
from constrainednn._missing import missing_values
from constrainednn._statistics import Estimate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from constrainednn._solution import Solution


COLUMNS = ("constraint", "train RMS", "held-out RMS", "gap (loss)", "ratio", "worst |r|", "at")


def number(value: float) -> str:
    """Three digits; a dash for what is not available."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def interval(estimate: Estimate) -> str:
    """Value with its 95 % interval."""
    if math.isnan(estimate.low):
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def row(gap: ConstraintGap) -> tuple[str, ...]:
    """One constraint's line under `COLUMNS`."""
    if gap.at_rounding:  # the digits of a gap between rounding errors mean nothing
        difference, ratio = "at rounding", "at rounding"
    else:
        difference = interval(gap.difference)
        ratio = "train at rounding" if is_rounding(gap.train_rms, gap.floor) else number(gap.ratio)
    return (
        gap.name,
        number(gap.train_rms),
        interval(gap.heldout_rms),
        difference,
        ratio,
        number(gap.worst.residual),
        point(gap.worst.point, gap.distance.edges[-1] if gap.distance else math.inf),
    )


def point(x: object, spacing: float = math.inf) -> str:
    """A point in three digits, or as many as tell it from others at that distance."""
    if isinstance(x, tuple):
        return "(" + ", ".join(point(part, spacing) for part in x) + ")"
    array = np.asarray(x)
    if array.ndim == 0:
        return _coordinate(float(array), spacing)
    shown = ", ".join(_coordinate(float(entry), spacing) for entry in array.ravel()[:4])
    return f"({shown}{', ...' if array.size > 4 else ''})"


def _coordinate(x: float, spacing: float) -> str:
    ratio = abs(x) / spacing if spacing > 0 else 0.0
    digits = math.ceil(math.log10(ratio)) + 1 if 0 < ratio < math.inf else 3
    return f"{x:.{min(max(3, digits), 17)}g}"


def notes(report: GapReport) -> list[str]:
    """What must be known to read the numbers: measures, counts, labels, images."""
    lines = []
    for gap in report.constraints:
        train, judge = f"{gap.points} points, {_drawn(gap.sampler)}", "independent points"
        if gap.sampler == "rows":
            train, judge = f"{gap.points} rows", "other rows"
        if not gap.points:
            train, judge = "none of its rows", "rows"
        lines.append(
            f"{gap.name}: trained on {train}; judged on {gap.heldout.n} {judge} of {gap.measure}; "
            "95 % intervals over that draw; a region of probability below "
            f"{number(3 / gap.heldout.n)} may have been missed"
        )
        if gap.note:
            lines.append(f"{gap.name}: {gap.note}")
        if gap.heldout.label and not gap.at_rounding:
            lines.append(f"{gap.name}: interval {gap.heldout.label}")
        if gap.absolute_error is not None:
            text = f"RMS error {number(gap.absolute_error)} against the reference, which is zero,"
            if gap.error is not None:
                text = f"relative L2 error against the reference {number(gap.error)}"
            lines.append(f"{gap.name}: {text} on the held-out points")
        if gap.worst.ended:
            lines.append(
                f"{gap.name}: the search for the worst point was ended while it still climbed"
            )
        lines += [f"{gap.name}: {line}" for line in _image_lines(gap)]
    for item in report.finite:
        lines.append(
            f"{item.name}: finite set of {item.points} used whole, RMS residual "
            f"{number(item.rms)}; no population, no gap"
        )
    return lines


def _drawn(sampler: str) -> str:
    words = {
        "Independent()": "independent draws",
        "LatinHypercube()": "a Latin hypercube",
        "Sobol()": "a scrambled Sobol sequence",
        "Grid()": "a uniform grid",
        "GaussQuadrature()": "a Gauss rule",
    }
    return words.get(sampler, sampler)


def _image_lines(gap: ConstraintGap) -> list[str]:
    image = gap.image
    if image is None or len(image.spread) < 2:
        return []
    spread = ", ".join(number(value) for value in image.spread[:4])
    more = ", ..." if len(image.spread) > 4 else ""
    line = f"image spread ({spread}{more})"
    if image.rank is not None:
        line += f", rank {image.rank}"
    if image.coverage is not None:
        line += f", covers {100 * image.coverage:.0f} % of the target"
    lines = [line]
    if image.degree:
        lines.append(
            f"degree {image.degree} on a circle around the points: somewhere inside the "
            "constraint must fail, or u must jump"
        )
    if image.collapsed:
        lines.append("collapsed: the values do not fill the target")
    elif image.rank is not None and image.collapsed is None:
        lines.append("cannot tell whether the map collapsed: rank and coverage disagree")
    return lines


def header(solution: "Solution") -> str:
    """Status, reason, sizes and seconds in one sentence each."""
    settings, times, history = solution.settings, solution.timings, solution.history
    # A run that converged ends in steps which differ by rounding.
    best = solution.steps if solution.status == "converged" else history.best_step
    return (
        f"{solution.status}: {solution.reason}\n"
        f"{settings.method}: {solution.steps} steps"
        f"{f' (the best is step {best})' if best != solution.steps else ''}, "
        f"{solution.parameters} parameters, "
        f"seed {settings.seed}, {settings.dtype} on {settings.device}\n"
        f"{_redrawn(history.redraws, solution.steps)}"
        f"compile {times.compile:.2f} s, run {times.run:.2f} s, report {times.report:.2f} s"
    )


def _redrawn(redraws: Sequence[int], steps: int) -> str:
    """How often each draw of the training points was used, where there was more than one."""
    if not redraws:
        return ""
    used = np.diff([0, *redraws, steps])
    each = f"{used.min()}" if used.min() == used.max() else f"{used.min()} to {used.max()}"
    return f"train = last of {len(used)} draws, used for {used[-1]} steps; all for {each}\n"


def summary(solution: "Solution") -> str:
    """Plain text of a solution."""
    lines = [str(solution.verdict), header(solution)]
    for gap in solution.gap.constraints:
        cells = row(gap)
        lines.append(
            f"{cells[0]}: train RMS {cells[1]}, held-out RMS {cells[2]}, gap {cells[3]}, "
            f"worst {cells[5]} at {cells[6]}"
        )
    lines += notes(solution.gap) + missing_lines(solution)
    return "\n".join([*lines, *error_lines(solution), *unknown_lines(solution)])


def missing_lines(solution: "Solution") -> list[str]:
    """What is missing among data, a line for each constraint that lacks some."""
    lines = []
    for item in solution.problem.constraints:
        if isinstance(item.over, Data) and (count := missing_values(item.over.rows)[0]):
            values = sum(leaf.size for leaf in jax.tree.leaves(item.over.rows[1:]))
            whole = int(missing_values(item.over.rows)[1].sum())
            rows = f", among them {whole} whole row{'s' * (whole > 1)}" * bool(whole)
            lines.append(f"{item.name}: {count} of {values} values are missing{rows}; left out")
    return lines


def unknown_lines(solution: "Solution") -> list[str]:
    """The estimates of a solution that has unknowns and data, else nothing."""
    if not has_unknowns(solution):
        return []
    try:
        return estimate_lines(solution.estimates())
    except ValueError as error:
        return [str(error)]


def estimate_lines(found: Estimates) -> list[str]:
    """What data say about unknowns, a line for each and for what they leave open."""
    width = max(map(len, found.values))
    lines = [found.status]
    if found.status != "converged" or found.offset > 0.1:
        lines[0] += f": {found.offset:.2g} standard errors from a minimum, as the slopes tell"
    for name, item in found.values.items():
        text = f"{name:{width}}  {item.value:.6g}"
        if not math.isnan(item.low):
            text += f" [{item.low:.6g}, {item.high:.6g}]"
        if not math.isnan(item.low) and math.isfinite(item.error):
            text += f", standard error {item.error:.2g}"
        lines.append(text + f": {item.label}" * bool(item.label))
    for direction in found.undetermined:
        parts = " and ".join(f"{name} {share:+.2g} %" for name, share in direction.items())
        lines.append(f"unidentifiable: the data would be the same with {parts}")
    known = f"{found.degrees} degrees of freedom" if found.degrees else "given"
    if math.isnan(found.sigma):
        lines.append("noise not known: as many unknowns as observed numbers, so no intervals")
    else:
        lines.append(f"noise {number(found.sigma)} ({known})")
    return lines


def table_rows(report: GapReport) -> list[tuple[str, ...]]:
    """All lines under `COLUMNS`: constraints, finite sets, and the total of several constraints."""
    rows = [row(gap) for gap in report.constraints]
    rows += [(item.name, number(item.rms), *["-"] * 5) for item in report.finite]
    if report.heldout is not None and report.difference is not None and len(report.constraints) > 1:
        rounding = all(gap.at_rounding for gap in report.constraints)
        rows.append(
            (
                "total (loss)",
                number(report.train),
                interval(report.heldout),
                "at rounding" if rounding else interval(report.difference),
                *["-"] * 3,
            )
        )
    return rows


def error_lines(solution: "Solution") -> list[str]:
    """What the residual says about the error of a solution in pieces, for each experiment."""
    if solution.problem.scheme is None:
        return []
    several = isinstance(solution.model, Experiments)
    named = {f"{name}: ": solution[name] for name in solution.model.names} if several else {}
    parts = {name: part.verdict.error for name, part in (named or {"": solution}).items()}
    return [f"{name}{error!r}" for name, error in parts.items() if error is not None]


def gap_tables(report: GapReport, console: "Console") -> "list[Table]":
    """One table for a terminal, or one below the other for each constraint where that is wider."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = table_rows(report)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in COLUMNS:
        table.add_column(title, justify="left" if title in ("constraint", "at") else "right")
    for cells in rows:
        # Text, not markup: a constraint may be named "[red]".
        table.add_row(*(Text(cell) for cell in cells))
    needed = console.measure(table, options=console.options.update(width=10_000)).maximum
    if needed <= console.width:
        return [table]
    stacked = []
    for cells in rows:
        block = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        block.add_column(COLUMNS[0])
        block.add_column(Text(cells[0]))
        for title, cell in zip(COLUMNS[1:], cells[1:], strict=True):
            if cell != "-":
                block.add_row(title, Text(cell))
        stacked.append(block)
    return stacked


_HTML = """<table><thead><tr>{% for title in columns %}<th>{{ title }}</th>{% endfor %}</tr></thead>
<tbody>{% for cells in rows %}<tr>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
<ul>{% for line in notes %}<li>{{ line }}</li>{% endfor %}</ul>"""


def gap_html(report: GapReport) -> str:
    """The table for a notebook; every name in it is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_HTML).render(
        columns=COLUMNS, rows=table_rows(report), notes=notes(report)
    )
