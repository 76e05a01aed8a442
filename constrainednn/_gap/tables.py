"""The gap report as a table, in terminals and in notebooks."""

import math
from typing import TYPE_CHECKING

import numpy as np

from constrainednn._common.tables import WIDEST, html_table, number, table_lines, wrapped
from constrainednn._gap.holds.kind import ENFORCED
from constrainednn._gap.statistics import Estimate

if TYPE_CHECKING:
    from constrainednn._gap.report import ConstraintGap, GapReport


COLUMNS = ("constraint", "train RMS", "held-out RMS", "gap (loss)", "ratio", "worst |r|", "at")


def interval(estimate: Estimate) -> str:
    """Value with its 95 % interval."""
    if math.isnan(estimate.low):
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def row(gap: "ConstraintGap") -> tuple[str, ...]:
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


def notes(report: "GapReport") -> list[str]:
    """What must be known to read the numbers: measures, counts, labels, images.

    What is said of several constraints in the same words is said once.
    """
    said: list[tuple[str, str]] = []
    if (least := report.objective) is not None:
        judged = f"judged on {least.heldout.n} independent points of {least.measure}"
        drawn = f"{least.points} points, {drawn_lines(least.sampler)}"
        said += [(least.name, f"minimised on {drawn}; {judged}"), (least.name, least.line())]
    for gap in report.constraints:
        said += [(gap.name, line) for line in _gap_lines(gap, objective=least is not None)]
    for item in report.finite:
        text = f"finite set of {item.points} used whole, RMS residual {number(item.rms)}"
        said.append((item.name, f"{text}; no population, no gap"))
    names: dict[str, list[str]] = {}
    for name, line in said:
        names.setdefault(line, []).append(name)
    return [f"{', '.join(dict.fromkeys(who))}: {line}" for line, who in names.items()]


def _gap_lines(gap: "ConstraintGap", *, objective: bool) -> list[str]:
    """What is said of one constraint, without its name."""
    train, judge = f"{gap.points} points, {drawn_lines(gap.sampler)}", "independent points"
    if gap.sampler == "rows":
        train, judge = f"{gap.points} rows", "other rows"
    if not gap.points:
        train, judge = "none of its rows", "rows"
    trained = f"trained on {train}"
    if objective and gap.holds.kind in ENFORCED:
        trained = "enforced by the projection, not trained on"
    lines = [
        f"{trained}; judged on {gap.heldout.n} {judge} of {gap.measure}",
        "95 % intervals over that draw; a region of probability below "
        f"{number(3 / gap.heldout.n)} may have been missed",
        gap.holds.line(),
        *gap.guarantee.lines(band=not gap.at_rounding),
        gap.note,
    ]
    if gap.heldout.label and not gap.at_rounding:
        lines.append(f"interval {gap.heldout.label}")
    if gap.absolute_error is not None:
        text = f"RMS error {number(gap.absolute_error)} against the reference, which is zero,"
        if gap.error is not None:
            text = f"relative L2 error against the reference {number(gap.error)}"
        lines.append(f"{text} on the held-out points")
    if gap.worst.ended:
        lines.append("the search for the worst point was ended while it still climbed")
    return [line for line in (*lines, *_image_lines(gap)) if line]


def drawn_lines(sampler: str) -> str:
    words = {
        "Independent()": "independent draws",
        "LatinHypercube()": "a Latin hypercube",
        "Sobol()": "a scrambled Sobol sequence",
        "Grid()": "a uniform grid",
        "GaussQuadrature()": "a Gauss rule",
    }
    return words.get(sampler, sampler)


def _image_lines(gap: "ConstraintGap") -> list[str]:
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
            f"degree {image.degree} around the points: somewhere inside the "
            "constraint must fail, or u must jump"
        )
    if image.collapsed:
        lines.append("collapsed: the values do not fill the target")
    elif image.rank is not None and image.collapsed is None:
        lines.append(
            "cannot tell whether the map collapsed: it covers a part of the target, or there are "
            "too few points"
        )
    return lines


def table_rows(report: "GapReport") -> list[tuple[str, ...]]:
    """All lines under `COLUMNS`: objective, constraints, finite sets, and their total."""
    rows = [row(gap) for gap in report.constraints]
    if (least := report.objective) is not None:
        means = number(least.train), interval(least.heldout), interval(least.difference)
        rows.insert(0, (f"{least.name} (mean)", *means, *["-"] * 3))
        train, fresh, more = least.train_excess, least.excess, least.excess_gap
        if train is not None and fresh is not None and more is not None:
            excess = number(train), interval(fresh), interval(more)
            rows.insert(1, (f"{least.name} (excess)", *excess, *["-"] * 3))
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


def gap_html(report: "GapReport") -> str:
    """The table for a notebook; every name in it is escaped."""
    return html_table(COLUMNS, table_rows(report), notes(report))


def gap_text(report: "GapReport", width: int | None) -> str:
    """The table as text, stacked where a terminal is too narrow, with what to know below it."""
    lines = [*table_lines([COLUMNS, *table_rows(report)], 1, width or WIDEST), "", *notes(report)]
    return wrapped("\n".join(lines), width)


def is_rounding(rms: float, floor: float) -> bool:
    """True for a residual that a change of the parameters in their last digits explains."""
    return math.isfinite(rms) and rms <= 4 * floor
