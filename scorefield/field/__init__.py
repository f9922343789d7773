"""Score fields: learned, exact, and guided."""

import lazy_loader

# names load on first use: a command needs few of them
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
