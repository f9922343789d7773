r"""A denoiser: a network, a parametrization and a process make a score field.

The parametrization says how both posterior means follow from the network's output; equations (1)
and (2) are those of `scorefield.field.parametrization`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scorefield.field.base import Estimate, Instant, Pair, ScoreField, Shape
from scorefield.field.parametrization import Parametrization, Velocity
from scorefield.process import Coefficient, Flow, Process, check_instance, mix, unstack

Label = Callable[[Process, Tensor], Tensor]


def noise_label(process: Process, t: Tensor) -> Tensor:
    """Return ``log(sigma / alpha) / 4``, EDM's label, the same for any process.

    At ``alpha = 0``, where it is infinite, the label of ``sigma / alpha = e^12`` is given.
    """
    return -process.half_log_snr(t).clamp(min=-12.0) / 4


def time_label(process: Process, t: Tensor) -> Tensor:
    """Return ``t`` itself, as networks trained on one process's own clock expect."""
    return t


def ratio_label(process: Process, t: Tensor) -> Tensor:
    """Return ``sigma / alpha``; at ``alpha = 0``, where it is infinite, ``e^12``."""
    return torch.exp(-process.half_log_snr(t).clamp(min=-12.0))


@dataclass(frozen=True)
class Scaled:
    """A label times a number: ``Scaled(time_label, 1000.0)`` for times that end at 1."""

    label: Label
    factor: float

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return self.factor * self.label(process, t)


def bridge_std(at: Instant, bridge: float) -> Coefficient:
    """Return ``bridge sqrt(alpha sigma)``, the deviation of a Brownian bridge at a time of `Flow`.

    ``bridge`` is its diffusion.
    """
    deviation: Coefficient = bridge * (at.alpha * at.sigma) ** 0.5
    return deviation


class PreparedTime(NamedTuple):
    """A time, prepared: type of the network, label, coefficients of (1) and (2)."""

    dtype: torch.dtype | None
    label: Tensor
    scale: Coefficient
    of_x0: Pair
    of_eps: Pair


class Denoiser(ScoreField):
    """A score field from a trained network: ``x0 = skip x + out network(scale x, label)``.

    Args:
        network: a module called as ``network(x, label, **condition)`` with ``x`` ``(B, *shape)``
            and ``label`` ``(B,)``, both of the parameters' type, which need not be the state's;
            returns ``(B, *shape)``.
        process: the process of the noisy data.
        parametrization: the quantity that the network predicts.
        shape: the shape of one sample.
        mean, variance: the data's moments, as in `ScoreField`.
        label: the function of the time that the network takes as its noise label.
        coupled: the network was trained with noise that depends on the data, so that the field has
            no score.
        between_data: the noise was a second data set; see `scorefield.train` with ``to``.
        bridge: the noise ``c`` between two data sets, as in `scorefield.field.bridge`. The network
            then returns ``(B, 2 C, ...)``: the velocity without noise, ``E[x_1 - x_0 | x]``, and
            ``E[z | x]``.

    Raises:
        ValueError: the parametrization has no finite coefficients at one of the process's ends; a
            bridge for other than `Velocity` on `Flow`.
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
        coupled: bool = False,
        between_data: bool = False,
        bridge: float = 0.0,
    ) -> None:
        check_instance("network", network, nn.Module, "an nn.Module")
        check_instance("parametrization", parametrization, Parametrization, "one such as V()")
        super().__init__(process, shape, mean, variance)
        for end in (process.t_min, process.t_max):
            coefficients = process.coefficients(torch.tensor(end, dtype=torch.float64))
            if not all(bool(c.isfinite().all()) for c in parametrization(*coefficients)):
                raise ValueError(
                    f"{parametrization!r} has no finite coefficients at t = {end:g}, where alpha = "
                    f"{coefficients[0].min():g} and sigma = {coefficients[1].min():g}: use V, "
                    "Velocity or Preconditioned, or end the process before it."
                )
        if bridge and not (isinstance(process, Flow) and isinstance(parametrization, Velocity)):
            raise ValueError(
                f"bridge={bridge:g}: is for the process Flow and the parametrization Velocity, not "
                f"{process!r} and {parametrization!r}."
            )
        self.network, self.bridge = network, bridge
        self.parametrization = parametrization
        self.label = label
        self._whole: tuple[Denoiser, ...] = ()  # in a tuple, which registers no module
        self.between_data = between_data or bridge > 0
        self.coupled = coupled or self.between_data

    def around(self, network: nn.Module, coupled: bool | None = None) -> Denoiser:
        """Return the same denoiser with another network, which is called in the same way."""
        coupled = self.coupled if coupled is None else coupled
        parts = self.process, self.parametrization, self.shape, self.mean, self.variance, self.label
        return Denoiser(network, *parts, coupled, self.between_data, self.bridge)

    @property
    def origin(self) -> ScoreField:
        return self._whole[0] if self._whole else self

    def of_length(self, length: int) -> Denoiser:
        """Return the field of signals ``(C, length)``, a view of that of longer signals."""
        result = copy.copy(self)  # with its hooks
        result.shape, result._whole = (self.shape[0], length), (self,)
        result.mean, result.variance = (
            torch.as_tensor(moment).expand(self.shape)[:, :length]
            for moment in (self.mean, self.variance)
        )
        return result

    def prepare_times(self, t: Tensor, alpha: Tensor, sigma: Tensor) -> Sequence[Any]:
        skip, out, scale = self.parametrization(alpha, sigma)
        of_eps = (1 - alpha * skip) / sigma, -alpha * out / sigma
        scales, *columns = (unstack(c) for c in (scale, skip, out, *of_eps))
        pairs = zip(*columns[:2], strict=True), zip(*columns[2:], strict=True)
        labels = self.label(self.process, t)
        parameter = next(self.network.parameters(), None)
        if parameter is not None:
            labels = labels.to(parameter.device, parameter.dtype, non_blocking=True)
        dtype = None if parameter is None else parameter.dtype
        rows = labels.reshape(len(t), -1).unbind()
        return [PreparedTime(dtype, *row) for row in zip(rows, scales, *pairs, strict=True)]

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        dtype, label, scale, of_x0, of_eps = at.prepared
        inputs = x if isinstance(scale, float) and scale == 1 else mix((scale, x))
        if inputs.dtype is not dtype:
            dtype = dtype or x.dtype
            inputs, label = inputs.to(dtype), label.to(dtype)
        network: Any = self._modules["network"]  # as an attribute it costs as much as a kernel
        output: Tensor = network(inputs, label.expand(x.shape[0]), **condition)
        if output.dtype is not x.dtype:
            output = output.to(x)
        if not self.bridge:
            return Estimate(x, at, (x, output), of_x0, of_eps)
        shift, z = output.chunk(2, 1)
        std = bridge_std(at, self.bridge)
        rate = 0.5 * self.bridge**2 * (at.alpha - at.sigma) / std  # of change of std
        velocity = mix((1.0, shift), (rate, z))
        score = mix((-1 / std, z))
        return Estimate(x, at, (x, velocity), of_x0, of_eps, score)

    def ask(self, inputs: Tensor, label: Tensor, **condition: Any) -> Tensor:
        """Return the network's output for its input ``(B, *shape)``, labels ``()`` or ``(B,)``."""
        parameter = next(self.network.parameters(), inputs)
        inputs, label = (v.to(parameter.device, parameter.dtype) for v in (inputs, label))
        result: Tensor = self.network(inputs, label.expand(len(inputs)), **condition)
        return result
