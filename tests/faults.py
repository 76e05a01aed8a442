"""What the tests of faults share: a small problem, and the command line in this process."""

import jax.numpy as jnp
from typer.testing import CliRunner

import constrainednn as cx
from constrainednn.cli.entry import app

HEADER = "import jax, jax.numpy as jnp\nimport constrainednn as cx\n"
BODY = """
def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0

def problem(width=4):
    return cx.Problem(
        cx.Constraint(on_circle, over=cx.Normal(2), points=8), model=cx.MLP(2, 2, width=width)
    )
"""
TINY = ("--heldout", "32", "--monitor", "16", "--steps", "2", "--method", "gd")
MODEL = cx.MLP(2, 2, width=4)


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def stated(residual, **settings):
    """A problem with one residual."""
    model = settings.pop("model", MODEL)
    settings = {"over": cx.Normal(2), "points": 8, **settings}
    return cx.Problem(cx.Constraint(residual, **settings), model=model)


def finding(residual, **settings):
    (found,) = cx.check(stated(residual, **settings))
    return found


def small(problem, method=None, **settings):
    return cx.solve(problem, method, **{"steps": 2, "heldout": 32, "monitor": 16, **settings})


def note(message):
    """Replaced where the table of faults is written."""


def run(*arguments):
    """Run the command line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    for line in result.stderr.splitlines():
        if line.startswith("error: "):
            note(line.removeprefix("error: "))
    return result


def refused(*arguments, code=2):
    """Run the command line, expect a refusal in one line of ours, and return all it says."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    said = result.stderr
    lines = said.strip().splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1, said
    assert lines[-1].startswith("error: "), said
    for internal in (
        "jax/_src",
        "site-packages",
        "trial_evaluation.py",
        "solve.py",
        "problem_files.py",
        "JAX has",
    ):
        assert internal not in said
    return said
