"""Draw the figures of the README and the documents from the package itself.

    python docs/draw_figures.py

The layers of the package, from the contract in pyproject.toml and the first line of each package.

The wide relu network of the gallery learns the unit circle from 100 points by gradient descent.
Upper row: where it sends those points, at a few steps. Lower row: where it sends fresh points.
"""

import ast
import tomllib
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

import constrainednn as cx

jax.config.update("jax_enable_x64", True)

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "_static"
STEPS = (10, 100, 1000, 10_000)
REACH = 2.4
INK, PAPER, RING = "#22262b", "#ffffff", "#b9bec6"


def main() -> None:
    draw_layers().savefig(FOLDER / "layers.png", dpi=160, metadata={"Software": None})
    problem = cx.load_problem("unit_circle", model="relu")
    solution = cx.solve(problem, cx.Optax(optax.sgd(1e-3)), steps=STEPS[-1])
    draw_circle(solution).savefig(FOLDER / "unit_circle.png", dpi=160, metadata={"Software": None})


def draw_layers() -> Figure:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = settings["tool"]["importlinter"]["contracts"][0]
    layers = [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
    figure = Figure(figsize=(10, 0.42 * len(layers) + 0.3), layout="constrained", facecolor=PAPER)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(len(layers), 0))
    axes.axis("off")
    for row, packages in enumerate(layers):
        width = 1 / len(packages)
        for column, name in enumerate(packages):
            left = column * width
            axes.add_patch(
                Rectangle((left + 0.003, row + 0.06), width - 0.006, 0.88, fc="#eef1f5", ec=RING)
            )
            place = {"va": "center", "y": row + 0.5}
            axes.text(x=left + 0.015, s=name, fontsize=10, color=INK, weight="bold", **place)
            path = ROOT / "constrainednn" / name
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            says = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
            says = says.removeprefix(f"{name.strip('_').capitalize()}: ")
            says = says[:1].upper() + says[1:]
            room = int(130 * width) - 14
            says = says if len(says) <= room else says[:room].rsplit(" ", 1)[0] + " ..."
            axes.text(x=left + 0.13, s=says, fontsize=8.5, color="#5c636c", **place)
    return figure


def draw_circle(solution: cx.results.Solution) -> Figure:
    streams, snapshots = solution.streams[0], dict(solution.history.snapshots)
    # Monitor points: fresh draws that may be looked at during training.
    rows = [
        ("points it trained on", streams.train.points),
        ("fresh points", streams.monitor.points[:400]),
    ]
    figure = Figure(figsize=(11.5, 5.2), layout="constrained", facecolor=PAPER)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.03)
    grid = figure.subplots(len(rows), len(STEPS) + 1)
    for row, (label, x) in enumerate(rows):
        x = np.asarray(x)
        # The direction of x gives the colour, so that one sees which way the plane is folded.
        colour = hues(np.arctan2(x[:, 1], x[:, 0]))
        panels = [("x", x)] + [
            (f"u(x), step {step:,}", np.asarray(eqx.filter_vmap(snapshots[step])(x)))
            for step in STEPS
        ]
        for column, (axes, (title, values)) in enumerate(zip(grid[row], panels, strict=True)):
            if column:
                axes.add_patch(Circle((0, 0), 1, fill=False, ec=RING, lw=1.2))
            axes.scatter(
                *values.T, c=colour, s=13 if len(x) < 200 else 8, lw=0, alpha=0.9, zorder=2
            )
            axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], aspect=1)
            for spine in axes.spines.values():
                spine.set(color="#dfe2e6", lw=0.8)
            outside = int((np.abs(values) > REACH).any(axis=1).sum())
            if outside:
                axes.text(
                    0.97,
                    0.03,
                    f"{outside} outside",
                    transform=axes.transAxes,
                    ha="right",
                    fontsize=8,
                    color="#8a9099",
                )
            if row == 0:
                axes.set_title(title, fontsize=11, color=INK, pad=7)
            if column:
                rms = np.sqrt(np.mean((np.linalg.norm(values, axis=1) - 1) ** 2))
                axes.set_xlabel(f"RMS residual {rms:.2g}", fontsize=9, color="#5c636c", labelpad=4)
        grid[row, 0].set_ylabel(f"{len(x)} {label}", fontsize=11, color=INK, labelpad=8)
    return figure


def hues(angle: np.ndarray) -> np.ndarray:
    """Colours of equal lightness around the circle of hues.

    Source:
        B. Ottosson, "A perceptual color space for image processing" (2020): from Oklab to
        linear sRGB; then the sRGB transfer curve of IEC 61966-2-1.
    """
    a, b = 0.125 * np.cos(angle), 0.125 * np.sin(angle)
    lightness = 0.64
    long, middle, short = (
        (lightness + u * a + v * b) ** 3
        for u, v in (
            (0.3963377774, 0.2158037573),
            (-0.1055613458, -0.0638541728),
            (-0.0894841775, -1.2914855480),
        )
    )
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        ],
        axis=1,
    ).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


if __name__ == "__main__":
    main()
