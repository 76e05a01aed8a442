"""Solve every problem of the gallery, draw it, and write the pages that show them.

    python docs/draw_gallery.py [NAME ...]
    python docs/draw_gallery.py --pages

Pictures go to `docs/_static/gallery`, what was measured to `docs/_static/gallery.json`; both, with
the problem files and `docs/gallery_equations.toml`, make `docs/gallery.md` and a page for each
problem in `docs/gallery`. With names only those problems are solved again, with `--pages` none.
"""

import ast
import html
import io
import json
import re
import sys
import time
import tomllib
from pathlib import Path

import jax
from matplotlib.figure import Figure
from PIL import Image

import constrainednn as cx
from constrainednn._common.paths import gallery
from constrainednn.results import Experiments, Solution

jax.config.update("jax_enable_x64", True)

DOCS = Path(__file__).resolve().parent
PICTURES, FACTS = DOCS / "_static" / "gallery", DOCS / "_static" / "gallery.json"
PAGES, EQUATIONS = DOCS / "gallery", DOCS / "gallery_equations.toml"
# What is drawn of a problem, the first that there is.
KINDS = ("solution", "spread", "history")
# What a problem is solved to, where corners make the default tolerance too tight.
TOLERANCES = {"cavity": 1e-3, "eikonal": 1e-3}
INTRODUCTION = """# Gallery

Every problem that comes with the package, as it solves it with no further settings than those
shown. The name leads to its equation, settings and report. `constrainednn new mine.py --from NAME`
copies one to start from. Errors are relative to the reference. All of it is made by
`python docs/draw_gallery.py`.
"""


def main(arguments: list[str]) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    facts = json.loads(FACTS.read_text()) if FACTS.exists() else {}
    names = [] if arguments == ["--pages"] else arguments or list(gallery())
    for name in names:
        facts[name] = solved(name)
        print(name, facts[name]["measured"], facts[name]["seconds"], flush=True)
        facts = {known: facts[known] for known in gallery() if known in facts}
        FACTS.write_text(json.dumps(facts, indent=1) + "\n")
    write_cards(facts)
    equations = tomllib.loads(EQUATIONS.read_text())
    for name, found in facts.items():
        write_page(name, found, equations[name])


def solved(name: str) -> dict[str, str]:
    """Draw a problem, and say what was measured."""
    began = time.perf_counter()
    stated = {"tolerance": TOLERANCES[name]} if name in TOLERANCES else {}
    solution = cx.solve(cx.load_problem(name), progress=False, **stated)
    seconds = time.perf_counter() - began
    if solution.status == "interrupted":
        raise KeyboardInterrupt
    save(picture(solution), PICTURES / f"{name}.png")
    errors = [item.error for item in solution.gap.constraints if item.error is not None]
    rms = max(item.heldout_rms.value for item in solution.gap.constraints)
    return {
        "verdict": solution.verdict.word,
        # Of the first: on an edge where the solution vanishes a relative error means nothing.
        "measured": f"error {errors[0]:.1e}" if errors else f"held-out RMS {rms:.1e}",
        "seconds": f"{seconds:.2g}",
        "report": str(solution),
    }


def picture(solution: Solution) -> Figure:
    """The solution, or what there is instead of a picture of it."""
    figure = Figure(figsize=(3.2, 2.5), layout="constrained")
    axes = figure.subplots()
    one = solution[0] if isinstance(solution.model, Experiments) else solution
    for kind in KINDS:
        try:
            one.plot(kind, ax=axes)
            break
        except ValueError:  # there is no picture of this kind
            continue
    axes.set_title("")
    return figure


def command(name: str) -> str:
    """What solves a problem on the command line."""
    tolerance = f" --tolerance {TOLERANCES[name]:g}" if name in TOLERANCES else ""
    return f"constrainednn solve {name}{tolerance}"


def save(figure: Figure, file: Path) -> None:
    """Save as a picture of 256 colours, which takes a third of the space."""
    drawn = io.BytesIO()
    # The layout may be that of other ticks, whose labels need less room: "tight" cuts none off.
    figure.savefig(drawn, dpi=200, bbox_inches="tight")
    # Without dithering: dots on flat areas take space and are seen.
    colours = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    colours.save(file, optimize=True)


def write_cards(facts: dict[str, dict[str, str]]) -> None:
    cards = []
    for name, found in facts.items():
        cards.append(
            f'<div class="card"><a href="gallery/{name}.html">'
            f'<img src="_static/gallery/{name}.png" alt="The solution of {name}" '
            f'width="320" height="250" loading="lazy">\n'
            f"<strong>{name}</strong></a>\n<p>{html.escape(told(name)[0])}</p>\n"
            f'<p>{found["verdict"]}; <span class="number">{found["measured"]}</span></p>\n'
            f"<code>{command(name)}</code></div>"
        )
    grid = '<div class="cards">\n' + "\n".join(cards) + "\n</div>\n"
    pages = "\n".join(f"gallery/{name}" for name in facts)
    hidden = f"```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
    (DOCS / "gallery.md").write_text(f"{INTRODUCTION}\n{grid}\n{hidden}")


def write_page(name: str, found: dict[str, str], equation: str) -> None:
    PAGES.mkdir(exist_ok=True)
    first, rest = told(name)
    settings = given(name)
    table = "".join(f"| `{key}` | `{value}` |\n" for key, value in settings)
    seconds = f"| seconds | {float(found['seconds']):g} |\n" if "seconds" in found else ""
    parts = [
        f"# {name}\n\n{first}\n",
        f"```{{math}}\n{equation}\n```\n",
        f"```{{image}} ../_static/gallery/{name}.png\n:alt: The solution of {name}\n```\n",
        f"{rest}\n" if rest else "",
        "## Result\n\n| | |\n|---|---|\n"
        f"| verdict | {found['verdict']} |\n| measured | {found['measured']} |\n{seconds}",
        f"```text\n{found['report']}\n```\n" if "report" in found else "",
        "Seconds are those of a first call, compilation included, on two cores that had other\n"
        "work to do; quiet ones are in the [benchmarks](../benchmarks.md).\n"
        if seconds
        else "",
        f"## Settings\n\n| setting | default |\n|---|---|\n{table}" if table else "",
        f"## Run it\n\n```console\n$ {command(name)} --out run\n"
        f"$ constrainednn new mine.py --from {name}\n```\n",
    ]
    (PAGES / f"{name}.md").write_text("\n".join(filter(None, parts)))


def told(name: str) -> tuple[str, str]:
    """The first line of a problem file, and what its docstring says beside."""
    text = ast.get_docstring(ast.parse(gallery()[name].read_text())) or ""
    first, _, rest = text.partition("\n")
    # Stars and bars that Markdown would take for its own.
    return first, re.sub(r"([*|])", r"\\\1", rest.strip())


def given(name: str) -> list[tuple[str, str]]:
    """The settings of a problem with their defaults."""
    for node in ast.parse(gallery()[name].read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == "problem":
            defaults = [ast.unparse(value) for value in node.args.defaults]
            return list(zip((item.arg for item in node.args.args), defaults, strict=True))
    return []


if __name__ == "__main__":
    main(sys.argv[1:])
