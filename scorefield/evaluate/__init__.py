"""Measures of samples, of networks and of solvers."""

import lazy_loader

# metrics, check and certify are loaded when they are first used
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
