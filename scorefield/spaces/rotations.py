r"""Rotations of space.

A rotation by an angle ``r`` is a pair of unit quaternions ``q``, ``-q`` at the angles ``r/2`` and
``pi - r/2`` from 1. Lengths on ``Sphere(3)`` are half of those of rotations. With its kernel
``k``::

    p_t(r) = 1/8 (k_{t/4}(r/2) + k_{t/4}(pi - r/2))                                 (1)

This is the sum ``1/(8 pi^2) sum_l (2 l + 1) e^{-l (l + 1) t / 2} chi_l(r)`` over characters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.spaces.base import Isotropic, Shape
from scorefield.spaces.kernels import SMALLEST, sphere


@dataclass(frozen=True)
class SO3(Isotropic):
    """Rotation matrices, ``(..., 3, 3)``; the distance of two is the angle between them.

    A tangent vector at ``x`` is ``x`` times an antisymmetric matrix; its length is that of the
    angular velocity. The heat kernel has eight digits from ``t = 4e-5``; earlier times are refused.
    """

    metric = 0.5
    earliest = 4 * SMALLEST

    @property
    def dim(self) -> int:
        return 3

    @property
    def shape(self) -> Shape:
        return (3, 3)

    @property
    def log_volume(self) -> float:
        return math.log(8 * math.pi**2)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x @ rotation(_vector(x.mT @ v))

    def pull_back(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        a, b = _vector(x.mT @ v), _vector(self.exp(x, v).mT @ w)
        r = a.norm(dim=-1, keepdim=True)
        along = a / r.clamp(min=torch.finfo(a.dtype).tiny)
        part = (b * along).sum(-1, keepdim=True) * along
        rest = (rotation(a / 2) @ (b - part)[..., None])[..., 0]
        return x @ _antisymmetric(part + rest / torch.sinc(r / (2 * math.pi)))

    def spread(self, z: Tensor) -> Tensor:
        return self.project(z)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the velocity at ``x`` of a shortest geodesic to ``y``; any to a half turn."""
        q = quaternion(x.mT @ y)
        sine = q[..., 1:].norm(dim=-1, keepdim=True)
        r = 2 * torch.atan2(sine, q[..., :1])
        w = q[..., 1:] * torch.where(sine > 0, r / sine.clamp(min=1e-30), 2.0)
        return x @ _antisymmetric(w)

    def project(self, x: Tensor) -> Tensor:
        u, _, vh = torch.linalg.svd(x)
        last = torch.linalg.det(u @ vh)
        u = torch.cat([u[..., :2], u[..., 2:] * last[..., None, None]], -1)
        nearest: Tensor = u @ vh
        return nearest

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        a = x.mT @ v
        return x @ (a - a.mT) / 2

    def radial(self, r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if not bool((t >= self.earliest).all()):
            raise ValueError(f"t={float(t.min()):g}: give times >= {self.earliest:g} on SO3().")
        near, slope = sphere(3, r / 2, t / 4)
        far, slope_far = sphere(3, math.pi - r / 2, t / 4)
        share = (near - far).sigmoid()
        value = torch.logaddexp(near, far) - math.log(8)
        return value, (share * slope - (1 - share) * slope_far) / 2

    def stretch(self, r: Tensor) -> Tensor:
        return 2 * (r / 2).sin()


def rotation(w: Tensor) -> Tensor:
    """Return the rotation by the angle ``|w|`` around ``w`` ``(..., 3)``."""
    r = w.norm(dim=-1, keepdim=True)
    return matrix(torch.cat([(r / 2).cos(), torch.sinc(r / (2 * math.pi)) * w / 2], -1))


def _antisymmetric(w: Tensor) -> Tensor:
    """Return the matrix of the cross product with ``w`` ``(..., 3)``."""
    a, b, c = w.unbind(-1)
    zero = torch.zeros_like(a)
    return torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], -1).reshape(*a.shape, 3, 3)


def _vector(m: Tensor) -> Tensor:
    """Return the vector of the antisymmetric part of a matrix."""
    a = (m - m.mT) / 2
    return torch.stack([a[..., 2, 1], a[..., 0, 2], a[..., 1, 0]], -1)


def matrix(q: Tensor) -> Tensor:
    """Return the rotation of a unit quaternion ``(w, x, y, z)``."""
    cross = _antisymmetric(q[..., 1:])
    return torch.eye(3).to(q) + 2 * (q[..., :1, None] * cross + cross @ cross)


def quaternion(m: Tensor) -> Tensor:
    """Return the unit quaternion of a rotation whose first entry is not negative.

    It is the longest column of the matrix ``4 q q^T``, normalized.
    """
    d = m.diagonal(dim1=-2, dim2=-1)
    v = 2 * _vector(m)
    trace = d.sum(-1, keepdim=True)
    inner = m + m.mT + (1 - trace)[..., None] * torch.eye(3).to(m)
    outer = torch.cat(
        [torch.cat([1 + trace, v], -1)[..., None, :], torch.cat([v[..., None], inner], -1)], -2
    )
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    column = outer.gather(-2, best.expand(*best.shape[:-2], 1, 4))[..., 0, :]
    q = column / column.norm(dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)
