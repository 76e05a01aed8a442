"""Writes docs/faults.md: `pytest --faults-table=docs/faults.md`.

Runs the tests that are named after rows of the catalogue and notes the first message that each
meets: of an exception, a warning, or an error at the command line.
"""

import re
from pathlib import Path

import pytest
from catalogue import HAPPENS, ROWS, SECTIONS

ROW_NAME = re.compile(r"test_((?:[a-gjkl]\d+_)+)")
INTRODUCTION = """# Faults and bad input

What happens when something is wrong: with a problem file, a setting, a residual, the disk or the
machine. Each row has a test, and the messages are those that the tests met; the page is written by
`pytest --faults-table=docs/faults.md`.
"""

messages: dict[str, str] = {}
_current: list[str] = []


def rows_of(name: str) -> list[str]:
    """The rows that the name of a test begins with."""
    match = ROW_NAME.match(name)
    return match[1].upper().strip("_").split("_") if match else []


def note(message: object) -> None:
    """Keep the first message that the running test meets."""
    for row in _current if str(message) else ():  # some exceptions say nothing
        messages.setdefault(row, str(message))


def pytest_addoption(parser):
    parser.addoption("--faults-table", metavar="FILE", help="Write the table of faults.")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--faults-table"):
        items[:] = [item for item in items if rows_of(item.originalname)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if not item.config.getoption("--faults-table"):
        return (yield)
    import faults  # the helpers of the tests, where errors of the command line are looked at

    _current[:] = rows_of(item.originalname)
    raises, warns, faults.note = pytest.raises, pytest.warns, note
    pytest.raises, pytest.warns = (_noting(context) for context in (raises, warns))
    from constrainednn.errors import ProblemError

    def noted(self, *arguments):
        ValueError.__init__(self, *arguments)
        note(self)

    ProblemError.__init__ = noted  # `check` catches these and lists what they say
    try:
        return (yield)
    finally:
        pytest.raises, pytest.warns = raises, warns
        del ProblemError.__init__
        doc = (item.obj.__doc__ or "").strip().partition("\n\n")[0]
        note(" ".join(doc.split()))


def _noting(make):
    class Noting:
        def __init__(self, *arguments, **options):
            self.context = make(*arguments, **options)

        def __enter__(self):
            self.found = self.context.__enter__()
            return self.found

        def __exit__(self, *error):
            try:
                return self.context.__exit__(*error)
            finally:
                value = getattr(self.found, "_excinfo", None)
                if value:
                    note(value[1])
                elif not hasattr(self.found, "_excinfo") and len(self.found):
                    note(self.found[0].message)

    return Noting


def pytest_sessionfinish(session):
    if path := session.config.getoption("--faults-table"):
        Path(path).write_text(table())


def table() -> str:
    """The page."""
    lines = [INTRODUCTION]
    for letter, title in SECTIONS.items():
        lines += [
            f"## {title}",
            "",
            "| | provoked by | what is said, or happens |",
            "|---|---|---|",
        ]
        for row, provoked in ROWS.items():
            if row[0] == letter:
                lines.append(
                    f"| {row} | {provoked} | {cell(HAPPENS.get(row) or messages.get(row, ''))} |"
                )
        lines.append("")
    return "\n".join(lines)


def cell(message: str) -> str:
    """A message as one cell: no folder of this machine, no number of this process, no markup."""
    text = " ".join(message.split())
    text = re.sub(r"/\S*/tests/(test_\w+\.py)", r"\1", text)
    text = re.sub(r"/\S*?/(?:popen-gw\d+/)?test_[^/\s]*?\d+(?=[/\s:'\"]|$)", "DIR", text)
    text = re.sub(r"(process|\.probe\.)( ?)\d+", r"\1\2N", text)
    text = re.sub(r" on \S+ since \S+?(?=[,.]? |\.?$)", " on HOST since TIME", text)
    text = text.replace("](", "] (")  # no link
    text = text if len(text) <= 400 else text[:400] + " ..."
    text = re.sub(r"([\\`*_{}\[\]<>|$~#])", r"\\\1", text)
    # As code, since two hyphens in text become a dash that no command line takes.
    return re.sub(r"(?<!\S)--[a-z][a-z-]*[a-z]", r"`\g<0>`", text)
