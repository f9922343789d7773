"""What a training takes of memory, before any is taken."""

from __future__ import annotations

import math

import torch

from scorefield._internal import sizes
from scorefield._internal.errors import UsageError
from scorefield.data.config import DataConfig
from scorefield.runs import build
from scorefield.training.config import TrainConfig


def check_memory(
    config: TrainConfig, data: DataConfig, device: torch.device, workers: int = 1
) -> None:
    """Refuse a training that cannot fit into memory, before any is taken.

    Args:
        device: whose memory the weights take: the machine's, or a GPU's.
        workers: how many train together.

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
    # beside the weights: gradients, the optimizer's two moments, and the averages. Processes that
    # divide them have a GPU each, and one machine's memory together
    beside = 3 + len(config.optim.ema)
    if device.type == "cuda":
        there, copies = torch.cuda.mem_get_info(device)[1], 1 + beside / workers
    else:
        there, copies = sizes.memory(), 1 + beside
    weights = 4 * copies * numbers
    if weights > there:
        raise UsageError(
            f"network: weights, gradients, averages and moments take {sizes.words(weights)}, and "
            f"there are {sizes.words(there)} of memory: make it smaller, or take fewer averages."
        )
    there = sizes.memory()  # where batches are put together
    batch = 4 * config.optim.batch_size * math.prod(shape)
    if batch > there:
        raise UsageError(
            f"optim.batch_size={config.optim.batch_size}: samples of shape {shape} take "
            f"{sizes.words(batch)}, and there are {sizes.words(there)} of memory: take fewer."
        )
