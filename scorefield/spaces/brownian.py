r"""Brownian motion on a space, as a process."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield.process import EDM, Process, check_instance
from scorefield.spaces.base import Space
from scorefield.spaces.flat import Euclidean
from scorefield.spaces.product import Product


@dataclass(frozen=True)
class Brownian(Process):
    """Brownian motion on a space, with the clock of `EDM`.

    At ``t`` it has run for the time ``t^2``, so the density of ``x_t`` given ``x_0`` is the heat
    kernel of that time. On `Euclidean` it is EDM. A field on a space has tangent vectors as
    ``score``, ``velocity`` and ``eps``, which is ``-t score``; ``x0`` is the end of the geodesic
    from ``x`` with the velocity ``-t eps``.

    Args:
        space: the space of the samples.
        t_min: at least 0.0032, and 0.0064 with rotations, where heat kernels are exact.
        t_max: where samples start from the uniform distribution, and Euclidean parts from a
            Gaussian; by default 10, or 80 if there are such parts.

    Raises:
        ValueError: another kind of space; as `Process`.
    """

    space: Space
    t_min: float = 0.01
    t_max: float = math.inf

    def __post_init__(self) -> None:
        check_instance("space", self.space, Space, "one such as Sphere(2)")
        if self.t_max == math.inf:
            object.__setattr__(self, "t_max", 10.0 if self.space.log_volume < math.inf else 80.0)
        super().__post_init__()

    @property
    def flat(self) -> EDM:
        """The process of tangent vectors at one point."""
        return EDM(self.t_min, self.t_max)

    def beside(self, d: int) -> Brownian:
        """Return the process of points with ``d`` more numbers, flat."""
        return replace(self, space=Product(self.space, Euclidean(d)))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t * 1.0

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return torch.exp(-half_log_snr)
