"""Products of spaces."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.noise import Noise
from scorefield.process import Prior
from scorefield.spaces.base import HeatKernel, Shape, Space
from scorefield.spaces.flat import Euclidean


@dataclass(frozen=True, init=False)
class Product(Space):
    """Points of several spaces side by side, as ``Product(SO3(), Euclidean(3))`` for poses.

    A point is a vector of the coordinates of each part in turn; `split` and `join` convert.
    Squared distances and log-densities add.

    Raises:
        ValueError: a part is not a space, or fewer than two are given.
    """

    spaces: tuple[Space, ...]

    def __init__(self, *spaces: Space) -> None:
        if len(spaces) < 2 or not all(isinstance(space, Space) for space in spaces):
            raise ValueError(f"Product{spaces}: give two spaces or more.")
        object.__setattr__(self, "spaces", spaces)

    @property
    def dim(self) -> int:
        return sum(space.dim for space in self.spaces)

    @property
    def shape(self) -> Shape:
        return (sum(math.prod(space.shape) for space in self.spaces),)

    @property
    def earliest(self) -> float:
        return max(space.earliest for space in self.spaces)

    @property
    def log_volume(self) -> float:
        return sum(space.log_volume for space in self.spaces)

    def split(self, x: Tensor) -> list[Tensor]:
        """Return the coordinates of each part, ``(..., *space.shape)``."""
        parts = torch.split(x, [math.prod(space.shape) for space in self.spaces], -1)
        return [
            part.reshape(*x.shape[:-1], *space.shape)
            for space, part in zip(self.spaces, parts, strict=True)
        ]

    def join(self, parts: list[Tensor]) -> Tensor:
        """Return the points with the coordinates of each part, the inverse of `split`."""
        pairs = zip(self.spaces, parts, strict=True)
        return torch.cat([part.flatten(-len(space.shape)) for space, part in pairs], -1)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return self._each(lambda space, a, b: space.exp(a, b), x, v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return self._each(lambda space, a, b: space.log(a, b), x, y)

    def project(self, x: Tensor) -> Tensor:
        return self._each(lambda space, a: space.project(a), x)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return self._each(lambda space, a, b: space.tangent(a, b), x, v)

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        triples = zip(self.spaces, self.split(u), self.split(v), strict=True)
        return torch.stack([space.inner(a, b) for space, a, b in triples]).sum(0)

    def pull_back(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self._each(lambda space, *parts: space.pull_back(*parts), x, v, w)

    def spread(self, z: Tensor) -> Tensor:
        return self._each(lambda space, a: space.spread(a), z)

    def standard_normal(self, x: Tensor, z: Tensor) -> Tensor:
        return self._each(lambda space, *parts: space.standard_normal(*parts), x, z)

    def coordinates(self, x: Tensor, sigma: Tensor) -> Tensor:
        pairs = zip(self.spaces, self.split(x), strict=True)
        return torch.cat([space.coordinates(a, sigma) for space, a in pairs], -1)

    def noise(self, x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        return self._each(lambda space, a, b: space.noise(a, sigma, b), x, output)

    def prior(self, gaussian: Prior) -> _Independent:
        moments = gaussian.mean, gaussian.std
        mean, std = (self.split(moment.expand(self.shape)) for moment in moments)
        parts = zip(self.spaces, mean, std, strict=True)
        return _Independent(self, tuple(space.prior(Prior(m, s)) for space, m, s in parts))

    def heat_kernel(self, x: Tensor, y: Tensor, t: Tensor | float) -> HeatKernel:
        triples = zip(self.spaces, self.split(x), self.split(y), strict=True)
        kernels = [space.heat_kernel(a, b, t) for space, a, b in triples]
        value = torch.stack([kernel.log_prob for kernel in kernels]).sum(0)
        return HeatKernel(value, self.join([kernel.score for kernel in kernels]))

    def heat_step(self, y: Tensor, t: Tensor | float, noise: Noise) -> tuple[Tensor, Noise]:
        parts = []
        for space, b in zip(self.spaces, self.split(y), strict=True):
            part, noise = space.heat_step(b, t, noise)
            parts.append(part)
        return self.join(parts), noise

    def _each(self, function: Callable[..., Tensor], *points: Tensor) -> Tensor:
        """Apply a function to each part."""
        parts = zip(self.spaces, *map(self.split, points), strict=True)
        return self.join([function(*part) for part in parts])

    def _gap(self, x: Tensor) -> Tensor:
        pairs = zip(self.spaces, self.split(x), strict=True)
        return torch.stack([space._gap(part) for space, part in pairs]).amax(0)


def is_flat(space: Space) -> Tensor:
    """Return which coordinates of a point are those of Euclidean parts, a mask of its shape."""
    if isinstance(space, Product):
        return space.join([is_flat(part) for part in space.spaces])
    return torch.full(space.shape, isinstance(space, Euclidean))


@dataclass(frozen=True)
class _Independent:
    """A distribution on each part, with the methods of `scorefield.process.Prior`."""

    space: Product
    parts: tuple[Any, ...]

    def draw(self, eps: Tensor) -> Tensor:
        return self._each("draw", eps)

    def standard(self, x: Tensor) -> Tensor:
        return self._each("standard", x)

    def raw(self, z: Tensor) -> Tensor:
        return self._each("raw", z)

    def log_prob(self, x: Tensor) -> Tensor:
        pairs = zip(self.parts, self.space.split(x), strict=True)
        return torch.stack([part.log_prob(a) for part, a in pairs]).sum(0)

    def trace(self, r: float) -> float:
        return float(sum(part.trace(r) for part in self.parts))

    def _each(self, name: str, x: Tensor) -> Tensor:
        pairs = zip(self.parts, self.space.split(x), strict=True)
        return self.space.join([getattr(part, name)(a) for part, a in pairs])
