"""Writing a page."""

from pathlib import Path

from constrainednn._pages.html import MARK
from constrainednn._storage.files import read_limited, refusal, write_atomically
from constrainednn.errors import StoreError

# A page is read to see whether it is one of ours.
_MOST_BYTES = 1 << 26


def write_own_page(path: Path, content: str) -> None:
    """Write a page to a new file, or over an earlier page.

    Raises:
        StoreError: If another file is there, or it cannot be written.
    """
    if path.suffix not in (".html", ".htm"):
        raise StoreError(f"{path} must end in .html, or a browser would not show it.")
    if path.exists() and not read_limited(path, _MOST_BYTES).startswith(MARK.encode()):
        raise StoreError(f"{path} is no page of this package and is not overwritten: give another.")
    try:
        write_atomically(path, content.encode())
    except OSError as error:
        raise refusal(path, error) from None
