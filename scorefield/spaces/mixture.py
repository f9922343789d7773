r"""The exact field of a mixture of heat kernels.

Brownian motion from a heat kernel of the time ``s^2`` is, after the time ``t^2``, one of the time
``s^2 + t^2``. So with ``K_t`` for the heat kernel of a space::

    p_t(x) = sum_k w_k K_{s_k^2 + t^2}(x | c_k)                                     (1)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scorefield.field import Estimate, Instant, ScoreField
from scorefield.noise import Noise
from scorefield.process import Time, align, cast, check_instance
from scorefield.spaces.brownian import Brownian


class HeatMixture(ScoreField):
    """The field of a mixture (1) under Brownian motion; on `Euclidean`, a Gaussian mixture.

    Args:
        process: `Brownian` motion.
        weights: ``(K,)``, positive; normalised here.
        centres: points ``(K, *space.shape)``.
        std: ``s_k``, ``(K,)`` or one number, not negative.

    Raises:
        ValueError: another kind of process; numbers out of range; points off the space.
    """

    weights: Tensor
    centres: Tensor
    std: Tensor

    def __init__(
        self, process: Brownian, weights: Tensor, centres: Tensor, std: Tensor | float
    ) -> None:
        check_instance("process", process, Brownian, "Brownian(Sphere(2))")
        process.space.check(centres)
        weights, centres = weights.double(), centres.double()
        if weights.shape != (len(centres),) or not bool((weights > 0).all()):
            raise ValueError(
                f"weights has shape {tuple(weights.shape)}: give one positive number for each of "
                f"{len(centres)} centres."
            )
        std = torch.as_tensor(std, dtype=torch.float64).expand(len(centres)).clone()
        if not bool((std >= 0).all()):
            raise ValueError(f"std={float(std.min()):g}: give numbers of 0 or more.")
        weights = weights / weights.sum()
        share = weights.reshape(-1, *[1] * len(process.space.shape))
        mean = (share * centres).sum(0)
        variance = (share * (centres - mean) ** 2).sum(0) + (weights * std**2).sum()
        super().__init__(process, process.space.shape, mean, variance)
        self.register_buffer("weights", weights)
        self.register_buffer("centres", centres)
        self.register_buffer("std", std)

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        joint, scores = self._components(x, at.t)
        share = joint.softmax(1).reshape(*joint.shape, *[1] * len(self.shape))
        score = (share * scores).sum(1)
        return Estimate.from_eps(x, at, -cast(at.t, score) * score)

    def log_prob(self, x: Tensor, t: Time) -> Tensor:
        """Return ``log p_t`` of each point of ``x`` ``(B, *shape)``, in nats, shape ``(B,)``."""
        return self._components(x, align(t, x))[0].logsumexp(1)

    def data(self, noise: Noise, like: Tensor) -> tuple[Tensor, Noise]:
        """Draw a point of the data for each id of ``noise``, typed as ``like``."""
        choice, noise = noise.uniform(like)
        k = torch.searchsorted(self.weights.cumsum(0), choice).clamp(max=len(self.weights) - 1)
        centres = self.centres[k].to(like)
        drawn: tuple[Tensor, Noise] = self.process.space.heat_sample(
            centres, self.std[k] ** 2, noise
        )
        return drawn

    def _components(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log of each term of (1), ``(B, K)``, and its score ``(B, K, *shape)``."""
        time = t.reshape(-1, 1).to(self.std) ** 2 + self.std**2
        pairs = x[:, None], self.centres.to(x)[None]
        points = (v.expand(len(x), *self.centres.shape) for v in pairs)
        kernel = self.process.space.heat_kernel(*points, time.expand(len(x), -1))
        return self.weights.log().to(x) + kernel.log_prob, kernel.score
