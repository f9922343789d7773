"""Weights of a network that was trained elsewhere, under the names that ours has for them.

A table says for each tensor of ours which of theirs it is made of, and how. What is held on either
side and not on the other, or has another shape, is an error that names both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scorefield._internal import sizes
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.networks.trunk import Trunk
from scorefield.runs import build
from scorefield.training.config import NetworkConfig


class Origin(NamedTuple):
    """Where a tensor of ours comes from: the names of theirs, and what is made of them."""

    names: tuple[str, ...]
    make: Callable[..., Tensor]


Table = dict[str, Origin]


def same(tensor: Tensor) -> Tensor:
    """Return the tensor, where only its name differs."""
    return tensor


def layers(names: Iterable[tuple[str, str]]) -> Table:
    """Return the table of layers that have a weight and a bias on both sides."""
    return {
        f"{ours}.{part}": Origin((f"{theirs}.{part}",), same)
        for ours, theirs in names
        for part in ("weight", "bias")
    }


class Part(NamedTuple):
    """A part of a trunk: its name there, what it does, at which level, and which of several."""

    name: str
    role: str
    level: int
    place: int
    module: nn.Module


def parts(trunk: Trunk) -> Iterator[Part]:
    """Return the parts of a trunk that have weights, in the order in which they run."""
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


def of_block(block: nn.Module, names: Mapping[str, str], ours: str, theirs: str) -> Table:
    """Return the table of a block's layers, of those that it has."""
    held = block.state_dict()
    pairs = [(f"{ours}.{a}", f"{theirs}.{b}") for a, b in names.items() if f"{a}.weight" in held]
    return layers(pairs)


def outline(config: NetworkConfig, shape: tuple[int, ...], classes: int, source: str) -> nn.Module:
    """Return a network without memory, to be asked for its names and shapes.

    Raises:
        UsageError: a configuration that describes no network, or one beyond all size.
    """
    try:
        tensors, numbers = build.network_size(config, shape, classes)
        if tensors > build.MOST_TENSORS or 4 * numbers > sizes.memory():
            raise ValueError(f"a network of {tensors:,} tensors and {sizes.words(4 * numbers)}")
        return build.outline(config, shape, classes)
    except ValueError as error:
        raise UsageError(f"{source}: the configuration describes no network: {error}") from None


def converted(
    held: Mapping[str, Tensor],
    table: Table,
    expected: Mapping[str, Tensor],
    idle: str,
    source: str,
) -> dict[str, Tensor]:
    """Return weights under our names, in single precision.

    Args:
        held: weights under theirs.
        table: where each of ours comes from.
        expected: tensors of the shapes that the configuration describes.
        idle: a regular expression of names that may be held besides, and say nothing.
        source: of the weights, in words.

    Raises:
        CheckpointError: weights that are missing, or held besides, or of another shape.
    """
    needed = {name for origin in table.values() for name in origin.names}
    missing = sorted(needed - set(held))
    extra = sorted(name[:80] for name in set(held) - needed if not re.fullmatch(idle, name))
    if missing or extra:
        raise CheckpointError(
            f"{source}: the weights do not match the configuration: they lack {missing[:4]} and "
            f"have {extra[:4]} besides."
        )
    return {name: _made(held, table[name], like, source) for name, like in expected.items()}


def _made(held: Mapping[str, Tensor], origin: Origin, like: Tensor, source: str) -> Tensor:
    given = [held[name] for name in origin.names]
    try:
        made = origin.make(*(tensor.float() for tensor in given))
    except (RuntimeError, IndexError, ValueError):  # by what torch makes of another shape
        made = None
    if made is None or made.shape != like.shape:
        shapes = [
            f"{n} has shape {tuple(v.shape)}" for n, v in zip(origin.names, given, strict=True)
        ]
        raise CheckpointError(
            f"{source}: {', '.join(shapes)}, and what is made of it should have "
            f"{tuple(like.shape)} by the configuration."
        )
    return made.contiguous()


def negated(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a network whose output has the other sign."""
    return {name: -value if ".leave.2." in name else value for name, value in weights.items()}


def of_classes(weight: Tensor, bias: Tensor | None = None, factor: float = 1.0) -> Tensor:
    """Return a table of rows for no class and each class, of a layer that takes one-hot vectors."""
    none = weight.new_zeros(1, len(weight)) if bias is None else bias[None]
    return torch.cat([none, factor * weight.mT + none])
