"""The memory that a training needs, computed before it starts."""

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
    """Refuse a training that does not fit into memory, before it starts.

    Args:
        device: the device of the weights.
        workers: the number of processes that train together.

    Raises:
        UsageError: with the memory that is needed, and the memory of the device.
    """
    design = build.Design.of(config, data)
    tensors, numbers = build.network_size(design)
    if tensors > build.MOST_TENSORS:
        raise UsageError(
            f"network: {tensors:,} tensors, where at most {build.MOST_TENSORS:,} are allowed: use "
            "fewer blocks."
        )
    # besides the weights: gradients, the optimizer's two moments, and the averages, of the last and
    # of the best step. Workers that divide them have one GPU each, but share the machine's memory
    extra = 3 + len(config.optim.ema) * (2 if config.end in ("early", "best") else 1)
    if device.type == "cuda":
        there, copies = torch.cuda.mem_get_info(device)[1], 1 + extra / workers
    else:
        there, copies = sizes.memory(), 1 + extra
    weights = 4 * copies * numbers
    if weights > there:
        raise UsageError(
            f"network: weights, gradients, averages and moments take {sizes.words(weights)}, and "
            f"there are {sizes.words(there)} of memory: make it smaller, or use fewer averages."
        )
    there = sizes.memory()  # of the machine, where batches are assembled
    batch = 4 * config.optim.batch_size * math.prod(design.shape)
    if batch > there:
        raise UsageError(
            f"optim.batch_size={config.optim.batch_size}: samples of shape {design.shape} take "
            f"{sizes.words(batch)}, and there are {sizes.words(there)} of memory: use fewer."
        )
