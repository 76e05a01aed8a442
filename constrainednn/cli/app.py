"""The command line. Imports jax only when it is about to compute."""

from typing import Annotated

import typer

app = typer.Typer(
    name="constrainednn",
    help=(
        "Learn functions from constraints and report an honest generalization gap.\n\n"
        "A problem file is Python code: every command that takes one runs it with your rights."
    ),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(show: bool) -> bool:
    if show:
        import constrainednn

        typer.echo(constrainednn.__version__)
        raise typer.Exit
    return show


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
