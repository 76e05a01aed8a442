"""The gallery travels: the command line finds it from a wheel, an sdist and an editable install."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
GALLERY = sorted(path.stem for path in (ROOT / "problems").glob("*.py"))


def run(*command, folder):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source, kind, target):
    """Build the wheel or sdist of `source` with the hatchling at hand; give the one file made."""
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target, folder=source)
    [made] = target.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture
def install(tmp_path):
    """Install into an environment of its own, which borrows the dependencies of this one."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this environment has no pip to install with")
    scratch = tmp_path / "environment"
    venv.create(scratch, symlinks=True)
    paths = sysconfig.get_paths(vars={"base": str(scratch), "platbase": str(scratch)})
    site = Path(paths["purelib"])
    # A .pth file adds a folder without reading the .pth files in it, so that an editable install
    # of the package in this environment is not seen in that one.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)))

    def into(*what):
        python = scratch / "bin" / "python"
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--ignore-installed")
        run(*pip, "-q", "--no-deps", "--no-index", "--no-build-isolation", *what, folder=tmp_path)
        where = run(
            python, "-c", "import constrainednn; print(constrainednn.__file__)", folder=tmp_path
        )
        return scratch / "bin" / "constrainednn", Path(where.strip()), site

    return into


def check_gallery(command, folder):
    listed = [line.split()[0] for line in run(command, "problems", folder=folder).splitlines()]
    assert listed == GALLERY
    run(command, "new", "mine.py", "--from", GALLERY[0], folder=folder)
    assert (folder / "mine.py").read_text() == (ROOT / f"problems/{GALLERY[0]}.py").read_text()


def test_gallery_from_a_wheel(wheel, install, tmp_path):
    command, where, site = install(wheel)
    assert where.is_relative_to(site)
    assert not (site / "problems").exists()
    check_gallery(command, tmp_path)


def test_gallery_from_the_sdist(sdist, install, tmp_path):
    command, where, site = install(sdist)
    assert where.is_relative_to(site)
    assert not (site / "problems").exists()
    check_gallery(command, tmp_path)


def test_gallery_from_an_editable_install(install, tmp_path):
    command, where, _ = install("-e", ROOT)
    assert where == ROOT / "constrainednn" / "__init__.py"
    check_gallery(command, tmp_path)


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    package = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "*.pyi", "py.typed", "*.css", "*.js")
        for path in (ROOT / "constrainednn").rglob(pattern)
    }
    gallery = {f"constrainednn/problems/{name}.py" for name in GALLERY}
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert set(names) - metadata == package | gallery
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_sdist_holds_what_builds_tests_and_explains_the_package(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ["pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "docs/conf.py"]
    wanted += ["CITATION.cff", "SECURITY.md", "tests/golden/README.md"]
    for pattern in ("constrainednn/**/*.py", "problems/*.py", "tests/*.py", "docs/*.md"):
        found = [path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)]
        assert found, pattern
        wanted += found
    assert set(wanted) <= names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith(".venv")]
