r"""Paths with noise between two data sets, as fields of the Brownian motion of their noise.

Samples ``x_0`` and ``x_1`` of two sets are joined by Brownian bridges, ``t`` from 0 to 1::

    x_t = (1 - t) x_0 + t x_1 + gamma z,    gamma = c sqrt(t (1 - t)),  z ~ N(0, I)     (1)

For any coupling of the pairs, ``u = E[x_1 - x_0 + gamma' z | x_t]`` is the velocity, and the score
is ``s = -E[z | x_t] / gamma``. With falling time, every ``eta`` has the same distributions::

    dx = (u - eta^2 c^2 / 2 s) dt + eta c dw                                            (2)

`Bridge` is the field with which (2) is the reverse SDE, of the same ``eta``, of ``x_0 + c sqrt(t)
eps``, so that solvers with noise serve it. Its score is not that of ``p_t``::

    s_eta = (eta^2 s - 2 u / c^2) / (1 + eta^2)                                         (3)

With ``eta = 1`` its mean of the data is ``E[x_0 | x_t]``, and (2) is the Schrödinger bridge if the
pairs are those of the entropic coupling.

Reference: Albergo, Boffi and Vanden-Eijnden (2023), arXiv:2303.08797; Tong et al. (2023),
arXiv:2307.03672.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.field.base import Estimate, Instant, ScoreField
from scorefield.process import Process, mix


@dataclass(frozen=True)
class _Brownian(Process):
    """``x_t = x_0 + c sqrt(t) eps``."""

    c: float = 1.0
    t_min: float = 1e-3
    t_max: float = 0.999

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.c * t.sqrt()

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return torch.exp(-2 * half_log_snr) / self.c**2


class Bridge(ScoreField):
    """The field of (2) for one ``eta``, for solvers with that much noise.

    Args:
        base: a field between two data sets with ``bridge > 0``.
        eta: the noise of the SDE, relative to that of the bridges.
        back: from ``x_0`` to ``x_1``, on the clock ``1 - t``.

    Raises:
        ValueError: ``eta < 0``; a field without noise between its ends.
    """

    def __init__(self, base: ScoreField, eta: float = 1.0, back: bool = False) -> None:
        if not 0 <= eta < math.inf:
            raise ValueError(f"eta={eta:g}: must be 0 (the ODE) or more.")
        if not base.bridge:
            raise ValueError(
                f"eta={eta:g}: this field has no noise between its two sets; train with bridge "
                "above 0, or use eta=0."
            )
        flow = base.process
        ends = (1 - flow.t_max, 1 - flow.t_min) if back else (flow.t_min, flow.t_max)
        super().__init__(_Brownian(base.bridge, *ends), base.shape)
        # not a part of this field: its noise is no longer that of the flow
        self._base, self.eta, self.back = (base,), eta, back
        self.between_data = True

    def prepare_times(self, t: Tensor, alpha: Tensor, sigma: Tensor) -> Sequence[Instant]:
        (base,) = self._base
        return base.instants(1 - t if self.back else t)

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        (base,) = self._base
        estimate: Estimate = base(x, at.prepared, **condition)
        sign, square = -1.0 if self.back else 1.0, self.eta**2
        of_velocity = -2 * sign / (base.bridge**2 * (1 + square))
        terms = (of_velocity, estimate.velocity), (square / (1 + square), estimate.score)
        return Estimate.from_score(x, at, mix(*terms))
