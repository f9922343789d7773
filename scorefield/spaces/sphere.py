"""Unit spheres."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.spaces.base import Isotropic, OfDimension, Shape
from scorefield.spaces.kernels import earliest, log_area, sphere


@dataclass(frozen=True)
class Sphere(OfDimension, Isotropic):
    """Unit vectors of ``d + 1`` numbers, ``(..., d + 1)``. Directions are points of ``Sphere(2)``.

    The heat kernel has eight digits from ``t = 1e-5`` for ``d <= 3``, and from 0.3 above; earlier
    times are refused.

    Raises:
        ValueError: ``d`` is not a whole number of 1 or more.
    """

    @property
    def shape(self) -> Shape:
        return (self.d + 1,)

    @property
    def earliest(self) -> float:
        return earliest(self.d)

    @property
    def log_volume(self) -> float:
        return log_area(self.d)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        r = v.norm(dim=-1, keepdim=True)
        return self.project(r.cos() * x + torch.sinc(r / math.pi) * v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the velocity at ``x`` of a shortest geodesic to ``y``; any to an antipode."""
        v = self.tangent(x, y - x)
        other = torch.zeros_like(x).scatter(-1, x.abs().argmin(-1, keepdim=True), 1.0)
        tiny = v.norm(dim=-1, keepdim=True) <= torch.finfo(x.dtype).tiny
        v = torch.where(tiny, self.tangent(x, other), v)
        velocity: Tensor = self.distance(x, y)[..., None] * v / v.norm(dim=-1, keepdim=True)
        return velocity

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))

    def project(self, x: Tensor) -> Tensor:
        unit: Tensor = x / x.norm(dim=-1, keepdim=True)
        return unit

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v - (x * v).sum(-1, keepdim=True) * x

    def pull_back(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        r = v.norm(dim=-1, keepdim=True)
        along = v / r.clamp(min=torch.finfo(v.dtype).tiny)
        end = r.cos() * along - r.sin() * x
        part = (w * end).sum(-1, keepdim=True)
        pulled: Tensor = part * along + (w - part * end) / torch.sinc(r / math.pi)
        return pulled

    def spread(self, z: Tensor) -> Tensor:
        return self.project(z)

    def radial(self, r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return sphere(self.d, r, t)

    def stretch(self, r: Tensor) -> Tensor:
        return r.sin()
