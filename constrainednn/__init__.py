"""Learn functions from constraints and report an honest generalization gap.

    import constrainednn as cx

The public names are listed in `__init__.pyi` and imported when first used, so that importing the
package, as the command line does for `--help`, does not import jax.
"""

import types

import lazy_loader

from constrainednn._common.messages import known_names

_import, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name not in __all__ and not name.startswith("_"):
        full = _written()
        raise AttributeError(
            f"constrainednn has no {name!r}. {known_names(name, full, full.__getitem__)}"
        )
    return _import(name)


def _written() -> dict[str, str]:
    """How each public name is written behind `cx.`: those of the packages with their package."""
    found = {name: name for name in __all__}
    for package in map(_import, __all__):
        if isinstance(package, types.ModuleType):
            prefix = package.__name__.removeprefix("constrainednn.")
            found |= {name: f"{prefix}.{name}" for name in package.__all__ if name not in found}
    return found


__version__ = "0.1.0"
