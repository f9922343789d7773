"""Diffusion models in continuous time: learn one score field, choose the integrator afterwards."""

import lazy_loader

__version__ = "0.1.0"

# The names are listed in __init__.pyi, once, for type checkers and for this. Loading them on first
# use lets a command line print its help without importing torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
