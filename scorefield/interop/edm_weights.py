"""The names of weights in EDM's networks.

Reference: Karras et al. (2022), arXiv:2206.00364, and the state dicts of the released checkpoints.
"""

from __future__ import annotations

import math
from functools import partial
from typing import cast

import torch
from torch import Tensor

from scorefield.interop.conversion import Origin, Table, layers, of_block, of_classes, parts
from scorefield.networks import ADM, SongUNet
from scorefield.networks.residual import Block
from scorefield.networks.trunk import Trunk

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
    table = layers(_MIX) | _of_trunk(network.trunk, resolution, f"aux_{encoder}", *leave)
    embedding = network.embedding.state_dict()
    if "noise.frequencies" in embedding:
        theirs = ("map_noise.freqs",)
        table["embedding.noise.frequencies"] = Origin(theirs, lambda f: unit * f)
        table["embedding.noise.phases"] = Origin(theirs, lambda f: zero * f)
    if "of_class.weight" in embedding:
        factor = math.sqrt(len(embedding["of_class.weight"]) - 1)
        theirs_of_class = "map_label.weight", "map_label.bias"
        table["embedding.of_class.weight"] = Origin(
            theirs_of_class, lambda w, b: of_classes(w, b, factor)
        )
    return table


def adm(network: ADM, resolution: int) -> Table:
    """Return the origins of the weights of a network that EDM calls DhariwalUNet."""
    table = layers(_MIX) | _of_trunk(network.trunk, resolution, "", "out_norm", "out_conv")
    table["embedding.mix.0.weight"] = Origin(("map_layer0.weight",), _swap_halves)
    if "of_class.weight" in network.embedding.state_dict():
        table["embedding.of_class.weight"] = Origin(("map_label.weight",), of_classes)
    return table


def _of_trunk(trunk: Trunk, resolution: int, side: str, *leave: str) -> Table:
    table: Table = {}
    formats = _PARTS | {"side": "enc.{r}x{r}_" + side}
    for part in parts(trunk):
        ours, place = f"trunk.{part.name}", {"r": resolution >> part.level, "k": part.place}
        if part.role == "leave":
            norm, conv = (text.format(**place) for text in leave)
            table |= layers([(f"{ours}.0", norm), (f"{ours}.2", conv)])
            continue
        theirs = formats[part.role].format(**place)
        if part.role in ("enter", "side"):
            table |= layers([(ours if part.role == "enter" else f"{ours}.conv", theirs)])
            continue
        table |= of_block(part.module, _BLOCK, ours, theirs)
        attention = cast(Block, part.module).attention
        if attention is not None:
            for kind in ("weight", "bias"):
                origin = Origin((f"{theirs}.qkv.{kind}",), partial(_separate, attention.heads))
                table[f"{ours}.attention.enter.{kind}"] = origin
    return table


def _separate(heads: int, tensor: Tensor) -> Tensor:
    """Return queries, keys and values as blocks; EDM interleaves them channel by channel."""
    rows = tensor.reshape(heads, -1, 3, *tensor.shape[1:])
    return rows.movedim(2, 0).flatten(0, 2)


def _swap_halves(weight: Tensor) -> Tensor:
    """Return a layer for sines and cosines, from one for cosines and sines."""
    cosines, sines = weight.chunk(2, 1)
    return torch.cat([sines, cosines], 1)
