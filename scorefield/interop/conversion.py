"""Conversion of the weights of another library's network to ours.

A table gives the origin of each of our tensors: the names of theirs, and a function of them.
Missing or unknown tensors and other shapes are errors that name both sides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from scorefield._internal import sizes
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.data.config import ClassChannel
from scorefield.interop.contents import described
from scorefield.networks.residual import Block
from scorefield.networks.trunk import Trunk
from scorefield.runs import build
from scorefield.training.config import NetworkConfig


class Origin(NamedTuple):
    """The origin of one of our tensors: the names of theirs, and the function of them."""

    names: tuple[str, ...]
    make: Callable[..., Tensor]


Table = dict[str, Origin]


def same(tensor: Tensor) -> Tensor:
    """Return the tensor; only its name differs."""
    return tensor


def layers(names: Iterable[tuple[str, str]]) -> Table:
    """Return the table of layers with a weight and a bias on both sides."""
    return {
        f"{ours}.{part}": Origin((f"{theirs}.{part}",), same)
        for ours, theirs in names
        for part in ("weight", "bias")
    }


class Part(NamedTuple):
    """A part of a trunk: its name, its role, its scale, and its position among equals."""

    name: str
    role: str
    level: int
    place: int
    module: nn.Module


def parts(trunk: Trunk) -> Iterator[Part]:
    """Return the parts of a trunk that have weights, in the order of the forward pass."""
    yield Part("enter", "enter", 0, 0, trunk.enter)
    for level, down in enumerate(trunk.down):
        yield from _parts(f"down.{level}", "down", level, down)
    last = len(trunk.down) - 1
    for k, block in enumerate(trunk.middle):
        yield Part(f"middle.{k}", "middle", last, k, block)
    for k, up in enumerate(trunk.up):
        yield from _parts(f"up.{k}", "up", last - k, up)


def _parts(prefix: str, way: str, level: int, stage: nn.Module) -> Iterator[Part]:
    for name, module in stage.named_children():
        if name == "blocks":
            for k, block in enumerate(module.children()):
                yield Part(f"{prefix}.blocks.{k}", way, level, k, block)
        elif module.state_dict():
            yield Part(f"{prefix}.{name}", name, level, 0, module)


class Names(NamedTuple):
    """The names of a library for the layers of a trunk.

    Attributes:
        part: the name of a part.
        leave: the names of the norm and the convolution of a part that leaves the trunk.
        block: the layers of a block by ours, inside its part.
        attention: the table of a block's attention by its name, that of its part, and its heads.
        side: the convolution of a side path, after the name of its part.
    """

    part: Callable[[Part], str]
    leave: Callable[[Part], tuple[str, str]]
    block: Mapping[str, str]
    attention: Callable[[str, str, int], Table]
    side: str = ""


def of_trunk(trunk: Trunk, names: Names) -> Table:
    """Return the table of the layers of a trunk."""
    table: Table = {}
    for part in parts(trunk):
        ours = f"trunk.{part.name}"
        if part.role == "leave":
            table |= layers(zip((f"{ours}.0", f"{ours}.2"), names.leave(part), strict=True))
            continue
        theirs = names.part(part)
        if part.role == "enter":
            table |= layers([(ours, theirs)])
        elif part.role == "side":
            table |= layers([(f"{ours}.conv", theirs + names.side)])
        else:
            own = part.module.state_dict()
            present = {a: b for a, b in names.block.items() if f"{a}.weight" in own}
            table |= layers((f"{ours}.{a}", f"{theirs}.{b}") for a, b in present.items())
            attention = cast(Block, part.module).attention
            if attention is not None:
                table |= names.attention(f"{ours}.attention", theirs, attention.heads)
    return table


def both(name: str, theirs: str, make: Callable[..., Tensor]) -> Table:
    """Return the table of a layer whose weight and bias are the same function of theirs."""
    return {f"{name}.{k}": Origin((f"{theirs}.{k}",), make) for k in ("weight", "bias")}


def swap_halves(weight: Tensor) -> Tensor:
    """Return a layer for sines and cosines, from one for cosines and sines."""
    cosines, sines = weight.chunk(2, 1)
    return torch.cat([sines, cosines], 1)


def outline(config: NetworkConfig, shape: tuple[int, ...], classes: int, source: str) -> nn.Module:
    """Return a network without memory, for its names and shapes.

    Raises:
        UsageError: an invalid configuration, or one of a network that is too large.
    """
    channels = (ClassChannel(name="y", count=classes),) if classes else ()
    try:
        tensors, numbers = build.network_size(build.Design(config, shape, channels))
        if tensors > build.MOST_TENSORS or 4 * numbers > sizes.memory():
            raise ValueError(f"{tensors:,} tensors and {sizes.words(4 * numbers)} are too many")
        return build.outline(build.Design(config, shape, channels))
    except ValueError as error:
        raise UsageError(f"{source}: the configuration is not valid: {error}") from None


def convert(
    tensors: Mapping[str, Tensor],
    table: Table,
    expected: Mapping[str, Tensor],
    idle: str,
    source: str,
) -> dict[str, Tensor]:
    """Return weights by our names, in single precision.

    Args:
        tensors: weights by their names.
        table: the origin of each of ours.
        expected: tensors with the shapes of the configuration.
        idle: a regular expression of further names, which are ignored.
        source: description of the weights.

    Raises:
        CheckpointError: weights that are missing, unknown, or of another shape.
    """
    needed = {name for origin in table.values() for name in origin.names}
    missing = sorted(needed - set(tensors))
    extra = sorted(name[:80] for name in set(tensors) - needed if not re.fullmatch(idle, name))
    if missing or extra:
        raise CheckpointError(
            f"{source}: the weights do not match the configuration: missing {missing[:4]}, unknown "
            f"{extra[:4]}; {described(tensors)}."
        )
    return {name: _converted(tensors, table[name], like, source) for name, like in expected.items()}


def _converted(tensors: Mapping[str, Tensor], origin: Origin, like: Tensor, source: str) -> Tensor:
    try:
        result = origin.make(*(tensors[name].float() for name in origin.names))
    except (RuntimeError, IndexError, ValueError):  # raised by torch for another shape
        result = None
    if result is None or result.shape != like.shape:
        shapes = ", ".join(
            f"{name} has shape {tuple(tensors[name].shape)}" for name in origin.names
        )
        raise CheckpointError(
            f"{source}: {shapes}, which does not give the shape {tuple(like.shape)}."
        )
    return result.contiguous()


def negate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a network whose output has the opposite sign."""
    return {name: -value if ".leave.2." in name else value for name, value in weights.items()}


def of_classes(weight: Tensor, bias: Tensor | None = None, factor: float = 1.0) -> Tensor:
    """Return rows for no class and each class, from a layer of one-hot vectors."""
    none = weight.new_zeros(1, len(weight)) if bias is None else bias[None]
    return torch.cat([none, factor * weight.mT + none])
