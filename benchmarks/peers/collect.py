"""Read the runs, draw error against CPU seconds, print the table of the documentation."""

import dataclasses
import json
from pathlib import Path

from common import ALL, Problem

# Fixed colours, so that a package is the same in every panel; ours are the dark ones.
COLOURS = {
    "constrainednn, pieces": "#111111",
    "constrainednn, network": "#c1121f",
    "jinns": "#1f77b4",
    "deepxde": "#2ca02c",
    "pina": "#9467bd",
    "neurodiffeq": "#e09f3e",
    "fastlsq": "#17a2b8",
}
NAMES = {
    "constrainednn, pieces": "constrainednn, pieces (not neural)",
    "deepxde": "DeepXDE",
    "pina": "PINA",
    "fastlsq": "FastLSQ (features not trained)",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One package on one problem, as its script wrote it.

    Attributes:
        points: CPU seconds, compilation included, and errors. In the order of time; pieces from
            the loosest tolerance to the tightest.
        compiling: CPU seconds of these that went into compiling.
        held_out, train: RMS residuals, where the package reports both.
    """

    problem: str
    label: str
    version: str
    method: str
    points: tuple[tuple[float, float], ...]
    compiling: float
    neural: bool
    held_out: float | None = None
    train: float | None = None

    @property
    def seconds(self) -> float:
        """CPU seconds at the end."""
        return self.points[-1][0]

    @property
    def error(self) -> float:
        """Error at the end."""
        return self.points[-1][1]


def read(folder: Path) -> list[Run]:
    """All runs of a folder, each problem's from the smallest error at the end to the largest."""
    runs = []
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text())
        points = tuple((float(s), float(e)) for s, e in stored["points"])
        names = ("problem", "label", "version", "method", "compiling", "neural")
        known = {name: stored[name] for name in names}
        runs.append(
            Run(**known, points=points, held_out=stored.get("held_out"), train=stored.get("train"))
        )
    order = {problem.name: i for i, problem in enumerate(ALL)}
    return sorted(runs, key=lambda run: (order[run.problem], run.error))


def drawn(axes, problem: Problem, runs: list[Run]) -> None:
    """One panel."""
    for run in runs:
        seconds, errors = zip(*run.points, strict=True)
        colour = COLOURS[run.label]
        style = {"color": colour, "lw": 1.6, "ls": "-" if run.neural else "--"}
        # Below 1e-16 is rounding, and nothing is to be seen there.
        errors = [max(error, 1e-16) for error in errors]
        axes.plot(seconds, errors, marker="o", ms=3, **style)
        if run.compiling:
            warm = [s - run.compiling for s in seconds]
            # Pieces are solved anew for each tolerance: dots, of which no line is a course.
            marks = {"ls": ":"} if run.neural else {"ls": "", "marker": ".", "ms": 4}
            axes.plot(warm, errors, color=colour, lw=1.3, **marks)
    axes.set(xscale="log", yscale="log", title=problem.title, ylim=(3e-17, 5), xlim=(0.02, 200))
    axes.grid(alpha=0.25)


def draw(runs: list[Run], path: Path) -> None:
    """Six panels and one legend."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(11, 6.6), sharex=True, sharey=True)
    for axes, problem in zip(panels.flat, ALL, strict=True):
        drawn(axes, problem, [run for run in runs if run.problem == problem.name])
    for axes in panels[1]:
        axes.set_xlabel("CPU seconds with compilation; dotted: without")
    for axes in panels[:, 0]:
        axes.set_ylabel("relative L2 error")
    neural = {run.label: run.neural for run in runs}
    lines = [
        plt.Line2D([], [], color=colour, ls="-" if neural[label] else "--", marker="o", ms=3)
        for label, colour in COLOURS.items()
        if label in neural
    ]
    texts = [NAMES.get(label, label) for label in COLOURS if label in neural]
    figure.legend(lines, texts, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=110)


def table(runs: list[Run]) -> str:
    """Markdown: a row for each run."""
    titles = {problem.name: problem.title for problem in ALL}
    lines = [
        "| problem | package | error | CPU s (of which compiling) | train; held-out RMS |",
        "|---|---|---|---|---|",
    ]
    for run in runs:
        label = NAMES.get(run.label, run.label)
        seconds = f"{run.seconds:.2g}" + (f" ({run.compiling:.2g})" if run.compiling else "")
        gap = "" if run.held_out is None else f"{run.train:.1e}; {run.held_out:.1e}"
        lines.append(f"| {titles[run.problem]} | {label} | {run.error:.1e} | {seconds} | {gap} |")
    versions = sorted({(run.label.split(",")[0], run.version, run.method) for run in runs})
    lines += ["", *(f"- {name} {version}: {method}" for name, version, method in versions)]
    return "\n".join(lines)


def collect(folder: Path, figure: Path) -> None:
    """Draw the figure and print the table."""
    runs = read(folder)
    draw(runs, figure)
    print(table(runs))
