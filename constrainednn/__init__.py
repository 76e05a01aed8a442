"""Learn functions from constraints and report an honest generalization gap.

    import constrainednn as cx

The public names are listed in `__init__.pyi` and imported when first used, so that importing the
package, as the command line does for `--help`, does not import jax.
"""

import ast
from pathlib import Path

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
    """How each public name is written behind `cx.`, read off the files: nothing is imported."""
    found, here = {name: name for name in __all__}, Path(__file__).parent
    for package in __all__:
        files = (
            here / package / "__init__.pyi",
            here / package / "__init__.py",
            here / f"{package}.py",
        )
        for file in [file for file in files if file.exists()][:1]:
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                    inside = ast.literal_eval(node.value)
                    found |= {name: f"{package}.{name}" for name in inside if name not in found}
    return found


__version__ = "0.1.0"
