"""Learn functions from constraints and report an honest generalization gap.

    import constrainednn as cx

The public names are listed in `__init__.pyi` and imported when first used, so that importing the
package, as the command line does for `--help`, does not import jax.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
