"""The commands that show runs, check problems, list the gallery and write a new problem."""

import ast
import shlex
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from constrainednn._common.tables import terminal_width
from constrainednn.cli.app import app
from constrainednn.cli.environment import prepare_jax
from constrainednn.cli.terminal import USER, errors, fail, say, show_text
from constrainednn.cli.values import Folder, Setting, Source, load


@app.command()
def show(folder: Folder) -> None:
    """Print the state of a run or a study from its files alone; runs none of its code."""
    with errors(str(folder)):
        if (folder / "study.json").exists():
            from constrainednn.studies.tables.table import load_study

            show_text(load_study(folder).shown(terminal_width()))
            return
        from constrainednn._storage.show import show as state

        show_text(state(folder))


@app.command()
def check(
    source: Source,
    seed: Annotated[int, typer.Option(help="Seed of the model and of all points.")] = 0,
    settings: Setting = None,
) -> None:
    """Evaluate every residual before training: shapes, dtypes, finiteness, gradients, methods."""
    with errors(source):
        prepare_jax()
        import jax

        from constrainednn._checks.check import check_constraint
        from constrainednn._checks.stages import check_stages
        from constrainednn._common.arguments import as_seed
        from constrainednn._common.messages import user_traceback
        from constrainednn.methods.stages import as_stages

        problem, methods = load(source, settings)
        key = jax.random.key(as_seed(seed))
        model = problem.build_model(key=key)
        for method in (None, *methods.values()):
            check_stages(
                as_stages(method, None, objective=problem.objective is not None), problem, model
            )
        failed = False
        for constraint in problem.statements:
            try:
                finding = check_constraint(problem, constraint, model, key=key)
            except Exception as error:  # noqa: BLE001  (the user's own; the others are checked too)
                failed = True
                say(user_traceback(error), err=True)
                say(f"FAIL constraint {constraint.name!r} raises {type(error).__name__}: {error}")
                continue
            if finding.error:
                failed = True
                say(f"FAIL {finding.error}")
            else:
                say(
                    f"ok   {finding.constraint}: residual of shape {finding.shape}, finite with a "
                    f"finite gradient, RMS {finding.rms:.3g} before training"
                )
            for warning in finding.warnings:
                say(f"warn {warning}")
        if failed:
            raise typer.Exit(USER)


@app.command()
def problems(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One problem, to show with its settings.")
    ] = None,
) -> None:
    """List the gallery, one line each, or show the settings and the source of one."""
    from constrainednn._common.paths import gallery

    listed = gallery()
    if name is not None:
        from constrainednn._common.messages import known_names

        if name not in listed:
            fail(f"no gallery problem is named {name!r}. {known_names(name, listed)}")
        source = listed[name].read_text()
        settings = [f"{key}={value}" for key, value in _settings(ast.parse(source))]
        if settings:  # a comment, so that what is shown is a problem file
            text = f"settings, each for --set: {', '.join(settings)}"
            for line in textwrap.wrap(text, 76, break_on_hyphens=False):
                say(f"# {line}")
        say(source.rstrip())
        return
    width = max((len(name) for name in listed), default=0)
    for name, path in listed.items():
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        show_text(f"{name:<{width}}  {doc.splitlines()[0] if doc else ''}")


def _settings(module: ast.Module) -> list[tuple[str, str]]:
    """The keywords of the problem function, with their defaults as written."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == "problem":
            first = len(node.args.args) - len(node.args.defaults)
            names = [item.arg for item in node.args.args[first:] + node.args.kwonlyargs]
            values = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            return [(key, ast.unparse(value)) for key, value in zip(names, values, strict=True)]
    return []


@app.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    source: Annotated[str, typer.Option("--from", metavar="NAME", help="Gallery problem to copy.")],
) -> None:
    """Copy a gallery problem to start from."""
    with errors(source):
        from constrainednn._common.messages import known_names
        from constrainednn._common.paths import gallery
        from constrainednn._storage.files import copy_file

        if file.suffix != ".py":
            fail(f"{file} must end in .py, or solve would take it for a gallery name.")
        known = gallery()
        if source not in known:
            fail(f"no gallery problem is named {source!r}. {known_names(source, known)}")
        copy_file(known[source], file)
        say(f"wrote {file}; try: constrainednn solve {shlex.quote(str(file))}")
