"""Spaces without curvature: vectors of numbers and of angles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.noise import Noise
from scorefield.process import Prior
from scorefield.spaces.base import HeatKernel, OfDimension, Shape, check_time
from scorefield.spaces.kernels import SMALLEST, sphere


class _Flat(OfDimension):
    """Vectors whose tangent vectors are any vectors, moved by Gaussian noise."""

    @property
    def shape(self) -> Shape:
        return (self.d,)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def pull_back(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return w

    def heat_step(self, y: Tensor, t: Tensor | float, noise: Noise) -> tuple[Tensor, Noise]:
        z, noise = self.normal(y, noise)
        return check_time(y, t).sqrt()[..., None] * z, noise


@dataclass(frozen=True)
class Euclidean(_Flat):
    """Vectors of ``d`` numbers, ``(..., d)``. The heat kernel is ``N(y, t I)``.

    Raises:
        ValueError: ``d`` is not a whole number of 1 or more.
    """

    @property
    def log_volume(self) -> float:
        return math.inf

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x + v

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def project(self, x: Tensor) -> Tensor:
        return x

    def spread(self, z: Tensor) -> Tensor:
        raise ValueError(f"{self} has infinite volume, and so no uniform distribution.")

    def coordinates(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + sigma**2).sqrt()

    def noise(self, x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        return (sigma * x / (1 + sigma**2).sqrt() + output) / (1 + sigma**2).sqrt()

    def prior(self, gaussian: Prior) -> Prior:
        return gaussian

    def heat_kernel(self, x: Tensor, y: Tensor, t: Tensor | float) -> HeatKernel:
        time = check_time(x, t)
        value = -(self.distance(x, y) ** 2) / (2 * time) - self.d / 2 * (2 * math.pi * time).log()
        return HeatKernel(value, (y - x) / time[..., None])


@dataclass(frozen=True)
class Torus(_Flat):
    """Vectors of ``d`` angles in radians, ``(..., d)``. The heat kernel is a wrapped Gaussian.

    Angles that differ by multiples of ``2 pi`` are one point. Results are in ``[-pi, pi]``.

    Raises:
        ValueError: ``d`` is not a whole number of 1 or more.
    """

    earliest = SMALLEST

    @property
    def log_volume(self) -> float:
        return self.d * math.log(2 * math.pi)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.project(x + v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return self.project(y - x)

    def project(self, x: Tensor) -> Tensor:
        return x - 2 * math.pi * (x / (2 * math.pi)).round()

    def spread(self, z: Tensor) -> Tensor:
        return math.pi * torch.erf(z / math.sqrt(2))

    def coordinates(self, x: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([x.cos(), x.sin()], -1)

    def heat_kernel(self, x: Tensor, y: Tensor, t: Tensor | float) -> HeatKernel:
        v, time = self.log(y, x), check_time(x, t)
        value, slope = sphere(1, v.abs(), time[..., None])
        return HeatKernel(value.sum(-1).to(x), slope.to(x) * v.sign())

    def _gap(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, 0])
