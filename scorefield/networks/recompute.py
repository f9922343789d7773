"""Blocks that are recomputed in the backward pass, to save memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def through(block: nn.Module, *inputs: Tensor, recompute: bool) -> Tensor:
    """Return a block's output; ``recompute`` stores only its inputs for the backward pass.

    Reference: Chen et al. (2016), arXiv:1604.06174.
    """
    if recompute and torch.is_grad_enabled():
        out: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
    else:
        out = block(*inputs)
    return out
