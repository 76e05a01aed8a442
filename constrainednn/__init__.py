"""Learn functions from constraints and report an honest generalization gap.

    import constrainednn as cx

The public names are listed in `__init__.pyi` and imported when first used, so that importing the
package, as the command line does for `--help`, does not import jax.
"""

import lazy_loader

from constrainednn._common.messages import known_names

_import, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name not in __all__ and not name.startswith("_"):
        raise AttributeError(f"constrainednn has no {name!r}. {known_names(name, __all__)}")
    return _import(name)


__version__ = "0.1.0"
