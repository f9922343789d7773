r"""A space: a Riemannian manifold whose Brownian motion has a heat kernel that can be computed.

Points and tangent vectors are tensors of an ambient space, with any leading dimensions. Brownian
motion ``dx = dw`` has the generator ``1/2`` of the Laplacian. After the time ``t`` from ``y`` it
has the density ``p_t(x | y)``, the heat kernel, relative to the volume of the space.

Tangent vectors at ``x`` are coordinates of the space around ``x``, with the point ``exp(x, v)`` at
``v``. A vector field ``w`` reads there ``(d exp_x)_v^{-1} w(exp(x, v))``, which is `pull_back`. A
method for differential equations of vectors keeps its order in these coordinates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.noise import Noise
from scorefield.process import Prior
from scorefield.spaces.kernels import Table, log_area

Shape = tuple[int, ...]


class HeatKernel(NamedTuple):
    """The heat kernel at points ``x``.

    Attributes:
        log_prob: ``log p_t(x | y)``, ``(...)``.
        score: its gradient in ``x``, a tangent vector at ``x``, shaped as ``x``.
    """

    log_prob: Tensor
    score: Tensor


@dataclass(frozen=True)
class Uniform:
    """The uniform distribution of a space, with the methods of `scorefield.process.Prior`."""

    space: Space

    def draw(self, eps: Tensor) -> Tensor:
        """Return uniform points made from standard normal numbers ``(B, *shape)``."""
        return self.space.spread(eps)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return minus the log of the volume, ``(B,)``."""
        return torch.full_like(x.flatten(1)[:, 0], -self.space.log_volume)

    def standard(self, x: Tensor) -> Tensor:
        """Return the points themselves."""
        return x

    raw = standard

    def trace(self, r: float) -> float:
        """Return 0: the uniform distribution has no score."""
        return 0.0


class Space(ABC):
    """A manifold with its geodesics, its uniform distribution and its heat kernel.

    A new space has the abstract methods below.

    Attributes:
        metric: the inner product of tangent vectors relative to that of their coordinates.
    """

    metric: float = 1.0

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
    def log_volume(self) -> float:
        """The logarithm of the volume of the manifold."""

    @property
    def volume(self) -> float:
        """The volume of the manifold, infinite also where a number cannot hold it."""
        return math.exp(self.log_volume) if self.log_volume < 709 else math.inf

    @property
    def earliest(self) -> float:
        """The time from which heat kernels are computed."""
        return 0.0

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

    @abstractmethod
    def pull_back(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vector at ``x`` of which the derivative of `exp` at ``v`` makes ``w``.

        ``w`` is a tangent vector at ``exp(x, v)``.
        """

    @abstractmethod
    def spread(self, z: Tensor) -> Tensor:
        """Return uniform points made from standard normal numbers ``(..., *shape)``.

        Raises:
            ValueError: the volume is infinite.
        """

    def coordinates(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return numbers of unit size for a network, ``(..., n)``, smooth in the point.

        ``sigma`` is the deviation of the noise on data of unit variance, shaped to multiply ``x``.
        """
        return x.flatten(-len(self.shape))

    def noise(self, x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        """Return the estimate of the noise for a network's output, both like ``x``."""
        return self.tangent(x, output)

    def prior(self, gaussian: Prior) -> Any:
        """Return the distribution after a long time of data with a Gaussian's moments."""
        return Uniform(self)

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the inner product of two tangent vectors at one point."""
        product: Tensor = (u * v).flatten(-len(self.shape)).sum(-1)
        return product * self.metric

    def standard_normal(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the standard normal tangent vectors at ``x`` made from standard normal ``z``."""
        return self.tangent(x, z) / math.sqrt(self.metric)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the length of a shortest geodesic between two points."""
        v = self.log(x, y)
        return self.inner(v, v).sqrt()

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        """Return the gradient of a function of ``x`` from its derivatives in the coordinates."""
        return self.standard_normal(x, self.standard_normal(x, derivative))

    def uniform(self, noise: Noise, like: Tensor) -> tuple[Tensor, Noise]:
        """Draw a point for each id of ``noise`` from the uniform distribution, typed as ``like``.

        Raises:
            ValueError: the volume is infinite.
        """
        z, noise = noise.draw(self.shape, like)
        return self.spread(z), noise

    def normal(self, x: Tensor, noise: Noise) -> tuple[Tensor, Noise]:
        """Draw standard normal tangent vectors at points ``(B, *shape)``."""
        z, noise = noise.normal(x)
        return self.standard_normal(x, z), noise

    @abstractmethod
    def heat_kernel(self, x: Tensor, y: Tensor, t: Tensor | float) -> HeatKernel:
        """Return the heat kernel from ``y`` at ``x``, after the time ``t``, of shape ``(...)``.

        Raises:
            ValueError: the kernel cannot be computed to eight digits at this time.
        """

    @abstractmethod
    def heat_step(self, y: Tensor, t: Tensor | float, noise: Noise) -> tuple[Tensor, Noise]:
        """Draw tangent vectors at ``y`` whose ends by `exp` are those of `heat_sample`."""

    def heat_sample(self, y: Tensor, t: Tensor | float, noise: Noise) -> tuple[Tensor, Noise]:
        """Draw from the heat kernel from ``y`` ``(B, *shape)``, after the time ``()`` or ``(B,)``.

        Raises:
            ValueError: the kernel cannot be computed to eight digits at this time.
        """
        v, noise = self.heat_step(y, t, noise)
        return self.exp(y, v), noise

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

    def heat_step(self, y: Tensor, t: Tensor | float, noise: Noise) -> tuple[Tensor, Noise]:
        z, noise = self.normal(y, noise)
        u, noise = noise.uniform(y)
        time, which = torch.unique(torch.as_tensor(t).double().cpu(), return_inverse=True)
        table = Table.join([_table(self, one) for one in time.tolist()])
        r = table.draw(u.cpu(), which.expand(len(y))).to(y)
        scale = r / self.inner(z, z).sqrt()
        return scale.reshape(-1, *[1] * len(self.shape)) * z, noise


@lru_cache(maxsize=8192)
def _table(space: Isotropic, t: float) -> Table:
    """Return the table of the distances of a heat kernel."""

    def density(r: Tensor) -> Tensor:
        value = space.radial(r, torch.tensor(t, dtype=torch.float64))[0]
        return (value - value.amax()).exp() * space.area(r)

    return Table.of(min((9 + space.dim**0.5) * math.sqrt(t), math.pi), density)
