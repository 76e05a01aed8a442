"""What the tests of faults share: the command line in this process, and its refusals."""

from typer.testing import CliRunner

from constrainednn import cli


def note(message):
    """Replaced where the table of faults is written."""


def run(*arguments):
    """Run the command line."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
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
    for internal in ("jax/_src", "site-packages", "_check.py", "_solve.py", "_load.py", "JAX has"):
        assert internal not in said
    return said
