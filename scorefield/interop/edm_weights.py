"""The names of weights in EDM's networks.

Reference: Karras et al. (2022), arXiv:2206.00364, and the state dicts of the released checkpoints.
"""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor

from scorefield.interop.conversion import (
    Names,
    Origin,
    Part,
    Table,
    both,
    layers,
    of_classes,
    of_trunk,
    swap_halves,
)
from scorefield.networks import ADM, SongUNet

# entries of a state dict without a counterpart: fixed filters, augmentation, which generation does
# not use, and the table of the preconditioning
IDLE = r".*\.resample_filter|map_augment\.weight|u"

_MIX = [("embedding.mix.0", "map_layer0"), ("embedding.mix.2", "map_layer1")]
_PARTS = {
    "enter": "enc.{r}x{r}_conv",
    "shrink": "enc.{r}x{r}_down",
    "down": "enc.{r}x{r}_block{k}",
    "middle": "dec.{r}x{r}_in{k}",
    "grow": "dec.{r}x{r}_up",
    "up": "dec.{r}x{r}_block{k}",
}
_BLOCK = {
    "norm1": "norm0",
    "conv1": "conv0",
    "modulation": "affine",
    "norm2": "norm1",
    "conv2": "conv1",
    "skip": "skip",
    "attention.norm": "norm2",
    "attention.leave": "proj",
}


def song(network: SongUNet, resolution: int, encoder: str, unit: float, zero: float) -> Table:
    """Return the origins of the weights of a network that EDM calls SongUNet.

    Args:
        network: ours, with the shapes of the configuration.
        resolution: of its images.
        encoder: of its configuration.
        unit, zero: EDM's label is ``unit label + zero``, for Fourier features.
    """
    leave = "dec.{r}x{r}_aux_norm", "dec.{r}x{r}_aux_conv"
    table = layers(_MIX) | of_trunk(network.trunk, _names(resolution, f"aux_{encoder}", *leave))
    embedding = network.embedding.state_dict()
    if "noise.frequencies" in embedding:
        theirs = ("map_noise.freqs",)
        table["embedding.noise.frequencies"] = Origin(theirs, lambda f: unit * f)
        table["embedding.noise.phases"] = Origin(theirs, lambda f: zero * f)
    if "conditions.y.weight" in embedding:
        factor = math.sqrt(len(embedding["conditions.y.weight"]) - 1)
        theirs_of_class = "map_label.weight", "map_label.bias"
        table["embedding.conditions.y.weight"] = Origin(
            theirs_of_class, lambda w, b: of_classes(w, b, factor)
        )
    return table


def adm(network: ADM, resolution: int) -> Table:
    """Return the origins of the weights of a network that EDM calls DhariwalUNet."""
    names = _names(resolution, "", "out_norm", "out_conv")
    table = layers(_MIX) | of_trunk(network.trunk, names)
    table["embedding.mix.0.weight"] = Origin(("map_layer0.weight",), swap_halves)
    if "y" in network.embedding.conditions:
        table["embedding.conditions.y.weight"] = Origin(("map_label.weight",), of_classes)
    return table


def _names(resolution: int, side: str, *leave: str) -> Names:
    formats = _PARTS | {"side": "enc.{r}x{r}_" + side}

    def place(text: str, part: Part) -> str:
        return text.format(r=resolution >> part.level, k=part.place)

    return Names(
        part=lambda part: place(formats[part.role], part),
        leave=lambda part: (place(leave[0], part), place(leave[1], part)),
        block=_BLOCK,
        attention=_attention,
    )


def _attention(ours: str, theirs: str, heads: int) -> Table:
    return both(f"{ours}.enter", f"{theirs}.qkv", partial(_separate, heads))


def _separate(heads: int, tensor: Tensor) -> Tensor:
    """Return queries, keys and values as blocks; EDM interleaves them channel by channel."""
    rows = tensor.reshape(heads, -1, 3, *tensor.shape[1:])
    return rows.movedim(2, 0).flatten(0, 2)
