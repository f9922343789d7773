r"""The timesteps of diffusers as times of a process, and back.

For tables of ``abar`` a timestep is an index of the table, which is the time of `Tabulated`; for
flow models it is ``T t`` with the time ``t`` of `Flow` and ``T`` training timesteps. Grids are
named and spaced as those of diffusers; ``"balanced"`` is `scorefield.process.balanced`.
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
    """How the timesteps of a kind of model count time.

    Attributes:
        process: the process its network was trained on.
        unit: how many timesteps are in a unit of the process's time.
        velocity: what a network of velocities predicts.
    """

    process: Process
    unit: int
    velocity: ClassVar[Parametrization]

    @abstractmethod
    def spaced(self, count: int, mu: float | None) -> Tensor:
        """Return ``count`` falling times for as many timesteps."""

    @abstractmethod
    def of_sigmas(self, sigmas: Tensor, mu: float | None) -> Tensor:
        """Return the times of a pipeline's own ``sigmas``, all above 0."""


@dataclass(frozen=True)
class TableClock(Clock):
    """The clock of a table: one timestep a row."""

    process: Tabulated
    spacing: str
    offset: int
    unit: int = 1
    velocity: ClassVar[Parametrization] = V()

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise ValueError(f"timestep_spacing = {self.spacing!r}: give one of {SPACINGS}.")
        if self.spacing == "balanced" and not bool(self._signal > 0):
            raise ValueError(
                'timestep_spacing = "balanced" on a table that ends in alpha = 0, where log-SNR is '
                'infinite: give "trailing".'
            )

    def spaced(self, count: int, mu: float | None) -> Tensor:
        rows = len(self.process.alpha_bar)
        if self.spacing == "balanced":
            if count == 1:
                return torch.tensor([self.process.t_max], dtype=torch.float64)
            return balanced(self.process, count - 1)
        if count > rows:
            raise ValueError(
                f"num_inference_steps = {count} on a table of {rows} rows: give at most {rows}, or "
                'timestep_spacing="balanced", whose timesteps need not be whole.'
            )
        if self.spacing == "leading":
            return torch.arange(count).flip(0).double() * (rows // count) + self.offset
        if self.spacing == "linspace":
            # numpy's and torch's numbers differ by a rounding error, which decides at halves
            return torch.from_numpy(np.linspace(0, rows - 1, count)).round().flip(0)
        return torch.from_numpy(np.arange(rows, 0, -rows / count)).round() - 1

    def of_sigmas(self, sigmas: Tensor, mu: float | None) -> Tensor:
        return self.process.time(-sigmas.log())

    @property
    def _signal(self) -> Tensor:
        return self.process.alpha(torch.tensor(self.process.t_max, dtype=torch.float64))


@dataclass(frozen=True)
class FlowClock(Clock):
    """The clock of a flow model, its grids shifted towards noise.

    Args:
        process: the flow; what of a grid lies above its ``t_max`` is moved below it.
        unit: the number of training timesteps.
        shift: ``s`` of ``t -> s t / (1 + (s - 1) t)``.
        dynamic: take ``s`` from the pipeline's ``mu`` instead.
        kind: how: ``"exponential"`` as ``exp(mu)``, ``"linear"`` as ``mu`` itself.
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
                f"time_shift_type = {self.kind!r} and shift = {self.shift!r}: give one of {SHIFTS} "
                "and a positive number."
            )

    def spaced(self, count: int, mu: float | None) -> Tensor:
        least = torch.tensor(1 / self.unit, dtype=torch.float64)
        # what diffusers spaces evenly is shifted before as well as after
        least = least if self.dynamic else self._shifted(least, self.shift)
        return self.of_sigmas(torch.linspace(1, float(least), count, dtype=torch.float64), mu)

    def of_sigmas(self, sigmas: Tensor, mu: float | None) -> Tensor:
        if float(sigmas[0]) > 1:
            raise ValueError(f"sigmas from {float(sigmas[0]):g}: a flow's are at most 1.")
        if self.dynamic and mu is None:
            raise ValueError("use_dynamic_shifting needs mu: give set_timesteps(..., mu=...).")
        if not self.dynamic or mu is None:
            return self._inside(self._shifted(sigmas, self.shift))
        shift = math.exp(mu) if self.kind == "exponential" else mu
        return self._inside(self._shifted(sigmas, shift))

    def _shifted(self, t: Tensor, shift: float) -> Tensor:
        return shift * t / (1 + (shift - 1) * t)

    def _inside(self, times: Tensor) -> Tensor:
        """Return the times with those above ``t_max`` spread from there to the next one below."""
        above = int((times > self.process.t_max).sum())
        ends = self.process.t_max, float(times[above]) if above < len(times) else self.process.t_min
        spread = torch.linspace(*ends, above + 1, dtype=torch.float64)[:-1]
        return torch.cat([spread, times[above:]])


def listed(calls: Sequence[float], unit: int) -> Tensor:
    """Return the timesteps of calls, no two of them equal: int64 if all are whole, else float32.

    Where calls share a time the earlier ones are listed above it by a rounding error, so that a
    timestep tells which call it is.
    """
    if unit == 1 and len({*calls}) == len(calls) and all(t == round(t) for t in calls):
        return torch.tensor(calls).long()
    made: list[float] = []
    for t in reversed(calls):
        value = np.float32(unit * t)
        while float(value) in made:
            value = np.nextafter(np.float32(value + 1e-6), np.float32(math.inf))
        made.append(float(value))
    return torch.tensor(made[::-1], dtype=torch.float32)


def falling(name: str, given: Sequence[float]) -> Tensor:
    """Return numbers from a pipeline, an end of ``sigmas`` at 0 left out: float64 ``(N,)``.

    Raises:
        ValueError: they do not fall, are not finite, or not above 0 as ``sigmas``; there is none.
    """
    found = torch.as_tensor(np.asarray(given), dtype=torch.float64)
    if found.ndim == 1 and name == "sigmas":
        found = found[: -1 if found[-1:].eq(0).any() else None]
    if found.ndim != 1 or len(found) == 0 or not bool((found.diff() < 0).all()):
        raise ValueError(f"{name} = {given!r}: give falling numbers, one at least.")
    if not bool(found.isfinite().all()) or (name == "sigmas" and not float(found[-1]) > 0):
        raise ValueError(f"{name} = {given!r}: give finite numbers, and sigmas above 0.")
    return found


def check_count(name: str, count: int | None) -> int:
    """Return a number of steps, or refuse what is none."""
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{name} = {count!r}: give a whole number, one at least.")
    return count


def check_grid(process: Process, times: Tensor) -> Tensor:
    """Return times that calls can be made at, one or more.

    Raises:
        ValueError: see `scorefield.process.check_times`.
    """
    if len(times) != 1:
        return check_times(process, times)
    if not process.contains(times):
        raise ValueError(
            f"t = {float(times):g} is outside [{process.t_min:g}, {process.t_max:g}], the times of "
            f"{process!r}."
        )
    return times
