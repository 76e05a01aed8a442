"""Arrays and facts in one file that can come from anybody: an uncompressed .npz with a manifest.

The member `manifest.json` holds a format number, plain facts, and the name, type and shape of each
array in order, with a SHA-256 over all of it; the i-th array is the member `i.npy`. There is no
pickle in it, and nothing of it names a file or a function.
"""

import hashlib
import io
import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from constrainednn._storage.files import parse_json, read_limited
from constrainednn.errors import BadValueError, StoreError, UnreadableError

FORMAT = 2
# Sizes are checked before anything is allocated: a file may come from somebody else.
MAX_BYTES = (1 << 31) - 1  # from there on zip archives need extensions
_MAX_JSON = 1 << 23
_MOST_MEMBERS = 60_000  # as above
_MOST_AXES = 32
_MANIFEST = "manifest.json"
_END = struct.Struct("<4s4H2LH")  # end of the central directory of a zip archive
_LOCAL, _CENTRAL = 30, 46  # sizes of the two headers of a member, without its name

_PLAIN = ("bool", "float16", "float32", "float64", "complex64", "complex128")
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_EXTENSIONS = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4")
_DTYPES = {name: np.dtype(name) for name in _PLAIN + _INTEGERS} | {
    name: np.dtype(getattr(ml_dtypes, name)) for name in _EXTENSIONS
}


def pack_arrays(arrays: dict[str, np.ndarray], facts: dict[str, Any] | None = None) -> bytes:
    """Pack arrays and plain facts into the bytes of one file.

    Raises:
        StoreError: If they are too large for one file, or of a type that no file can hold.
    """
    if len(arrays) > _MOST_MEMBERS:
        raise StoreError(
            f"{len(arrays)} arrays are too many for one file, {_MOST_MEMBERS} at most."
        )
    members, contents = [], []
    for name, array in arrays.items():
        if _DTYPES.get(str(array.dtype)) != array.dtype:
            raise StoreError(f"{name} is of type {array.dtype}, which cannot be saved.")
        members.append({"name": name, "dtype": str(array.dtype), "shape": list(array.shape)})
        contents.append(_npy(array))
    manifest = {"format": FORMAT, "facts": facts or {}, "members": members}
    manifest["sha256"] = _digest(manifest, contents)
    text = json.dumps(manifest, allow_nan=False).encode()
    if len(text) > _MAX_JSON or sum(map(len, contents)) > MAX_BYTES - 2 * _MAX_JSON:
        raise StoreError(f"a model of {len(arrays)} arrays is too large for one file of 2 GB.")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        named = [(_MANIFEST, text), *((f"{i}.npy", item) for i, item in enumerate(contents))]
        for name, content in named:
            # No time of day inside: the same numbers give the same bytes.
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays and facts that `pack_arrays` packed, refusing anything else.

    Raises:
        StoreError: If the file is missing, damaged, too large or holds anything unexpected.
    """
    manifest, contents = _members(path)
    try:
        arrays = {
            member["name"]: _array(member, content)
            for member, content in zip(manifest["members"], contents, strict=True)
        }
        facts = manifest.get("facts", {})
        expected = manifest["sha256"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} is damaged or no file of this package: {error}") from None
    if len(arrays) < len(contents) or not isinstance(facts, dict):
        raise StoreError(f"{path} is damaged: a name is repeated.")
    if _digest(manifest, contents) != expected:
        raise StoreError(f"{path} is damaged: its checksum does not match.")
    return arrays, facts


def _digest(manifest: dict[str, Any], contents: list[bytes]) -> str:
    digest = hashlib.sha256(_json_digest(manifest).encode())
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _npy(array: np.ndarray) -> bytes:
    # Extension types such as bfloat16 come back as raw bytes: the manifest has their name.
    raw = array.reshape(-1).view(np.uint8) if str(array.dtype) in _EXTENSIONS else array
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(raw, order="C"), allow_pickle=False)
    return buffer.getvalue()


def _array(member: dict[str, Any], content: bytes) -> np.ndarray:
    """Check a member against the manifest before any memory is taken for it."""
    name, shape = member["name"], member["shape"]
    dtype = _DTYPES.get(member["dtype"])
    if dtype is None:
        raise BadValueError(f"{name!r:.200} is of an unknown type")
    proper = isinstance(name, str) and isinstance(shape, list) and len(shape) <= _MOST_AXES
    if not proper or not all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape):
        raise BadValueError(f"{name!r:.200} has no proper name or shape")
    size = dtype.itemsize * math.prod(shape)
    stored = (np.dtype(np.uint8), (size,)) if dtype.name in _EXTENSIONS else (dtype, tuple(shape))
    # The header is compared with what it must be and never parsed: parsers of Python literals
    # have errors of many kinds.
    orders: tuple[Literal["C", "F"], ...] = ("C", "F")
    for order in orders:
        header = _header(*stored, order)
        if content.startswith(header) and len(content) == len(header) + size:
            return np.frombuffer(content, dtype, offset=len(header)).reshape(shape, order=order)
    raise BadValueError(f"{name!r:.200} has another type or size than stated")


def _header(dtype: np.dtype, shape: tuple[int, ...], order: str) -> bytes:
    buffer = io.BytesIO()
    described: Any = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": order == "F",
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def _members(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """The manifest and the contents of all members of an archive without anything else in it."""
    content = read_limited(path, MAX_BYTES)
    what = f"{path} is damaged or no file of this package"
    # Before a zip library sees it: nothing after the end, no more entries than bytes allow.
    if len(content) < _END.size:
        raise StoreError(f"{what}: it is cut.")
    mark, *disks, entries, size, start, comment = _END.unpack(content[-_END.size :])
    if mark != b"PK\5\6" or comment or disks != [0, 0, entries]:
        raise StoreError(f"{what}: it does not end as an archive.")
    if start + size + _END.size != len(content) or not size <= 80 * entries:
        raise StoreError(f"{what}: its directory has the wrong size.")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if names != [_MANIFEST, *(f"{i}.npy" for i in range(len(infos) - 1))]:
                raise StoreError(f"{path} holds unexpected members.")
            place = 0
            for info in infos:
                # Each begins where the one before ends, and is stored as it is.
                if info.header_offset != place or info.compress_type or info.flag_bits:
                    raise StoreError(f"{path} was not written by this package.")
                if info.compress_size != info.file_size or info.extra or info.comment:
                    raise StoreError(f"{path} was not written by this package.")
                place += _LOCAL + len(info.filename) + info.file_size
            if place != start or size != sum(_CENTRAL + len(name) for name in names):
                raise StoreError(f"{path} holds bytes that belong to no member.")
            if infos[0].file_size > _MAX_JSON:
                raise StoreError(f"{path}: its manifest is too large.")
            manifest = parse_json(archive.read(_MANIFEST), f"{path}: its manifest")
            check_format(manifest, path)
            if not isinstance(manifest.get("members"), list):
                raise StoreError(f"{what}: its manifest lists no members.")
            if len(manifest["members"]) != len(infos) - 1:
                raise StoreError(f"{path} holds unexpected members.")
            return manifest, [archive.read(info) for info in infos[1:]]
    # RuntimeError and NotImplementedError: zipfile takes damage for encryption or a new version.
    except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, OSError, struct.error) as error:
        raise StoreError(f"{what}: {error}") from None


def seal(content: dict[str, Any]) -> bytes:
    """A JSON file with the SHA-256 of what it says."""
    content = {"format": FORMAT, **content}
    content["sha256"] = _json_digest(content)
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def unseal(path: Path) -> dict[str, Any]:
    """Read what `seal` wrote.

    Raises:
        StoreError: If it is missing, damaged, or of a newer version.
    """
    content = parse_json(read_limited(path, _MAX_JSON), str(path))
    check_format(content, path)
    if content.get("sha256") != _json_digest(content):
        raise StoreError(f"{path} is damaged: its checksum does not match.")
    return content


def _json_digest(content: dict[str, Any]) -> str:
    stated = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def check_format(content: Any, path: Path) -> None:
    """Refuse what is no JSON object, and what a newer version wrote.

    Raises:
        StoreError: Saying which version reads it.
    """
    if not isinstance(content, dict):
        raise StoreError(f"{path} is damaged: it holds no JSON object.")
    found = content.get("format")
    if type(found) is not int or found < FORMAT:
        raise StoreError(f"{path} is damaged: its format is {found!r:.50}.")
    if found > FORMAT:
        raise UnreadableError(
            f"{path} was written in format {found}; this version of constrainednn reads format "
            f"{FORMAT}. Install a newer one."
        )
