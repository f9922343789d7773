"""What a training takes of memory, before any is taken."""

from __future__ import annotations

import math

from scorefield import sizes
from scorefield.config import DataConfig, TrainConfig
from scorefield.errors import UsageError
from scorefield.training import build

_COPIES = 5  # of the weights: themselves, gradients, average and the optimizer's two moments


def check_memory(config: TrainConfig, data: DataConfig) -> None:
    """Refuse a training that cannot fit into memory, before any is taken.

    Raises:
        UsageError: with what it would take, and what there is.
    """
    shape = build.field_shape(config, data)
    tensors, numbers = build.network_size(config.network, shape, data.classes)
    if tensors > build.MOST_TENSORS:
        raise UsageError(
            f"network: {tensors:,} tensors, where {build.MOST_TENSORS:,} are the most: take fewer "
            "blocks."
        )
    there = sizes.memory()
    weights = _COPIES * 4 * numbers
    if weights > there:
        raise UsageError(
            f"network: weights, gradients, average and moments take {sizes.words(weights)}, and "
            f"there are {sizes.words(there)} of memory: make it smaller."
        )
    batch = 4 * config.optim.batch * math.prod(shape)
    if batch > there:
        raise UsageError(
            f"optim.batch: {config.optim.batch} samples of shape {shape} take "
            f"{sizes.words(batch)}, and there are {sizes.words(there)} of memory: take fewer."
        )
