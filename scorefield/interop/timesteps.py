r"""The timesteps of diffusers as times of a process, and back.

For tables of ``abar`` a timestep is an index of the table, which is the time of `Tabulated`. For
flow models it is ``T t`` with the time ``t`` of `Flow` and ``T`` training timesteps. Grids have the
names and the spacing of diffusers; ``"balanced"`` is `scorefield.process.balanced`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scorefield.field import Parametrization, V, Velocity
from scorefield.process import Flow, Process, Tabulated, balanced, check_times

SPACINGS = ("balanced", "leading", "linspace", "trailing")
SHIFTS = ("exponential", "linear")


class Clock(ABC):
    """The relation of timesteps and times for a kind of model.

    Attributes:
        process: the process that the network was trained on.
        unit: the number of timesteps in a unit of time.
        velocity: the parametrization of a velocity prediction.
    """

    process: Process
    unit: int
    velocity: ClassVar[Parametrization]

    @abstractmethod
    def spaced(self, count: int, mu: float | None) -> Tensor:
        """Return ``count`` decreasing times."""

    @abstractmethod
    def of_sigmas(self, sigmas: Tensor, mu: float | None) -> Tensor:
        """Return the times of a pipeline's own ``sigmas``, all positive."""


@dataclass(frozen=True)
class TableClock(Clock):
    """The clock of a table: one timestep per row."""

    process: Tabulated
    spacing: str
    offset: int
    unit: int = 1
    velocity: ClassVar[Parametrization] = V()

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise ValueError(f"timestep_spacing={self.spacing!r}: must be one of {SPACINGS}.")
        if self.spacing == "balanced" and not bool(self._signal > 0):
            raise ValueError(
                'timestep_spacing="balanced": the table ends at alpha = 0; use "trailing".'
            )

    def spaced(self, count: int, mu: float | None) -> Tensor:
        rows = len(self.process.alpha_bar)
        if self.spacing == "balanced":
            if count == 1:
                return torch.tensor([self.process.t_max], dtype=torch.float64)
            return balanced(self.process, count - 1)
        if count > rows:
            raise ValueError(
                f"num_inference_steps={count}: must be at most {rows}, the rows of the table, "
                'except with timestep_spacing="balanced", whose timesteps need not be whole.'
            )
        if self.spacing == "leading":
            return torch.arange(count).flip(0).double() * (rows // count) + self.offset
        if self.spacing == "linspace":
            # as diffusers: torch's numbers differ by a rounding error, which matters at halves
            return torch.from_numpy(np.linspace(0, rows - 1, count)).round().flip(0)
        return torch.from_numpy(np.arange(rows, 0, -rows / count)).round() - 1

    def of_sigmas(self, sigmas: Tensor, mu: float | None) -> Tensor:
        return self.process.time(-sigmas.log())

    @property
    def _signal(self) -> Tensor:
        return self.process.alpha(torch.tensor(self.process.t_max, dtype=torch.float64))


@dataclass(frozen=True)
class FlowClock(Clock):
    """The clock of a flow model, whose grids are shifted towards noise.

    Args:
        process: the flow; grid times above its ``t_max`` are moved below it.
        unit: the number of training timesteps.
        shift: ``s`` of ``t -> s t / (1 + (s - 1) t)``.
        dynamic: compute ``s`` from the pipeline's ``mu`` instead.
        kind: ``"exponential"`` for ``s = exp(mu)``, ``"linear"`` for ``s = mu``.
    """

    process: Flow
    unit: int
    shift: float
    dynamic: bool
    kind: str
    velocity: ClassVar[Parametrization] = Velocity()

    def __post_init__(self) -> None:
        if self.kind not in SHIFTS or not 0 < self.shift < math.inf:
            raise ValueError(
                f"time_shift_type={self.kind!r}, shift={self.shift!r}: must be one of {SHIFTS}, "
                "and a positive number."
            )

    def spaced(self, count: int, mu: float | None) -> Tensor:
        least = torch.tensor(1 / self.unit, dtype=torch.float64)
        # diffusers spaces already shifted times evenly, and shifts them again
        least = least if self.dynamic else self._shifted(least, self.shift)
        return self.of_sigmas(torch.linspace(1, float(least), count, dtype=torch.float64), mu)

    def of_sigmas(self, sigmas: Tensor, mu: float | None) -> Tensor:
        if float(sigmas[0]) > 1:
            raise ValueError(f"sigmas={float(sigmas[0]):g}, ...: must be at most 1 for a flow.")
        if self.dynamic and mu is None:
            raise ValueError("mu=None: use_dynamic_shifting needs set_timesteps(..., mu=...).")
        if not self.dynamic or mu is None:
            return self._inside(self._shifted(sigmas, self.shift))
        shift = math.exp(mu) if self.kind == "exponential" else mu
        return self._inside(self._shifted(sigmas, shift))

    def _shifted(self, t: Tensor, shift: float) -> Tensor:
        return shift * t / (1 + (shift - 1) * t)

    def _inside(self, times: Tensor) -> Tensor:
        """Return the times; those above ``t_max`` are spread evenly down to the next one below."""
        above = int((times > self.process.t_max).sum())
        ends = self.process.t_max, float(times[above]) if above < len(times) else self.process.t_min
        spread = torch.linspace(*ends, above + 1, dtype=torch.float64)[:-1]
        return torch.cat([spread, times[above:]])


def timesteps_of(calls: Sequence[float], unit: int) -> Tensor:
    """Return distinct timesteps of calls: int64 if all are whole, else float32.

    If calls share a time, the earlier ones are a rounding error above it, so that a timestep
    identifies its call.
    """
    if unit == 1 and len({*calls}) == len(calls) and all(t == round(t) for t in calls):
        return torch.tensor(calls).long()
    values: list[float] = []
    for t in reversed(calls):
        value = np.float32(unit * t)
        while float(value) in values:
            value = np.nextafter(np.float32(value + 1e-6), np.float32(math.inf))
        values.append(float(value))
    return torch.tensor(values[::-1], dtype=torch.float32)


def falling(name: str, numbers: Sequence[float]) -> Tensor:
    """Return a pipeline's decreasing numbers, float64 ``(N,)``, without a last 0 of ``sigmas``.

    Raises:
        ValueError: they do not decrease, are not finite, or none; ``sigmas`` are not positive.
    """
    values = torch.as_tensor(np.asarray(numbers), dtype=torch.float64)
    if values.ndim == 1 and name == "sigmas":
        values = values[: -1 if values[-1:].eq(0).any() else None]
    if values.ndim != 1 or len(values) == 0 or not bool((values.diff() < 0).all()):
        raise ValueError(f"{name}={numbers!r}: must be decreasing numbers, at least one.")
    if not bool(values.isfinite().all()) or (name == "sigmas" and not float(values[-1]) > 0):
        raise ValueError(f"{name}={numbers!r}: must be finite, and sigmas positive.")
    return values


def check_count(name: str, count: int | None) -> int:
    """Return a number of steps.

    Raises:
        ValueError: not a whole number, or below 1.
    """
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{name}={count!r}: must be a whole number, at least 1.")
    return count


def check_grid(process: Process, times: Tensor) -> Tensor:
    """Return times, one or more, that are inside the process.

    Raises:
        ValueError: as `scorefield.process.check_times`.
    """
    if len(times) != 1:
        return check_times(process, times)
    if not process.contains(times):
        raise ValueError(
            f"t = {float(times):g} is outside [{process.t_min:g}, {process.t_max:g}], the times of "
            f"{process!r}."
        )
    return times
