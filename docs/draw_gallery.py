"""Solve every problem of the gallery, draw it, and write the page that shows them all.

    python docs/draw_gallery.py [NAME ...]

Pictures go to `docs/_static/gallery`, what was measured to `docs/_static/gallery.json`, and both
make `docs/gallery.md`. With names only those problems are solved again.
"""

import ast
import html
import json
import sys
from pathlib import Path

import jax
from matplotlib.figure import Figure

import constrainednn as cx
from constrainednn._common.paths import gallery
from constrainednn.results import Experiments, Solution

jax.config.update("jax_enable_x64", True)

DOCS = Path(__file__).resolve().parent
PICTURES, FACTS = DOCS / "_static" / "gallery", DOCS / "_static" / "gallery.json"
# What is drawn of a problem, the first that there is.
KINDS = ("solution", "spread", "history")
INTRODUCTION = """# Gallery

Every problem that comes with the package, as it solves it without further settings.
`constrainednn new mine.py --from NAME` copies one to start from, and
`constrainednn solve NAME --out DIR` followed by `constrainednn report DIR` gives the
[page](report.md) of one, with its times. Errors are relative to the reference. All of it is made by
`python docs/draw_gallery.py`.
"""


def main(names: list[str]) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    facts = json.loads(FACTS.read_text()) if FACTS.exists() else {}
    for name in names or list(gallery()):
        facts[name] = solved(name)
        print(name, facts[name], flush=True)
        facts = {known: facts[known] for known in gallery() if known in facts}
        FACTS.write_text(json.dumps(facts, indent=1) + "\n")
    write_page(facts)


def solved(name: str) -> dict[str, str]:
    """Draw a problem, and say what was measured."""
    solution = cx.solve(cx.load_problem(name), progress=False)
    if solution.status == "interrupted":
        raise KeyboardInterrupt
    picture(solution).savefig(PICTURES / f"{name}.png", dpi=100, metadata={"Software": None})
    errors = [item.error for item in solution.gap.constraints if item.error is not None]
    rms = max(item.heldout_rms.value for item in solution.gap.constraints)
    return {
        "verdict": solution.verdict.word,
        # Of the first: on an edge where the solution vanishes a relative error means nothing.
        "measured": f"error {errors[0]:.1e}" if errors else f"held-out RMS {rms:.1e}",
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


def write_page(facts: dict[str, dict[str, str]]) -> None:
    cards = []
    for name, found in facts.items():
        module = ast.parse(gallery()[name].read_text())
        first = (ast.get_docstring(module) or "").splitlines()[0]
        cards.append(
            f'<div class="card"><img src="_static/gallery/{name}.png" alt="The solution of {name}" '
            f'width="320" height="250">\n<strong>{name}</strong>\n'
            f"<p>{html.escape(first)}</p>\n"
            f'<p>{found["verdict"]}; <span class="number">{found["measured"]}</span></p>\n'
            f"<code>constrainednn solve {name}</code></div>"
        )
    grid = '<div class="cards">\n' + "\n".join(cards) + "\n</div>\n"
    (DOCS / "gallery.md").write_text(f"{INTRODUCTION}\n{grid}")


if __name__ == "__main__":
    main(sys.argv[1:])
