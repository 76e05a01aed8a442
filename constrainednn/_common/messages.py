"""Parts of messages: values on one line, names that were meant, the user's lines in a traceback."""

import difflib
import reprlib
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from constrainednn._common.paths import PACKAGE, in_gallery
from constrainednn.errors import BadTypeError

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
NOT_TRACED = (
    "solve runs Python between its steps and cannot be traced: call it outside of jit, vmap and "
    "grad, and so what states its problem. For the derivative of a solution by a parameter state "
    "one equation for both, as in docs/ode.md, or take a difference quotient. What can be traced "
    "are init and step of a method, and a solution."
)


def shown(value: Any) -> str:
    """`value` for a message: on one line, of a few hundred characters at most, whatever it is."""
    if getattr(value, "shape", ()) != () and hasattr(value, "dtype"):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    short = reprlib.Repr()
    short.maxstring, short.maxother, short.maxlong = 100, 200, 60
    short.maxtuple = short.maxlist = short.maxdict = 6
    try:
        text = short.repr(value)
    except ValueError:  # Python does not print whole numbers of thousands of digits
        text = f"{type(value).__name__} with thousands of digits"
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def counted(number: int, thing: str) -> str:
    """A number of things, such as "1 condition" and "2 conditions"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def refuse_traced(value: Any, what: str) -> None:
    """Refuse what `jax.grad`, `jit` or `vmap` trace, with the words that say what to do instead.

    Raises:
        TypeError: If a leaf of `value` is traced.
    """
    import jax  # not above: the command line shows its help without
    from jax.core import Tracer

    try:
        leaves = jax.tree.leaves(value)
    except (TypeError, ValueError):  # a dictionary whose keys have no order, say
        return
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        raise BadTypeError(f"{what} is traced by jit, vmap or grad. {NOT_TRACED}")


def in_plain_words(error: BaseException) -> str:
    """What an exception says on one line; of one about traced arrays, what to write instead."""
    import jax  # not above: the command line shows its help without

    if isinstance(error, (jax.errors.JAXTypeError, jax.errors.JAXIndexError)):
        return (
            f"NumPy, math or Python asks for the value of a traced array{users_line(error)}. Write "
            "jnp.sin and so on, jnp.where(condition, a, b) instead of if, and leave out float()"
        )
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def known_names(name: str, known: Iterable[str], write: Callable[[str], str] = str) -> str:
    """A sentence with the names that would have been right, the nearest first.

    Args:
        name: What was written.
        known: What could have been.
        write: How a name is written in full.
    """
    listed = list(known)
    if not listed:
        return "There are none."
    near = difflib.get_close_matches(name, listed, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(write, near))}? " if near else ""
    order = near + [item for item in listed if item not in near]
    return f"{hint}Known: {', '.join(map(write, order))}."


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of a traceback that are the user's own, neither ours nor a library's."""
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if in_gallery(frame.filename)  # like a user's files, although inside the package in a wheel
        or not frame.filename.startswith((f"{PACKAGE}/", *_LIBRARIES, "<"))
    ]


def users_line(error: BaseException) -> str:
    frames = user_frames(error)
    return f" ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""


def user_traceback(error: BaseException) -> str:
    """The traceback with only the user's frames; empty if there are none."""
    lines = traceback.format_list(user_frames(error))
    return "".join(["Traceback (your files only):\n", *lines]).rstrip() if lines else ""
