"""Where the gallery is; needs nothing but the file system."""

from pathlib import Path


def gallery() -> dict[str, Path]:
    """The problems that come with the package: name to file."""
    here = Path(__file__).resolve().parent
    # In the wheel they lie inside the package, in an editable install beside it.
    for folder in (here / "problems", here.parent / "problems"):
        if folder.is_dir():
            return {
                path.stem: path
                for path in sorted(folder.glob("*.py"))
                if not path.stem.startswith("_")
            }
    return {}
