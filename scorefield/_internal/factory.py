"""Objects of the user's own modules, named as ``package.module:attribute``."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from scorefield._internal.errors import UsageError


def import_object(name: str, argument: str) -> Any:
    """Import an object; modules in the working directory are found too, as by `python -m`.

    ``argument`` is the name for messages.

    Raises:
        UsageError: another form; the module or the attribute is missing, or the module raised.
    """
    path, _, attribute = name.partition(":")
    if not (path and attribute):
        raise UsageError(f"{argument}={name}: give package.module:name.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(path)
    except Exception as error:  # anything that the user's module raises
        raise UsageError(
            f"{argument}={name}: {path} cannot be imported: {type(error).__name__}: {error}"
        ) from None
    if not hasattr(module, attribute):
        raise UsageError(f"{argument}={name}: module {path} has no attribute {attribute}.")
    return getattr(module, attribute)


def make_network(name: str) -> Any:
    """Import a factory, call it without arguments, and return its network or denoiser.

    Raises:
        UsageError: as `import_object`; not a function, a function that raises, or another result.
    """
    from torch.nn import Module

    factory = import_object(name, "network")
    if not callable(factory):
        raise UsageError(
            f"network={name}: its type is {type(factory).__name__}, which is not callable."
        )
    try:
        network = factory()
    except Exception as error:  # anything that the user's function raises
        raise UsageError(
            f"network={name}: the factory raised {type(error).__name__}: {error}"
        ) from None
    if not isinstance(network, Module):
        raise UsageError(
            f"network={name}: the factory returned a {type(network).__name__}: return a "
            "torch.nn.Module or a Denoiser."
        )
    return network
