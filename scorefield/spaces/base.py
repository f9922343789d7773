r"""A space: a Riemannian manifold whose Brownian motion has a heat kernel that can be computed.

Points and tangent vectors are tensors of an ambient space, with any leading dimensions. Brownian
motion ``dx = dw`` has the generator ``1/2`` of the Laplacian. After the time ``t`` from ``y`` it
has the density ``p_t(x | y)``, the heat kernel, relative to the volume of the space.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.noise import Noise
from scorefield.spaces.kernels import draw, log_area

Shape = tuple[int, ...]


class HeatKernel(NamedTuple):
    """The heat kernel at points ``x``.

    Attributes:
        log_prob: ``log p_t(x | y)``, ``(...)``.
        score: its gradient in ``x``, a tangent vector at ``x``, shaped as ``x``.
    """

    log_prob: Tensor
    score: Tensor


class Space(ABC):
    """A manifold with its geodesics, its uniform distribution and its heat kernel.

    A new space has the abstract methods below.
    """

    @property
    @abstractmethod
    def dim(self) -> int:
        """The dimension of the manifold."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """The shape of a point."""

    @property
    @abstractmethod
    def volume(self) -> float:
        """The volume of the manifold."""

    @abstractmethod
    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the end of the geodesic from ``x`` with the velocity ``v``, after the time 1."""

    @abstractmethod
    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the velocity at ``x`` of a shortest geodesic to ``y``, the inverse of `exp`."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Return the nearest point of the manifold."""

    @abstractmethod
    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the orthogonal projection of ``v`` on the tangent space at ``x``."""

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the inner product of two tangent vectors at one point."""
        return (u * v).flatten(-len(self.shape)).sum(-1)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the length of a shortest geodesic between two points."""
        v = self.log(x, y)
        return self.inner(v, v).sqrt()

    @abstractmethod
    def uniform(self, noise: Noise, like: Tensor) -> tuple[Tensor, Noise]:
        """Draw a point for each id of ``noise`` from the uniform distribution, typed as ``like``.

        Raises:
            ValueError: the volume is infinite.
        """

    @abstractmethod
    def normal(self, x: Tensor, noise: Noise) -> tuple[Tensor, Noise]:
        """Draw standard normal tangent vectors at points ``(B, *shape)``."""

    @abstractmethod
    def heat_kernel(self, x: Tensor, y: Tensor, t: Tensor | float) -> HeatKernel:
        """Return the heat kernel from ``y`` at ``x``, after the time ``t``, of shape ``(...)``.

        Raises:
            ValueError: the kernel cannot be computed to eight digits at this time.
        """

    @abstractmethod
    def heat_sample(self, y: Tensor, t: Tensor | float, noise: Noise) -> tuple[Tensor, Noise]:
        """Draw from the heat kernel from ``y`` ``(B, *shape)``, after the time ``()`` or ``(B,)``.

        Raises:
            ValueError: the kernel cannot be computed to eight digits at this time.
        """

    def check(self, x: Tensor) -> None:
        """Check that ``x`` ``(..., *shape)`` holds points of the space, to three digits.

        Raises:
            ValueError: the shape is wrong, or a point is off the manifold or not finite.
        """
        if x.shape[x.ndim - len(self.shape) :] != self.shape or not x.is_floating_point():
            raise ValueError(
                f"x has shape {tuple(x.shape)} and type {x.dtype}: points of {self} are "
                f"floating-point numbers (..., {', '.join(map(str, self.shape))})."
            )
        points = x.reshape(-1, *self.shape)
        finite = points.flatten(1).isfinite().all(1)
        safe = torch.where(finite.reshape(-1, *[1] * len(self.shape)), points, 0.5)
        gap = torch.where(finite, self._gap(safe), torch.inf)
        if len(points) and not float(gap.max()) <= 1e-3:
            row = int(gap.argmax())
            raise ValueError(
                f"x: point {row}, {points[row].tolist()}, is not a point of {self}. "
                "Use project(x) if rounding is the cause."
            )

    def _gap(self, x: Tensor) -> Tensor:
        """Return the largest change of a coordinate by projection, ``(B,)``."""
        return (self.project(x) - x).flatten(1).abs().amax(1)


@dataclass(frozen=True)
class OfDimension(Space):
    """A space of a family with one member in each dimension.

    Raises:
        ValueError: ``d`` is not a whole number of 1 or more.
    """

    d: int

    def __post_init__(self) -> None:
        if not isinstance(self.d, int) or self.d < 1:
            raise ValueError(f"d={self.d!r}: give a whole number, 1 or more.")

    @property
    def dim(self) -> int:
        return self.d


def check_time(x: Tensor, t: Tensor | float) -> Tensor:
    """Return the time in the type of ``x``, positive."""
    time = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if not bool((time > 0).all()):
        raise ValueError(f"t={t}: give positive times.")
    return time


class Isotropic(Space):
    """A space whose heat kernel depends on the distance alone, at most ``pi``."""

    @abstractmethod
    def radial(self, r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log of the heat kernel at a distance, and its derivative in the distance."""

    @abstractmethod
    def stretch(self, r: Tensor) -> Tensor:
        """Return the radius of the flat sphere with the area of the one of radius ``r``."""

    def area(self, r: Tensor) -> Tensor:
        """Return the area of the set of points at a distance ``r``."""
        area: Tensor = math.exp(log_area(self.dim - 1)) * self.stretch(r) ** (self.dim - 1)
        return area

    def heat_kernel(self, x: Tensor, y: Tensor, t: Tensor | float) -> HeatKernel:
        v, r = self.log(x, y), self.distance(x, y)
        value, slope = self.radial(r, torch.as_tensor(t, dtype=torch.float64, device=x.device))
        scale = (slope / r.double().clamp(min=1e-300)).to(x)
        score = -scale.reshape(*scale.shape, *[1] * len(self.shape)) * v
        return HeatKernel(value.to(x), score)

    def heat_sample(self, y: Tensor, t: Tensor | float, noise: Noise) -> tuple[Tensor, Noise]:
        z, noise = self.normal(y, noise)
        u, noise = noise.uniform(y)
        # one table for each time
        time = torch.as_tensor(t, device=y.device, dtype=u.dtype)
        time, which = torch.unique(time, return_inverse=True)
        top = ((9 + self.dim**0.5) * time.sqrt()).clamp(max=torch.pi)

        def density(r: Tensor) -> Tensor:
            value = self.radial(r, time[:, None, None])[0]
            return (value - value.amax((1, 2), keepdim=True)).exp() * self.area(r)

        scale = draw(u, which.expand(len(y)), top, density).to(y) / self.inner(z, z).sqrt()
        return self.exp(y, scale.reshape(-1, *[1] * len(self.shape)) * z), noise
