"""Every Python block and command of README and documents runs; every name in them exists.

The shell lines that set a machine up are run by `.ci/run`, in a fresh environment.
"""

import ast
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import typer.main
from catalogue import ROWS
from faults_table import rows_of

import constrainednn as cx
from constrainednn import testing
from constrainednn._common.paths import gallery
from constrainednn._solve.problem_files import load_module, resolve
from constrainednn._solve.problem_functions import build, problem_keywords
from constrainednn.cli.entry import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = {page.name: page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
# Pages that are run when the documents are built, and shown with their output, are not run here.
BUILT = {name for name, page in PAGES.items() if "file_format: mystnb" in page.read_text()}
LONG = {
    "README.md",
    "constraints.md",
    "files.md",
    "methods.md",
    "problems.md",
    "report.md",
    "runs.md",
}

FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ ]*$", re.M | re.S
)
RUN = {"python", "{code-cell} python"}
CELL_OPTION = re.compile(r"^:\w+:.*\n", re.M)
SHELL = {"sh", "console"}
# What is shown and not run: terminal output, directives, code of other packages.
SHOWN = {"text", "{code-block}", "{eval-rst}", "{math}", "{toctree}", "{image}", "{include}"}


def _blocks(page: Path) -> list[tuple[str, str, int]]:
    """Kind, body and line number of the fenced blocks of a page."""
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        info = match["info"].strip()
        kind = info if info in RUN else info.split()[0] if info else ""
        found.append((kind, match["body"], text.count("\n", 0, match.start("body"))))
    return found


def _python(page: Path) -> list[tuple[str, int]]:
    # Options of a cell become blank lines, so that line numbers stay.
    return [
        (CELL_OPTION.sub("\n", body), line) for kind, body, line in _blocks(page) if kind in RUN
    ]


def _commands(page: Path) -> list[str]:
    """The lines of shell blocks, without the prompt."""
    lines = []
    for kind, body, _ in _blocks(page):
        if kind == "console":
            lines += [line[2:] for line in body.splitlines() if line.startswith("$ ")]
        elif kind == "sh":
            lines += body.splitlines()
    return lines


def _calls(page: Path) -> list[list[str]]:
    """The words of each call of the command line in a page."""
    parts = [part for line in _commands(page) for part in line.split("&&")]
    calls = [shlex.split(part) for part in parts]
    return [words[1:] for words in calls if Path(words[0]).name == "constrainednn"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
        for name, page in PAGES.items()
        if _python(page) and name not in BUILT
    ],
)
def test_python_blocks_run_in_order(name, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    page = PAGES[name]
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    # A reader has the defaults of jax, where the tests are stricter.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for body, line in _python(page):
            # Blank lines in front: a traceback then points into the page.
            exec(compile("\n" * line + body, str(page), "exec"), namespace)
    plt.close("all")


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_of_a_known_kind(name):
    # A block with a misspelt or missing language would escape the test above.
    assert {kind for kind, *_ in _blocks(PAGES[name])} <= RUN | SHELL | SHOWN


@pytest.mark.parametrize("name", PAGES)
def test_commands_parse(name):
    commands = typer.main.get_command(app).commands
    files = {**gallery(), **_files_shown()}
    for subcommand, *words in _calls(PAGES[name]):
        assert subcommand in commands
        if "--help" in words:
            continue
        given = commands[subcommand].make_context(subcommand, words).params
        if subcommand in ("solve", "check"):
            assert given["source"] in files, (
                f"{given['source']} is neither shown nor in the gallery"
            )
            _check_settings(files[given["source"]], given)
        if subcommand == "new":
            assert given["source"] in gallery()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if _calls(page)])
def test_commands_run_in_order(name, tmp_path):
    for file, source in _files_shown().items():
        if not any(words[:2] == ["new", file] for words in _calls(PAGES[name])):
            (tmp_path / file).write_text(source)
    script = Path(sys.executable).with_name("constrainednn")
    for words in _calls(PAGES[name]):
        done = subprocess.run([script, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)


def _files_shown() -> dict[str, str]:
    """Problem files that a page shows in full, and copies that a page makes: name to source."""
    shown = {}
    for page in PAGES.values():
        for body, _ in _python(page):
            first = re.match(r'(?:# |""")(\w+\.py)\b', body)
            if first:
                shown[first[1]] = body
        for subcommand, *words in _calls(page):
            if subcommand == "new":
                shown[words[0]] = gallery()[words[words.index("--from") + 1]].read_text()
    return shown


def _check_settings(source: Path | str, given: dict) -> None:
    """Every `--set` is a keyword of the problem function, every method is known."""
    tree = ast.parse(source.read_text() if isinstance(source, Path) else source)
    keywords, methods = set(), {"lm", "gd", "adam", "lbfgs"}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "problem":
            keywords = {argument.arg for argument in node.args.args}
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "methods":
            methods |= {key.value for key in node.value.keys}
    for setting in given.get("settings") or []:
        assert setting.partition("=")[0] in keywords
    assert (given.get("method") or "lm") in methods


@pytest.mark.parametrize("name", sorted(_files_shown()))
def test_problem_files_shown_can_be_loaded_and_pass_their_check(name, tmp_path):
    file = tmp_path / name
    file.write_text(_files_shown()[name])
    path, attribute = resolve(str(file))
    module = load_module(path)
    problem = build(module, path, attribute, {})
    assert [finding.error for finding in cx.check(problem)] == [""] * len(problem.constraints)
    assert all(
        item.default is not inspect.Parameter.empty
        for item in problem_keywords(getattr(module, attribute)).values()
    )


def test_readme_has_its_two_commands_alone_in_their_blocks():
    text = PAGES["README.md"].read_text()
    for mark in ("solve command", "test command"):
        assert len(re.findall(rf"^<!-- {mark} -->\n```sh\n[^\n`]+\n```$", text, re.M)) == 1


def test_readme_lists_the_gallery():
    rows = re.findall(r"^\| `(\w+)` \|", PAGES["README.md"].read_text(), re.M)
    assert sorted(rows) == sorted(gallery())


def test_gallery_shows_every_problem_with_its_picture():
    cards = re.findall(r'<img src="(\S+/(\w+)\.png)"', PAGES["gallery.md"].read_text())
    assert [name for _, name in cards] == list(gallery())
    assert all((ROOT / "docs" / file).exists() for file, _ in cards)
    pages = (ROOT / "docs" / "gallery").glob("*.md")
    assert sorted(page.stem for page in pages) == sorted(gallery())


def test_citation_is_of_this_version():
    (version,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert version == cx.__version__


def test_page_of_faults_lists_what_is_tested():
    shown = dict(
        re.findall(r"^\| ([A-L]\d+) \| (.+?) \| .*\S.* \|$", PAGES["faults.md"].read_text(), re.M)
    )
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    names = re.findall(r"^def (test_\w+)", tests, re.M)
    assert shown == ROWS
    assert {row for name in names for row in rows_of(name)} == ROWS.keys()


def test_readme_shows_what_is_printed(solved):
    texts = [body for kind, body, _ in _blocks(PAGES["README.md"]) if kind == "text"]
    (shown,) = (body for body in texts if "train RMS" in body)
    printed = repr(solved("unit_circle"))

    def words(text):
        # Digits change with the machine, and columns with the digits; seconds are left out.
        lines = [line for line in text.splitlines() if "compile " not in line]
        return re.sub(r"-?\d+(\.\d+)?(e[+-]\d+)?", "#", " ".join(lines)).split()

    assert words(shown) == words(printed)


@pytest.mark.parametrize("name", PAGES)
def test_relative_links_and_pictures_lead_somewhere(name):
    page = PAGES[name]
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    targets += re.findall(r"^```\{(?:image|include)\} (\S+)", page.read_text(), re.M)
    for target in targets:
        assert (page.parent / target).exists(), target


def test_api_reference_has_every_public_name_and_no_other():
    text = PAGES["api.md"].read_text()
    shown = r"^\.\. auto(?:class|function|exception):: (?:constrainednn\.)?([\w.]+)$"
    listed = re.findall(shown, text, re.M)
    public = [name for name in cx.__all__ if not inspect.ismodule(getattr(cx, name))]
    assert len(cx.__all__) <= 50
    for package in (
        "domains",
        "errors",
        "methods",
        "models",
        "operators",
        "results",
        "runs",
        "studies",
        "targets",
    ):
        inside = getattr(cx, package).__all__
        public += [f"{package}.{name}" for name in inside if name not in public]
    assert sorted(listed) == sorted(public)
    members = re.search(r"automodule:: constrainednn\.testing\n   :members: (.+)$", text, re.M)
    assert members is not None
    assert sorted(members[1].split(", ")) == sorted(testing.__all__)


def test_every_public_name_says_what_it_is():
    silent = [
        name
        for module in (cx, *filter(inspect.ismodule, (getattr(cx, name) for name in cx.__all__)))
        for name in module.__all__
        if not (inspect.getdoc(getattr(module, name)) or "").strip()
    ]
    assert silent == []
