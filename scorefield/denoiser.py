r"""A denoiser: a network, a parametrization and a process make a score field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.field import Estimate, ScoreField, Shape
from scorefield.parametrization import Parametrization
from scorefield.process import Process, cast

Label = Callable[[Process, Tensor], Tensor]


def noise_label(process: Process, t: Tensor) -> Tensor:
    """Return ``log(sigma / alpha) / 4``, EDM's label, the same for any process.

    At ``alpha = 0``, where it is infinite, the label of ``sigma / alpha = e^12`` is given.
    """
    return -process.half_log_snr(t).clamp(min=-12.0) / 4


def time_label(process: Process, t: Tensor) -> Tensor:
    """Return ``t`` itself, as networks trained on one process's own clock expect."""
    return t


class Denoiser(ScoreField):
    """A score field from a trained network: ``x0 = skip x + out network(scale x, label)``.

    Args:
        network: a module called as ``network(x, label, **condition)`` with ``x`` ``(B, *shape)``
            and ``label`` ``(B,)``, both of the parameters' type, which need not be the state's;
            returns ``(B, *shape)``.
        process: the process of the noisy data.
        parametrization: what the network predicts.
        shape: the shape of one sample.
        mean, variance: the data's moments, as in `ScoreField`.
        label: how the network is told the noise level.

    Raises:
        ValueError: the parametrization has no finite coefficients at one of the process's ends.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        parametrization: Parametrization,
        shape: Shape,
        mean: float | Tensor = 0.0,
        variance: float | Tensor = 1.0,
        label: Label = noise_label,
    ) -> None:
        super().__init__(process, shape, mean, variance)
        for end in (process.t_min, process.t_max):
            coefficients = process.coefficients(torch.tensor(end, dtype=torch.float64))
            if not all(c.isfinite() for c in parametrization(*coefficients)):
                raise ValueError(
                    f"{parametrization!r} has no finite coefficients at t = {end:g}, where alpha = "
                    f"{coefficients[0]:g} and sigma = {coefficients[1]:g}: use V, Velocity or "
                    "Preconditioned, or end the process before it."
                )
        self.network = network
        self.parametrization = parametrization
        self.label = label

    def estimate(self, x: Tensor, t: Tensor, **condition: Any) -> Estimate:
        return self.parametrization.estimate(
            self.process, x, t, self.output(x, t, **condition).to(x)
        )

    def output(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Return the bare network's output at ``x`` ``(B, *shape)`` and aligned ``t``."""
        scale = self.parametrization(*self.process.coefficients(t)).scale
        seen = (cast(scale, x) * x).to(next(self.network.parameters(), x).dtype)
        label = self.label(self.process, t).to(seen).reshape(-1).expand(len(seen))
        result: Tensor = self.network(seen, label, **condition)
        return result
