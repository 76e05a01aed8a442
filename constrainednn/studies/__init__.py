"""Studies: a grid of settings times seeds."""

# Lazily: a worker, which starts from here, sets its number of threads before jax is imported.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
