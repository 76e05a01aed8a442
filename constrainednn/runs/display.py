"""The bar that shows how far a run or a study is, where somebody watches."""

import contextlib
import html
import math
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol

from constrainednn.runs.listeners import Progress

# A study shows its own bar, and its runs none: two would write over each other.
_showing = threading.Lock()


class _Bar(Protocol):
    def __call__(self, phase: str, done: int, total: int, text: str, /) -> None: ...


@contextlib.contextmanager
def displayed(
    progress: bool | Callable[[Any], None] | None, words: Callable[[Any], tuple[str, int, int, str]]
) -> Iterator[Callable[[Any], None] | None]:
    """What shows progress: a function of the user's, a bar, or nothing.

    Args:
        progress: A function is taken as it is. True is a bar, False nothing, None a bar where
            somebody watches: in a terminal or a notebook.
        words: From what is seen to phase, what is done, of how much, and further words.
    """
    if not (progress is None or isinstance(progress, bool)):
        yield progress
        return
    notebook = _in_notebook()
    wanted = (notebook or sys.stderr.isatty()) if progress is None else progress
    if not wanted or not _showing.acquire(blocking=False):
        yield None
        return
    try:
        with _notebook_bar() if notebook else _terminal_bar() as bar:
            yield lambda seen: bar(*words(seen))
    finally:
        _showing.release()


def of_run(seen: Progress) -> tuple[str, int, int, str]:
    """The words for a run."""
    losses = f"train {_loss(seen.train)}  monitor {_loss(seen.monitor)}"
    return ", ".join(filter(None, (seen.phase, seen.part))), seen.step, seen.steps, losses


def _loss(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1e}"


def _in_notebook() -> bool:
    """True in a process that a notebook drives; looks for it without importing anything."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


@contextlib.contextmanager
def _terminal_bar() -> Iterator[_Bar]:
    """A bar on stderr, which is gone afterwards."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),  # what the others leave of 80 columns
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[text]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
        expand=True,
        console=Console(stderr=True),
        transient=True,
    )

    def show(phase: str, done: int, total: int, text: str) -> None:
        bar.update(task, description=phase, completed=done, total=total, text=text)
        seconds = bar.tasks[0].time_remaining
        # None before the first steps, 0 after the last: the gap takes a time that nobody knows.
        bar.update(task, left=f"{timedelta(seconds=round(seconds))} left" if seconds else "")

    with bar:
        task = bar.add_task("starting", total=None, text="", left="")
        yield show


@contextlib.contextmanager
def _notebook_bar() -> Iterator[_Bar]:
    """A bar below the cell, which is empty afterwards."""
    from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

    shown: Any = display(HTML("starting"), display_id=True)

    def show(phase: str, done: int, total: int, text: str) -> None:
        line = f"{phase} {done}/{total} {text}"
        shown.update(
            HTML(f'<progress value="{done}" max="{total}"></progress> {html.escape(line)}')
        )

    try:
        yield show
    finally:
        shown.update(HTML(""))
