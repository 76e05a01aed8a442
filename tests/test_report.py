"""A page says what its run says, fetches nothing, runs no code of the user, is the same twice."""

import html.parser
import json
import re
import shlex
import subprocess
import sys
import zlib
from importlib import resources
from importlib.util import find_spec

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from browser import CHROMIUM, browser
from typer.testing import CliRunner

import constrainednn as cx
from constrainednn._pages.contents import packed, read_contents
from constrainednn._pages.drawing.images import SIZES, palette, png
from constrainednn._pages.drawing.scales import Scale
from constrainednn._pages.highlighted import highlighted
from constrainednn._pages.html import page
from constrainednn._pages.run_page import run_page
from constrainednn.cli.app import app
from constrainednn.results.page.rerun import again

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
MOST_BYTES = 300_000

PROBLEM = '''"""A line <b>& its</b> 'slope'."""
import constrainednn as cx


def on_line(u, x):
    return u(x) - 2.0 * x


def problem(width=4):
    constraint = cx.Constraint(on_line, over=cx.Interval(0.0, 1.0), points=8)
    model = cx.MLP("scalar", "scalar", width=width)
    return cx.Problem(constraint, model, reference=lambda x: 2.0 * x)
'''


def run(*words):
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


class Elements(html.parser.HTMLParser):
    """Names and attributes of the elements of a page, and the text that can be read."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self._inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text.append(data)


def policy_of(text):
    return re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A run of a problem file, its folder, and its solution."""
    folder = tmp_path_factory.mktemp("line")
    (folder / "line.py").write_text(PROBLEM)
    problem = cx.load_problem(folder / "line.py", width=5)
    solution = cx.solve(problem, steps=6, seed=3, heldout=64, monitor=16, out=folder / "run")
    return folder / "run", solution


def test_page_of_a_folder_is_that_of_the_solution_to_the_last_byte(line, tmp_path):
    folder, solution = line
    solution.report(tmp_path / "python.html")
    for name in ("first.html", "second.html"):
        assert run("report", str(folder), "-o", str(tmp_path / name)).exit_code == 0
    pages = [(tmp_path / f"{name}.html").read_bytes() for name in ("python", "first", "second")]
    assert pages[0] == pages[1] == pages[2]
    assert len(pages[0]) < MOST_BYTES


def test_page_says_verdict_worst_point_source_and_command(line):
    folder, solution = line
    text = " ".join("".join(Elements(run_page([read_contents(folder)])).text).split())
    gap = solution.gap["on_line"]
    assert f"{solution.verdict.word.capitalize()}: {solution.verdict.reason}." in text
    assert f"The largest residual of on_line is {gap.worst.residual:.3g}" in text
    assert "A line <b>& its</b> 'slope'." in text  # as it was written
    assert "constrainednn solve line.py --set width=5 --steps 6 --seed 3 --heldout 64" in text
    report = json.loads((folder / "report.json").read_text())
    assert report["sha256"] in text and report["settings"]["problem"] in text


@pytest.mark.slow
def test_command_of_a_page_gives_the_same_numbers(line, tmp_path, monkeypatch):
    folder, _ = line
    monkeypatch.chdir(folder.parent)
    words = shlex.split(read_contents(folder).said.again)
    assert run(*words[1:], "--out", str(tmp_path / "again")).exit_code == 0
    first, second = (
        json.loads((path / "report.json").read_text()) for path in (folder, tmp_path / "again")
    )
    assert first["gap"] == second["gap"]
    assert first["files"]["model.npz"] == second["files"]["model.npz"]


def test_saved_values_are_those_of_the_solution(line):
    folder, solution = line
    (seen,) = read_contents(folder).views
    x = seen.grid[0]
    np.testing.assert_array_equal(seen.values[:, 0], solution(x))
    np.testing.assert_array_equal(seen.reference[:, 0], 2.0 * x)
    (residual,) = seen.residuals
    np.testing.assert_array_equal(residual.field, np.abs(solution(x) - 2.0 * x))
    assert (residual.train_count, residual.heldout_count) == (8, 64)
    assert residual.worst_size >= residual.heldout_shares[0].max() == residual.heldout_size.max()
    # Of eight points the smallest residual is below or at none of the others.
    assert residual.train_shares[1].tolist() == (np.arange(8, 0, -1) / 8).tolist()


@pytest.mark.slow
def test_values_of_another_run_are_refused(line, tmp_path):
    _, solution = line
    solution.save(tmp_path / "copy")
    other = read_contents(tmp_path / "copy")
    other.report["sha256"] = "0" * 64
    (tmp_path / "copy" / "values.npz").write_bytes(packed(other))
    with pytest.raises(cx.errors.StoreError, match=r"does not belong to the report\.json"):
        read_contents(tmp_path / "copy")
    (tmp_path / "copy" / "values.npz").unlink()
    with pytest.raises(cx.errors.StoreError, match=r"load_solution\(.*report\('page.html'\)"):
        read_contents(tmp_path / "copy")
    with pytest.raises(cx.errors.StoreError, match="no finished run"):
        read_contents(tmp_path)


def test_report_runs_none_of_the_problem_and_loads_no_jax(line, tmp_path):
    folder, _ = line
    code = (
        "import sys\nfrom constrainednn.cli import main\n"
        f"sys.argv = ['constrainednn', 'report', {str(folder)!r}, '-o', 'page.html']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = ('jax', 'equinox', 'scipy', 'matplotlib')\n"
        "loaded = [name for name in heavy if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    (folder.parent / "line.py").rename(folder.parent / "gone.py")
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    finally:
        (folder.parent / "gone.py").rename(folder.parent / "line.py")
    assert (done.returncode, done.stdout) == (0, "wrote page.html\n"), done.stderr


def zero(u, x):
    return u(x)[0] * x[0]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run in two dimensions whose names are attacks."""
    constraint = cx.Constraint(zero, over=cx.Box([0, 0], [1, 1]), points=8, name=HOSTILE)
    problem = cx.Problem(constraint, cx.MLP(2, 1, width=4))
    solution = cx.solve(problem, steps=2, heldout=32, monitor=8)
    path = tmp_path_factory.mktemp("hostile") / "page.html"
    solution.report(path)
    return path


@pytest.mark.slow
def test_names_of_the_user_are_text_and_nothing_else(hostile):
    text = hostile.read_text()
    elements = Elements(text).found
    assert [attrs.get("type") for tag, attrs in elements if tag == "script"] == [
        "application/json",
        None,
    ]
    assert not [tag for tag, _ in elements if tag in ("img", "iframe", "link", "object", "base")]
    handlers = [name for _, attrs in elements for name in attrs if name.startswith("on")]
    assert (handlers, [attrs for _, attrs in elements if "style" in attrs]) == ([], [])
    held = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(held)["runs"][0]["gap"]["constraints"][0]["name"] == HOSTILE
    links = [attrs["href"] for _, attrs in elements if "href" in attrs]
    assert all(link.startswith("data:image/png;base64,") for link in links)


def test_policy_allows_its_own_style_and_script_only():
    policy = policy_of(page("t", "<p>b</p>", {"plots": {}}))
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy


def test_only_pages_are_overwritten(line, tmp_path):
    _, solution = line
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>")
    with pytest.raises(cx.errors.StoreError, match="not overwritten"):
        solution.report(mine)
    assert mine.read_text() == "<p>mine</p>"
    with pytest.raises(cx.errors.StoreError, match=r"must end in \.html"):
        solution.report(tmp_path / "page.pdf")


@pytest.mark.slow
def test_two_runs_show_what_differs_and_nothing_else(line, tmp_path):
    folder, solution = line
    other = cx.solve(solution.problem, steps=6, seed=4, heldout=64, monitor=16)
    other.save(tmp_path / "other")
    text = run_page([read_contents(folder), read_contents(tmp_path / "other")])
    rows = re.search(r"<tbody>(.*?)</tbody>", text)[1]
    names = re.findall(r'<tr><td class="wide">(.*?)</td>', rows)
    assert "seed" in names and "on_line: held-out RMS" in names
    assert not {"dtype", "tolerance", "parameters", "versions: jax"} & set(names)
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_folder_of_runs_is_listed_with_links_to_their_pages(line, tmp_path):
    folder, _ = line
    assert run("report", str(folder.parent), "-o", str(tmp_path / "all.html")).exit_code == 0
    links = [
        attrs["href"]
        for tag, attrs in Elements((tmp_path / "all.html").read_text()).found
        if tag == "a"
    ]
    assert links == ["all-run.html"]
    assert (tmp_path / "all-run.html").read_text() == run_page([read_contents(folder)])


@pytest.mark.slow
def test_comparison_stands_on_the_page_with_both_times_where_it_is_given(solved, tmp_path):
    solution = solved("lotka_volterra")
    solution.report(tmp_path / "page.html")
    assert "The classical solver was not run" in (tmp_path / "page.html").read_text()
    found = solution.compare()
    solution.report(tmp_path / "page.html", comparison=found)
    text = "".join(Elements((tmp_path / "page.html").read_text()).text)
    assert all(line in text for line in repr(found).splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"steps": 1}, "constrainednn solve unit_circle --set points=12 --steps 1"),
        (
            {"steps": 1, "redraw": 1, "early_stopping": True, "tolerance": 0.5},
            "constrainednn solve unit_circle --set points=12 --steps 1 --tolerance 0.5 "
            "--redraw 1 --early-stopping",
        ),
    ],
)
def test_commands_say_what_differs_from_the_defaults(solved, arguments, expected):
    assert again(solved("unit_circle", settings={"points": 12}, **arguments)) == (expected, True)


@pytest.mark.slow
def test_methods_that_no_command_can_name_are_said_in_python(solved):
    method = cx.LevenbergMarquardt(damping=2.0)
    text, command = again(solved("unit_circle", settings={"points": 12}, method=method, steps=1))
    assert not command
    assert "problem = cx.load_problem('unit_circle', points=12)" in text
    assert "damping=2.0" in text and "cx.solve(problem, method, steps=1)" in text


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    (path / "line.py").write_text(PROBLEM)
    cx.study(
        path / "line.py", vary={"width": [2, 3]}, seeds=3, steps=3, heldout=32, out=path / "st"
    )
    rows = [json.loads(text) for text in (path / "st" / "runs.jsonl").read_text().splitlines()]
    failed = {**rows[-1], "status": "error", "reason": "it <failed>", "gap": None}
    (path / "st" / "runs.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows[:-1], failed])
    )
    return path / "st"


@pytest.mark.slow
def test_page_of_a_study_lists_failures_first_and_every_run(studied, tmp_path):
    file = tmp_path / "study.html"
    assert run("report", str(studied), "-o", str(file)).exit_code == 0
    text = file.read_text()
    body = re.findall(r"<tbody>(.*?)</tbody>", text, re.DOTALL)
    runs = next(part for part in body if "it &lt;failed&gt;" in part)
    assert runs.startswith('<tr class="failed">') and runs.count("<tr") == 6
    said = "".join(Elements(text).text)
    assert "1 of 6 runs failed" in said and "2.0 * x" in said
    assert (
        "constrainednn study line.py --vary width=2,3 --set steps=3 --set heldout=32 --seeds 3"
        in said
    )
    cx.load_study(studied).report(tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == file.read_bytes()


def test_ticks_are_round_and_lie_on_the_scale():
    scale = Scale.of([np.array([0.13, 7.9])], (0.0, 100.0))
    assert [label for _, label in scale.ticks()] == ["0", "2", "4", "6", "8"]
    log = Scale.of([np.array([2e-16, 3.0])], (0.0, 100.0), log=True)
    assert [label for _, label in log.ticks()] == ["10⁻¹⁶", "10⁻¹²", "10⁻⁸", "10⁻⁴", "10⁰"]
    assert float(log.at(1e-4)) == pytest.approx(100 * 12 / 17)
    assert np.isnan(log.at(-1.0)) and Scale.of([np.full(3, np.nan)], (0.0, 1.0)) is None
    few = Scale.of([np.array([0.11, 0.9])], (0.0, 1.0), log=True)
    assert [label for _, label in few.ticks()] == ["0.1", "0.2", "0.5", "1"]


def test_images_hold_the_colours_of_their_values():
    from io import BytesIO

    from matplotlib.image import imread

    values = np.array([[0.0, 0.5], [1.0, np.nan]])
    shown = imread(BytesIO(png(values, SIZES)))
    colours = palette(SIZES, 255) / 255
    half = 1 / 255  # a channel is a whole number
    np.testing.assert_allclose(shown[0, :, :3], colours[[0, 127]], atol=half)
    np.testing.assert_allclose(shown[1, 0, :3], colours[254], atol=half)
    assert shown[..., 3].tolist() == [[1, 1], [1, 0]]
    assert zlib.crc32(png(values, SIZES)) == zlib.crc32(png(values, SIZES))


def test_highlighting_changes_no_character():
    source = 'def f(x):  # <a & b>\n    return f"{x}" + "<i>", 1.5\n\n\n'
    plain = "".join(Elements(highlighted(source)).text)
    assert plain == source
    assert '<span class="comment"># &lt;a &amp; b&gt;</span>' in highlighted(source)
    assert "".join(Elements(highlighted("no (python\n'")).text) == "no (python\n'"


class Twice(eqx.Module):
    """A model that is a function of two arrays, which no figure shows."""

    weight: jnp.ndarray

    def __call__(self, x, y):
        return self.weight * x + y


def of_both(u, point):
    return u(point[0], point[1])


@pytest.mark.slow
def test_models_that_no_figure_shows_have_a_page_of_numbers(tmp_path):
    rows = (np.linspace(0, 1, 20), np.zeros(20))
    problem = cx.Problem(cx.Constraint(of_both, over=cx.Data(rows)), Twice(jnp.ones(())))
    cx.solve(problem, steps=1).report(tmp_path / "page.html")
    text = "".join(Elements((tmp_path / "page.html").read_text()).text)
    assert "Gap between training and fresh points" in text and "of_both" in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.skipif(find_spec("axe_core_python") is None, reason="axe-core is not installed")
@pytest.mark.slow
def test_browser_shows_sorts_and_saves_without_a_request_or_complaint(
    line, hostile, studied, tmp_path
):
    axe = (resources.files("axe_core_python") / "axe.min.js").read_text()
    _, solution = line
    solution.report(tmp_path / "line.html")
    cx.load_study(studied).report(tmp_path / "study.html")
    with browser() as page:
        for path in (tmp_path / "line.html", hostile, tmp_path / "study.html"):
            for width in (390, 1400):
                page.open(path, width=width, dark=width == 390)
                assert page.eval("document.documentElement.scrollWidth <= innerWidth"), path
                assert page.complaints() == []
                assert page.barriers(axe) == [], path
                sent = [url for url in page.requests() if not url.startswith("data:")]
                assert sent == [f"file://{path}"]
        # The study: seconds in order after a click, and in the other order after another.
        seeds = "[...document.querySelectorAll('.tall tbody tr')].map(r => r.cells[1].textContent)"
        button = "[...document.querySelectorAll('.tall th button')][1]"
        page.eval(f"{button}.click()")
        assert page.eval(seeds) == ["0", "0", "1", "1", "2", "2"]
        page.eval(f"{button}.focus()")
        page.key("Enter")
        assert page.eval(seeds) == ["2", "2", "1", "1", "0", "0"]
        assert page.eval(f"{button}.closest('th').getAttribute('aria-sort')") == "descending"
        # The line: what the arrow keys read off is what the solution is.
        page.open(tmp_path / "line.html")
        page.eval("document.querySelector('figure[data-plot]').focus()")
        page.key("ArrowRight")
        read = page.eval("document.querySelector('figure[data-plot] .read').textContent")
        x, u = map(float, re.match(r"x = ([\d.e-]+): u ([\d.e-]+), ", read).groups())
        assert float(solution(x)) == pytest.approx(u, abs=1e-4)
        page.eval(
            "window.saved = ''; URL.createObjectURL = b => { b.text().then(t => { saved = t; });"
            " return '#'; }; document.querySelector('[data-download]').click()"
        )
        page.eval("new Promise(done => setTimeout(done, 50))")
        assert json.loads(page.eval("saved"))["runs"][0]["steps"] == solution.steps
        assert page.complaints() == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.slow
def test_part_of_a_history_is_enlarged_and_read_off(line, tmp_path):
    _, solution = line
    solution.report(tmp_path / "line.html")
    with browser() as page:
        page.open(tmp_path / "line.html", height=4000)
        page.eval(
            "window.loss = [...document.querySelectorAll('figure[data-plot]')]"
            ".find(part => part.querySelector('h3').textContent === 'Loss')"
        )
        whole = page.eval("loss.querySelector('.marks').getAttribute('viewBox')")
        left, top, wide, high = map(float, whole.split())
        box = page.eval(
            "(b => [b.x, b.y, b.width])(loss.querySelector('svg').getBoundingClientRect())"
        )
        unit = box[2] / 420  # pixels of one unit of the drawing

        def at(share):
            return box[0] + unit * (left + share * wide), box[1] + unit * (top + high / 2)

        page.drag(at(0.5), at(0.9))
        shown = page.eval("loss.querySelector('.marks').getAttribute('viewBox')").split()
        assert float(shown[0]) == pytest.approx(left + 0.5 * wide, abs=1.5)
        assert float(shown[2]) == pytest.approx(0.4 * wide, abs=1.5)
        assert float(shown[3]) < high  # the heights are those of what is seen
        # What is read under the pointer is the loss at the step that is drawn there, on a log axis.
        page.move(*at(0.5))
        step = 7 ** (0.7)  # the middle of 0.5 to 0.9 of the way from step + 1 = 1 to 7
        read = page.eval("loss.querySelector('.read').textContent")
        near, train = map(
            float, re.match(r"step \+ 1 = ([\d.e-]+): train ([\d.e-]+)", read).groups()
        )
        assert near == round(step)
        assert train == pytest.approx(solution.history.loss[round(near) - 1], rel=1e-4)
        labels = page.eval(
            "[...loss.querySelectorAll('svg > g .tick')].map(t => Number(t.textContent))"
        )
        assert labels and all(np.isfinite(labels))
        page.eval("loss.focus()")
        page.key("Escape")
        assert page.eval("loss.querySelector('.marks').getAttribute('viewBox')") == whole
        assert page.eval("loss.querySelectorAll('svg > g .tick').length") == 0
        assert page.complaints() == []
        assert "Drag over a curve" in page.eval("document.querySelector('footer').textContent")


@pytest.mark.slow
def test_show_prints_the_table_of_a_study(studied):
    shown = run("show", str(studied))
    assert shown.exit_code == 0
    assert shown.stdout.rstrip() == cx.load_study(studied).shown(None)


def test_problems_shows_the_source_of_one_and_near_names_of_none():
    from constrainednn._common.paths import gallery

    source = gallery()["lotka_volterra"].read_text()
    shown = run("problems", "lotka_volterra").stdout
    assert shown.endswith(source)
    settings = shown.removesuffix(source)
    assert all(line.startswith("# ") for line in settings.splitlines())  # it stays a problem file
    assert "prey=2.5, predators=1.25, birth=1.5" in settings and "end=6.0" in settings
    missed = run("problems", "lotka_voltera")
    assert missed.exit_code == 2 and "lotka_volterra" in missed.stderr
