"""Where the package and its gallery lie; needs nothing but the file system."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# In the wheel the problems lie inside the package, in an editable install beside it.
_GALLERIES = (PACKAGE / "problems", PACKAGE.parent / "problems")


def gallery() -> dict[str, Path]:
    """The problems that come with the package: name to file."""
    for folder in filter(Path.is_dir, _GALLERIES):
        return {
            path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")
        }
    return {}


def in_gallery(file: str | Path) -> bool:
    """True for a file of the gallery, wherever that lies."""
    return any(Path(file).is_relative_to(folder) for folder in _GALLERIES)
