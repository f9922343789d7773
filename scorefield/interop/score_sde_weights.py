"""The names of weights in score_sde's NCSN++, whose parts are numbered in order.

Reference: Song et al. (2021), arXiv:2011.13456, and the state dicts of the released checkpoints.
"""

from __future__ import annotations

from itertools import count

import torch
from torch import Tensor

from scorefield.interop.conversion import Names, Origin, Table, layers, of_trunk
from scorefield.networks import SongUNet

# an entry of a state dict without a counterpart: the noise levels, as in the configuration
IDLE = r"sigmas"
FIXED = (IDLE, "all_modules.0.W")  # entries of a state dict that are not parameters

_BLOCK = {
    "norm1": "GroupNorm_0",
    "conv1": "Conv_0",
    "modulation": "Dense_0",
    "norm2": "GroupNorm_1",
    "conv2": "Conv_1",
    "skip": "Conv_2",
}


def song(network: SongUNet, encoder: str, unit: float, zero: float) -> Table:
    """Return the origins of the weights of a network that score_sde calls ncsnpp.

    Args:
        network: ours, with the shapes of the configuration.
        encoder: of its configuration.
        unit, zero: the logarithm of score_sde's label is ``unit label + zero``, for Fourier
            features.
    """
    numbers = (f"all_modules.{k}" for k in count())
    table: Table = {}
    if "noise.frequencies" in network.embedding.state_dict():
        theirs = (f"{next(numbers)}.W",)
        table["embedding.noise.frequencies"] = Origin(theirs, lambda f: unit * f)
        table["embedding.noise.phases"] = Origin(theirs, lambda f: zero * f)
    table |= layers((f"embedding.mix.{k}", next(numbers)) for k in (0, 2))
    names = Names(
        part=lambda part: next(numbers),
        leave=lambda part: (next(numbers), next(numbers)),
        block=_BLOCK,
        attention=lambda ours, theirs, heads: _attention(ours, next(numbers)),
        side=".Conv_0" if encoder == "skip" else ".Conv2d_0",
    )
    return table | of_trunk(network.trunk, names)


def _attention(ours: str, theirs: str) -> Table:
    """Return the table of the attention after a block, which is a separate part in score_sde."""
    table = layers([(f"{ours}.norm", f"{theirs}.GroupNorm_0")])
    for layer, places in (("enter", (0, 1, 2)), ("leave", (3,))):
        weights, biases = (tuple(f"{theirs}.NIN_{k}.{x}" for k in places) for x in "Wb")
        table[f"{ours}.{layer}.weight"] = Origin(weights, _convolution)
        table[f"{ours}.{layer}.bias"] = Origin(biases, lambda *b: torch.cat(b))
    return table


def _convolution(*weights: Tensor) -> Tensor:
    """Return the weight of a pointwise convolution from those of layers ``(inputs, outputs)``."""
    return torch.cat([w.mT for w in weights])[..., None, None]
