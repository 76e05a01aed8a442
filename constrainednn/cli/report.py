"""The command that writes pages to send."""

from pathlib import Path
from typing import Annotated

import typer

from constrainednn.cli.app import app
from constrainednn.cli.terminal import errors, fail, say


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of runs, or one of a study.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The page; default: NAME.html, here."),
    ] = None,
) -> None:
    """Write one page to send, from saved files alone.

    Several runs are shown side by side. For a folder of runs a page lists them, and the page of
    each is written beside it.
    """
    with errors(str(folders[0])):
        file = out or Path(f"{'-'.join(folder.resolve().name for folder in folders)}.html")
        if any((folder / "study.json").exists() for folder in folders):
            if len(folders) > 1:
                fail("a study has a page of its own: give its folder alone.")
            from constrainednn.studies.tables.table import load_study

            load_study(folders[0]).report(file)
        else:
            _write(folders, file)
        say(f"wrote {file}")


def _write(folders: list[Path], file: Path) -> None:
    """The page of runs, or of a folder of runs and of each of them."""
    from constrainednn._pages.contents import read_contents
    from constrainednn._pages.index_page import index_page, runs_in
    from constrainednn._pages.run_page import run_page
    from constrainednn._pages.written import write_own_page

    found = runs_in(folders[0]) if len(folders) == 1 else []
    if not found or (folders[0] / "report.json").exists():
        write_own_page(file, run_page([read_contents(folder) for folder in folders]))
        return
    listed = []
    for folder in found:
        contents = read_contents(folder)
        own = file.with_name(f"{file.stem}-{folder.name}.html")
        write_own_page(own, run_page([contents]))
        listed.append((folder.name, own.name, contents))
    write_own_page(file, index_page(f"Runs in {folders[0].resolve().name}", listed))
