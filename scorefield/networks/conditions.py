"""Conditions of a network: classes, numbers and sets of vectors as embeddings, images as channels.

A condition of a batch has a row for each sample, or one for all. Each kind has a value that stands
for "none", so that one network learns the field with a condition and without it::

    Classes    int64 (B,)        -1
    Numbers    (B, size)         NaN
    Vectors    (B, n, size)      NaN, for a vector, and for all of them
    Images     (B, C, *sides)    NaN
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

_HEADS = 4  # of the attention to a set


@dataclass(frozen=True)
class Classes:
    """A class: one of ``count``.

    Args:
        optional: whether no class, -1, is accepted.
    """

    count: int
    optional: bool = True

    def module(self, width: int) -> nn.Module:
        """Return the embedding ``(B, width)`` of this condition."""
        return OfClass(self.count, width, self.optional)


@dataclass(frozen=True)
class Numbers:
    """Some numbers, of mean 0 and deviation 1; a row with NaN is none."""

    size: int

    def module(self, width: int) -> nn.Module:
        """Return the embedding ``(B, width)`` of this condition."""
        return OfNumbers(self.size, width)


@dataclass(frozen=True)
class Vectors:
    """A set of any number of vectors, without order; a vector with NaN is not in it."""

    size: int

    def module(self, width: int) -> nn.Module:
        """Return the embedding ``(B, width)`` of this condition."""
        return OfVectors(self.size, width)


@dataclass(frozen=True)
class Images:
    """A signal, an image or a volume of the sample's number of sides, of any size."""

    channels: int


Condition = Classes | Numbers | Vectors
Conditions = Mapping[str, Condition]
NONE: Conditions = MappingProxyType({})


def count_columns(conditions: Conditions) -> int:
    """Return the number of numbers among conditions, the widths of `columns`."""
    return sum(each.size for each in conditions.values() if isinstance(each, Numbers))


def columns(
    conditions: Conditions, values: Mapping[str, Tensor | None], like: Tensor
) -> list[Tensor]:
    """Return the numbers among conditions, ``(B, size)`` each for a batch ``like``; none are 0."""
    result = []
    for name, each in conditions.items():
        if isinstance(each, Numbers):
            value = values.get(name)
            c = like.new_zeros(1) if value is None else value.to(like)
            c = c.masked_fill(c.isnan().any(-1, keepdim=True), 0.0)
            result.append(c.expand(len(like), each.size))
    return result


def module_name(name: str) -> str:
    """Return a name of a part of a module for any text."""
    if name.isidentifier() and not hasattr(nn.ModuleDict(), name):
        return name
    return "condition_" + name.encode().hex()


def unknown_class(y: Tensor, classes: int, optional: bool, name: str = "y") -> ValueError:
    """Return the error for classes outside ``[0, classes)``, or -1 where that is allowed."""
    none = ", or -1 for none" if optional else "; it cannot go without a class"
    return ValueError(
        f"{name} from {int(y.min())} to {int(y.max())}: this network has the classes 0 to "
        f"{classes - 1}{none}."
    )


class OfClass(nn.Embedding):
    """A row for each class; row 0 stands for no class, -1."""

    def __init__(self, classes: int, width: int, optional: bool) -> None:
        super().__init__(classes + 1, width)
        self.optional = optional

    def forward(  # type: ignore[override]
        self, y: Tensor | None, count: int, name: str
    ) -> Tensor:
        """Return ``(count, width)`` from classes ``(count,)``, ``(1,)`` or ``()``.

        Raises:
            ValueError: a class that does not exist, or none where one is needed.
        """
        y = self.weight.new_full((), -1, dtype=torch.int64) if y is None else y
        classes = self.num_embeddings - 1
        if not torch.compiler.is_compiling() and bool(
            ((y < (-1 if self.optional else 0)) | (y >= classes)).any()
        ):
            raise unknown_class(y, classes, self.optional, name)
        row: Tensor = super().forward((y + 1).expand(count))
        return row


class OfNumbers(nn.Module):
    """A perceptron of numbers, and a row that stands for none."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width))
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, c: Tensor | None, count: int, name: str) -> Tensor:
        """Return ``(count, width)`` from numbers ``(count, size)``, ``(1, size)`` or ``(size,)``.

        Raises:
            ValueError: another number of numbers.
        """
        if c is None:
            return self.absent.expand(count, -1)
        c = checked_size(c, self.size, name, self.absent)
        present = ~c.isnan().any(-1, keepdim=True)
        rows = torch.where(present, self.layers(c.nan_to_num()), self.absent)
        return rows.expand(count, -1)


class OfVectors(nn.Module):
    """Attention to the vectors of a set, of as many vectors as there are."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size, self.heads = size, _HEADS if width % _HEADS == 0 else 1
        self.enter = nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, 2 * width))
        self.query = nn.Parameter(torch.randn(width))
        self.leave = nn.Linear(width, width)
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, c: Tensor | None, count: int, name: str) -> Tensor:
        """Return ``(count, width)`` from ``(count, n, size)``, ``(1, n, size)`` or ``(n, size)``.

        Raises:
            ValueError: vectors of another size.
        """
        if c is None or not c.shape[-2]:
            return self.absent.expand(count, -1)
        c = checked_size(c, self.size, name, self.absent)
        c = c if c.ndim == 3 else c[None]
        present = ~c.isnan().any(-1)
        key, value = self.enter(c.nan_to_num()).chunk(2, -1)
        split = (*c.shape[:2], self.heads, -1)
        key, value = key.reshape(split).transpose(1, 2), value.reshape(split).transpose(1, 2)
        query = self.query.reshape(1, self.heads, 1, -1).expand(len(c), -1, -1, -1)
        some = present.any(-1, keepdim=True)
        mask = (present | ~some)[:, None, None]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        rows = torch.where(some, self.leave(mixed.reshape(len(c), -1)), self.absent)
        return rows.expand(count, -1)


def checked_size(c: Tensor, size: int, name: str, like: Tensor) -> Tensor:
    """Return rows of ``size`` numbers, of the type and on the device of ``like``.

    Raises:
        ValueError: rows of another size.
    """
    if c.ndim == 0 and size == 1:
        c = c[None]
    if not c.ndim or c.shape[-1] != size:
        raise ValueError(
            f"{name} has shape {tuple(c.shape)}: this network takes {size} number(s) a row."
        )
    return c.to(like)


class Spatial(nn.Module):
    """A network that also takes images: they join its input as channels, scaled to its sides.

    With each image goes a channel of ones, or of zeros for a missing image.

    Args:
        network: of so many more channels, `extra`; they are dropped from its result.
        images: the images by their names.
        channels: of the sample.
    """

    def __init__(self, network: nn.Module, images: Mapping[str, Images], channels: int) -> None:
        super().__init__()
        self.network, self.images, self.channels = network, dict(images), channels

    @staticmethod
    def extra(images: Mapping[str, Images]) -> int:
        """Return the number of channels that the images add."""
        return sum(image.channels + 1 for image in images.values())

    def forward(self, x: Tensor, label: Tensor, **condition: Tensor | None) -> Tensor:
        """Return a tensor like ``x`` ``(B, C, *sides)``; the conditions are by name.

        Raises:
            ValueError: an image of other channels, or of another number of sides.
        """
        parts = [x]
        for name, image in self.images.items():
            parts += self._channels(condition.pop(name, None), image.channels, x, name)
        out: Tensor = self.network(torch.cat(parts, 1), label, **condition)
        return out[:, : self.channels]

    def _channels(self, c: Tensor | None, channels: int, x: Tensor, name: str) -> list[Tensor]:
        """Return an image as channels of the batch, and the channel that says whether it is."""
        sides = x.shape[2:]
        if c is None:
            return [x.new_zeros(len(x), channels + 1, *sides)]
        c = c.to(x) if c.ndim == x.ndim else c.to(x)[None]
        if c.ndim != x.ndim or c.shape[1] != channels:
            raise ValueError(
                f"{name} has shape {tuple(c.shape)}: this network takes {channels} channel(s) and "
                f"{len(sides)} side(s) after the number of samples."
            )
        present = ~c.flatten(1).isnan().any(1).reshape(-1, *[1] * (x.ndim - 1))
        image = torch.where(present, c.nan_to_num(), 0.0)
        if image.shape[2:] != sides:
            image = _scaled(image, sides)
        ones = present.to(x).expand(-1, 1, *sides)
        return [part.expand(len(x), *part.shape[1:]) for part in (image, ones)]


def _scaled(image: Tensor, sides: torch.Size) -> Tensor:
    """Return an image scaled to other sides by linear interpolation."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(sides)]
    return nn.functional.interpolate(image, size=tuple(sides), mode=mode, align_corners=False)
