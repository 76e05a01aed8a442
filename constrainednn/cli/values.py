"""Values typed on the command line."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from constrainednn.cli.terminal import fail

Source = Annotated[
    str,
    typer.Argument(metavar="FILE|NAME", help="A problem file, FILE.py:NAME, or a gallery name."),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Keyword of the problem function; repeatable."),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        "--time-limit", metavar="TIME", help="End the run after this time, such as 90s, 30m or 2h."
    ),
]
Tensorboard = Annotated[
    bool, typer.Option("--tensorboard", help="Write the losses for TensorBoard, too.")
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")]


def load(source: str, settings: list[str] | None) -> tuple[Any, dict[str, Any]]:
    """The problem of a file or of the gallery, and the methods that the file names."""
    import inspect

    from constrainednn._solve.problem_files import load_module, resolve
    from constrainednn._solve.problem_functions import build, find, methods_of, problem_keywords

    path, name = resolve(source)
    module = load_module(path)
    keywords = problem_keywords(find(module, path, name))
    values = {}
    for item in settings or []:
        key, equals, text = item.partition("=")
        if not equals or not key:
            fail(f"--set takes KEY=VALUE, got {item!r}.")
        default = keywords[key].default if key in keywords else None
        required = default is inspect.Parameter.empty
        values[key] = typed(key, text, None if required else default)
    return build(module, path, name, values), methods_of(module, path)


def typed(key: str, text: str, default: object, option: str = "set") -> object:
    """Read a setting as the type of the keyword's default."""
    if isinstance(default, bool):
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() in known:
            return known[text.lower()]
        fail(f"--{option} {key}={text}: write true or false.")
    if isinstance(default, (int, float)):
        try:
            return type(default)(text)
        except ValueError:
            kind = "a whole number" if isinstance(default, int) else "a number"
            fail(f"--{option} {key}={text}: expected {kind}, like the default {default!r}.")
    if default is None or isinstance(default, str):
        return text
    fail(f"--{option} {key}: its default {default!r} is no number or text; change it in the file.")


def as_seconds(text: str | None) -> float | None:
    """Read a time such as 90, 90s, 30m, 2h or 1h30m."""
    if text is None:
        return None
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d*)?)s?)?", text.strip())
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        fail(f"--time-limit {text}: write a time above zero such as 90s, 30m, 2h or 1h30m.")
    return total
