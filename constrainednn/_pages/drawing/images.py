"""Fields of numbers as small images."""

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# Colours of sizes: cividis (Nunez, Anderton and Renslow, 2018), which is the same to all eyes.
SIZES = (
    *("00224e", "123570", "3b496c", "575d6d", "707173"),
    *("8a8678", "a59c74", "c3b369", "e1cc55", "fee838"),
)
# Colours of signed values: RdBu of ColorBrewer, blue for negative ones.
SIGNED = (
    *("053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7"),
    *("fddbc7", "f4a582", "d6604d", "b2182b", "67001f"),
)


def as_uri(shade: Float[np.ndarray, "rows columns"], colours: Sequence[str]) -> str:
    """An image as text that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(png(shade, colours)).decode()


def palette(colours: Sequence[str], count: int) -> Float[np.ndarray, "count 3"]:
    """Colours between the given ones, from 0 to 255."""
    known = np.array([[int(item[k : k + 2], 16) for k in (0, 2, 4)] for item in colours], float)
    places = np.linspace(0, len(colours) - 1, count)
    return np.stack(
        [np.interp(places, np.arange(len(colours)), channel) for channel in known.T], axis=1
    )


def png(shade: Float[np.ndarray, "rows columns"], colours: Sequence[str]) -> bytes:
    """An image in PNG of values between 0 and 1, transparent where one is NaN.

    Source:
        ISO/IEC 15948:2004, with a palette of 256 colours, the last of them transparent.
    """
    rows, columns = shade.shape
    levels = np.rint(np.clip(np.nan_to_num(shade), 0, 1) * 254).astype(np.uint8)
    levels[np.isnan(shade)] = 255
    raw = b"".join(b"\0" + row.tobytes() for row in levels)  # no filter in any row
    table = np.rint(np.concatenate([palette(colours, 255), np.zeros((1, 3))])).astype(np.uint8)
    chunks = [
        (b"IHDR", struct.pack(">2I5B", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", table.tobytes()),
        (b"tRNS", b"\xff" * 255 + b"\0"),
        (b"IDAT", zlib.compress(raw, 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
