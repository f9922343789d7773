r"""Denoising score matching for every parametrization and weighting.

The loss at noise level ``t`` is a weighted distance between scores::

    lambda(t) || score(x_t, t) - grad log p(x_t | x_0) ||^2,    x_t = alpha x_0 + sigma eps  (1)

Through a parametrization it becomes a distance to the network's own target, with the weight::

    lambda (alpha out / sigma^2)^2                                                           (2)

which is computed in float64 before it multiplies the data. ``lambda = sigma^2`` gives the mean
squared error of eps, DDPM's loss. All losses are means over a sample's coordinates.

Reference: Vincent (2011), denoising score matching; Ho et al. (2020), arXiv:2006.11239; Song et al.
(2021), arXiv:2101.09258 (likelihood weighting); Hang et al. (2023), arXiv:2303.09556 (min-SNR).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.field import Denoiser, Instant, bridge_std
from scorefield.process import Process, Time, align, cast, mix


class Weighting(ABC):
    """``lambda(t)`` of (1)."""

    @abstractmethod
    def __call__(self, at: Instant) -> Tensor:
        """Return the weight at a time, in the shape of ``at.t``."""


@dataclass(frozen=True)
class Simple(Weighting):
    """``sigma^2``: the unweighted error of eps. Named after DDPM's simple loss."""

    def __call__(self, at: Instant) -> Tensor:
        return torch.as_tensor(at.sigma**2)


@dataclass(frozen=True)
class LikelihoodWeighting(Weighting):
    """``g^2``: with uniform times, a bound on the log-likelihood."""

    def __call__(self, at: Instant) -> Tensor:
        return at.process.diffusion(at.t) ** 2


@dataclass(frozen=True)
class FlowMatching(Weighting):
    """The unweighted error of the velocity, the loss of flow matching; needs ``alpha > 0``.

    The velocity's error is ``sigma' - alpha' sigma / alpha`` times that of eps.

    Reference: Lipman et al. (2023), arXiv:2210.02747.
    """

    def __call__(self, at: Instant) -> Tensor:
        alpha_rate, sigma_rate = at.process.rates(at.t)
        return torch.as_tensor((at.sigma * (sigma_rate - alpha_rate * at.sigma / at.alpha)) ** 2)


@dataclass(frozen=True)
class EDMWeighting(Weighting):
    """Unit weight on EDM's preconditioned output, on any process.

    Args:
        data_std: the data's root-mean-square deviation ``d``.
    """

    data_std: float = 1.0

    def __call__(self, at: Instant) -> Tensor:
        signal, sigma = at.alpha * self.data_std, at.sigma
        return torch.as_tensor((sigma**2 + signal**2) * (sigma / signal) ** 2)


@dataclass(frozen=True)
class MinSNR(Weighting):
    """``sigma^2 min(1, gamma / SNR)``: the error of eps, with less weight at low noise."""

    gamma: float = 5.0

    def __call__(self, at: Instant) -> Tensor:
        inverse_snr = torch.as_tensor((at.sigma / at.alpha) ** 2)
        return at.sigma**2 * (self.gamma * inverse_snr).clamp(max=1.0)


class TimeDistribution(ABC):
    """A distribution of training times: a map from uniform numbers to times."""

    @abstractmethod
    def __call__(self, process: Process, u: Tensor) -> Tensor:
        """Return the times ``(B,)`` at the quantiles ``u`` ``(B,)`` in (0, 1)."""


@dataclass(frozen=True)
class UniformTimes(TimeDistribution):
    """Times uniform on ``[t_min, t_max]``; never 0, where the target is unbounded."""

    def __call__(self, process: Process, u: Tensor) -> Tensor:
        return process.t_min + u * (process.t_max - process.t_min)


@dataclass(frozen=True)
class LogitNormalTimes(TimeDistribution):
    """Times whose place ``p`` in ``[t_min, t_max]`` has a normal ``log(p / (1 - p))``.

    Reference: Esser et al. (2024), arXiv:2403.03206, section 3.1.
    """

    logit_mean: float = 0.0
    logit_std: float = 1.0

    def __call__(self, process: Process, u: Tensor) -> Tensor:
        normal = math.sqrt(2) * torch.erfinv(2 * u - 1)
        place = torch.sigmoid(self.logit_mean + self.logit_std * normal)
        return process.t_min + place * (process.t_max - process.t_min)


@dataclass(frozen=True)
class LogNormalTimes(TimeDistribution):
    """``log(sigma / alpha)`` normal with this mean and deviation, clamped to the interval.

    Reference: Karras et al. (2022), arXiv:2206.00364, table 1.
    """

    mean: float = -0.4
    std: float = 1.4

    def __call__(self, process: Process, u: Tensor) -> Tensor:
        low, high = process.half_log_snr_range
        normal = math.sqrt(2) * torch.erfinv(2 * u - 1)
        return process.time((-(self.mean + self.std * normal)).clamp(low, high))


@dataclass(frozen=True)
class Objective:
    """The loss (1) of a denoiser.

    Args:
        weighting: ``lambda``.
        times: the distribution of noise levels.
    """

    weighting: Weighting
    times: TimeDistribution

    def loss(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Time,
        eps: Tensor,
        z: Tensor | None = None,
        /,  # a condition may have one of these names
        **condition: Any,
    ) -> Tensor:
        """Return the loss of each sample, shape ``(B,)``.

        Args:
            x0: data ``(B, *shape)``, in the field's units; NaN after the end of a signal.
            t: one time per sample, ``(B,)``, or one for all.
            eps: standard normal noise, like ``x0``.
            z: that of the bridges of a denoiser with `ScoreField.bridge`, like ``x0``.
        """
        process, t = denoiser.process, align(t, x0)
        # computed once: apart from these, a step calls the process only for the label
        alpha, sigma = process.coefficients(t)
        (prepared,) = denoiser.prepare_times(t[None], alpha[None], sigma[None])
        at = Instant(process, t, alpha, sigma, prepared)
        _, out, _ = denoiser.parametrization(alpha, sigma)
        weight = self.weighting(at) * (alpha * out / sigma**2) ** 2
        if process.space is None:
            x = cast(alpha, x0) * x0 + cast(sigma, x0) * eps
        else:
            x = process.perturb(x0, t, eps)
            eps = process.target_noise(x0, x, t, eps)
        target = denoiser.parametrization.target(alpha, sigma, x0, eps)
        if z is not None:
            x = x + cast(torch.as_tensor(bridge_std(at, denoiser.bridge)), x) * z
            target = torch.cat([target, z], 1)
        output = denoiser.ask(mix((prepared.scale, x)), prepared.label, **condition)
        error = output.to(x.dtype) - target
        if x0.ndim == 3:  # signals, with NaN after the end in every channel
            here = ~x0[:, :1].isnan()
            losses = cast(weight, x) * error.where(here, 0.0) ** 2
            return losses.flatten(1).sum(1) / (error.shape[1] * here.flatten(1).sum(1))
        return (cast(weight, x) * error**2).flatten(1).mean(1)
