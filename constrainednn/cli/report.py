"""The command that writes pages to send."""

from pathlib import Path
from typing import Annotated

import typer

from constrainednn.cli.app import app
from constrainednn.cli.terminal import errors, say


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
    """Write one page to send, from saved files alone; several runs are shown side by side."""
    with errors(str(folders[0])):
        from constrainednn._pages.contents import read_contents
        from constrainednn._pages.run_page import run_page
        from constrainednn._pages.written import write_own_page

        file = out or Path(f"{'-'.join(folder.resolve().name for folder in folders)}.html")
        write_own_page(file, run_page([read_contents(folder) for folder in folders]))
        say(f"wrote {file}")
