"""The state of a fit as named tensors: weights, averages, the optimizer's moments, the scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from scorefield.training.workers import Workers


class Average(nn.Module):
    """A network with averaged weights, and the number of those in it."""

    n_averaged: Tensor

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("n_averaged", torch.tensor(0))


def state(
    network: nn.Module, averages: Sequence[Average], optimizer: Optimizer, scaler: GradScaler
) -> dict[str, Tensor]:
    """Return the tensors by their names."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for k, average in enumerate(averages):
        tensors |= {f"average.{k}.{name}": v for name, v in average.state_dict().items()}
    for k, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{k}.{name}": value for name, value in moments.items()}
    scale = {name: torch.tensor(value) for name, value in scaler.state_dict().items()}
    return tensors | {f"scaler.{name}": value for name, value in scale.items()}


def restore(
    tensors: Mapping[str, Tensor],
    network: nn.Module,
    averages: Sequence[Average],
    optimizer: Optimizer,
    scaler: GradScaler,
    workers: Workers,
) -> None:
    """Restore a `state` of whole tensors, saved by any number of workers.

    Raises:
        KeyError, RuntimeError: the tensors are not those of such a state.
    """
    modules = {"network": network} | {f"average.{k}": a for k, a in enumerate(averages)}
    for prefix, module in modules.items():
        likes = module.state_dict()
        own = under(prefix, tensors)
        shared = {k: workers.share(v, likes[k]) for k, v in own.items() if k in likes}
        module.load_state_dict({**own, **shared})
    parameters, moments = list(network.parameters()), dict[int, dict[str, Tensor]]()
    for key, value in under("optimizer", tensors).items():
        number, name = key.split(".")
        like = parameters[int(number)]
        shared_value = workers.share(value, like) if value.shape == like.shape else value
        moments.setdefault(int(number), {})[name] = shared_value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    if scaler.is_enabled():
        scaler.load_state_dict({k: v.item() for k, v in under("scaler", tensors).items()})


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix and a dot, without it."""
    start = len(prefix) + 1
    return {k[start:]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
