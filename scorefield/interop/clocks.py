r"""The timesteps of diffusers as times of a process, and back, by kind of network.

==========  ===========================  =====================  ================  ==============
kind        process                      timestep of ``t``      noise level       prediction
==========  ===========================  =====================  ================  ==============
table       `Tabulated`                  ``t``, a row           sigma / alpha     eps, x0 or v
flow        ``(1 - t) x_0 + t eps``      ``T t``                ``t``             eps - x_0
EDM         ``x_0 + t eps``              ``log(t) / 4``         ``t``             preconditioned
==========  ===========================  =====================  ================  ==============

Grids have the names and the spacing of diffusers; ``"balanced"`` is `scorefield.process.balanced`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scorefield.field import Coefficients, Parametrization, V, Velocity
from scorefield.process import EDM, Flow, Process, Tabulated, balanced, karras, time_near

SPACINGS = ("balanced", "leading", "linspace", "trailing")
SHIFTS = ("exponential", "linear")
_PURE = 4096.0  # the noise level of diffusers for rows without signal


@dataclass(frozen=True)
class Negated(Parametrization):
    """The opposite of a parametrization's prediction."""

    base: Parametrization

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        skip, out, scale = self.base(alpha, sigma)
        return Coefficients(skip, -out, scale)


@dataclass(frozen=True)
class Levels:
    """Noise levels between the first and the last of a grid, replaced by another spacing.

    Args:
        kind: ``"karras"``, ``"exponential"``, ``"beta"``, or None to keep them.
        rho: the power of Karras's.
        least, most: the ends, by default those of the grid.
    """

    kind: str | None = None
    rho: float = 7.0
    least: float | None = None
    most: float | None = None

    def __call__(self, levels: Tensor) -> Tensor:
        """Return as many decreasing levels.

        Raises:
            ImportError: ``"beta"`` without scipy.
        """
        if self.kind is None or len(levels) < 2:
            return levels
        most = float(levels[0].clamp(max=_PURE)) if self.most is None else self.most
        least = float(levels[-1]) if self.least is None else self.least
        share = torch.linspace(0, 1, len(levels), dtype=torch.float64)
        if self.kind == "karras":
            one, other = most ** (1 / self.rho), least ** (1 / self.rho)
            result: Tensor = (one + share * (other - one)) ** self.rho
            return result
        if self.kind == "exponential":
            return most * (share * math.log(least / most)).exp()
        from scipy.stats import beta

        share = torch.from_numpy(np.asarray(beta.ppf(1 - share.numpy(), 0.6, 0.6)))
        return least + share * (most - least)


class Clock(ABC):
    """The relation of timesteps and times for a kind of network.

    Attributes:
        process: the process of the samples.
        prediction: the parametrization of the network.
        velocity: the parametrization of `get_velocity`.
        whole: timesteps are whole numbers where the times are.
        starts_at_one: pipelines start with noise of deviation 1, whatever the first time is.
    """

    process: Process
    prediction: Parametrization
    velocity: ClassVar[Parametrization]
    whole: ClassVar[bool] = False
    starts_at_one: ClassVar[bool] = True

    @abstractmethod
    def every(self) -> Tensor:
        """Return the timesteps of all of training, from noise to data."""

    @abstractmethod
    def timestep(self, t: Tensor) -> Tensor:
        """Return the timesteps of times."""

    @abstractmethod
    def time(self, timestep: Tensor) -> Tensor:
        """Return the times of timesteps, float64."""

    @abstractmethod
    def level(self, t: Tensor) -> Tensor:
        """Return the noise levels of times, which diffusers calls sigmas."""

    @abstractmethod
    def spaced(self, count: int, mu: float | None) -> Tensor:
        """Return ``count`` decreasing times."""

    @abstractmethod
    def of_sigmas(self, sigmas: Tensor, mu: float | None) -> Tensor:
        """Return the times of a pipeline's own ``sigmas``, all positive."""

    def unshifted(self, t: Tensor, mu: float | None) -> Tensor:
        """Return the timesteps of times for a pipeline that passes its own, and ``sigmas``.

        Raises:
            ValueError: not a flow.
        """
        raise ValueError("timesteps and sigmas cannot be combined: give one of them.")

    def scale(self, t: Tensor) -> Tensor:
        """Return the number that scales a sample to the network's input."""
        return self.prediction(*self.process.coefficients(t))[2]


@dataclass(frozen=True)
class TableClock(Clock):
    """The clock of a table: one timestep per row."""

    process: Tabulated
    prediction: Parametrization
    spacing: str
    offset: int
    levels: Levels = Levels()
    velocity: ClassVar[Parametrization] = V()
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise ValueError(f"timestep_spacing={self.spacing!r}: must be one of {SPACINGS}.")

    def every(self) -> Tensor:
        return torch.arange(len(self.process.alpha_bar)).flip(0)

    def timestep(self, t: Tensor) -> Tensor:
        return t

    def time(self, timestep: Tensor) -> Tensor:
        return timestep.double()

    def level(self, t: Tensor) -> Tensor:
        return torch.exp(-self.process.half_log_snr(t))

    def spaced(self, count: int, mu: float | None) -> Tensor:
        times = self._rows(count)
        if self.levels.kind is None or count < 2:
            return times
        respaced = self.of_sigmas(self.levels(self.level(times)), mu)
        return torch.cat([times[:1], respaced[1:]]) if bool(self._lost(times[0])) else respaced

    def _rows(self, count: int) -> Tensor:
        rows = len(self.process.alpha_bar)
        if self.spacing == "balanced":
            return self._balanced(count)
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

    def _balanced(self, count: int) -> Tensor:
        last = torch.tensor(self.process.t_max, dtype=torch.float64)
        if count == 1:
            return last[None]
        lost = bool(self._lost(last))
        start = time_near(self.process, _PURE) if lost else None
        times = balanced(self.process, count - 1, start=start)
        return torch.cat([last[None], times[1:]]) if lost else times

    def _lost(self, t: Tensor) -> Tensor:
        return self.process.alpha(t) == 0

    def of_sigmas(self, sigmas: Tensor, mu: float | None) -> Tensor:
        return self.process.time(-sigmas.log())


@dataclass(frozen=True)
class FlowClock(Clock):
    """The clock of a flow, whose grids are shifted towards noise.

    Args:
        process: the flow, to ``t = 1``.
        prediction: `Velocity`, or its opposite if the timesteps rise from 0 (``invert``).
        unit: the number ``T`` of training timesteps.
        shift: ``s`` of ``t -> s t / (1 + (s - 1) t)``.
        dynamic: compute ``s`` from the pipeline's ``mu`` instead.
        kind: ``"exponential"`` for ``s = exp(mu)``, ``"linear"`` for ``s = mu``.
        terminal: stretch grids to this last time.
        invert: the network counts timesteps from the noise: ``T (1 - t)``.
    """

    process: Flow
    prediction: Parametrization
    unit: int
    shift: float
    dynamic: bool
    kind: str
    terminal: float | None = None
    invert: bool = False
    levels: Levels = Levels()
    velocity: ClassVar[Parametrization] = Velocity()

    def __post_init__(self) -> None:
        if self.kind not in SHIFTS or not 0 < self.shift < math.inf:
            raise ValueError(
                f"time_shift_type={self.kind!r}, shift={self.shift!r}: must be one of {SHIFTS}, "
                "and a positive number."
            )
        if self.terminal is not None and not 0 < self.terminal < 1:
            raise ValueError(f"shift_terminal={self.terminal!r}: must be between 0 and 1.")

    def every(self) -> Tensor:
        t = torch.arange(self.unit, 0, -1).double() / self.unit
        return self.timestep(t if self.dynamic else self._shifted(t, self.shift)).float()

    def timestep(self, t: Tensor) -> Tensor:
        return self.unit * (1 - t if self.invert else t)

    def time(self, timestep: Tensor) -> Tensor:
        t = timestep.double() / self.unit
        return 1 - t if self.invert else t

    def level(self, t: Tensor) -> Tensor:
        return 1 - t if self.invert else t

    def spaced(self, count: int, mu: float | None) -> Tensor:
        least = torch.tensor(1 / self.unit, dtype=torch.float64)
        # diffusers spaces already shifted times evenly, and shifts them again
        least = least if self.dynamic else self._shifted(least, self.shift)
        return self.of_sigmas(torch.linspace(1, float(least), count, dtype=torch.float64), mu)

    def of_sigmas(self, sigmas: Tensor, mu: float | None) -> Tensor:
        if float(sigmas[0]) > 1:
            raise ValueError(f"sigmas={float(sigmas[0]):g}, ...: must be at most 1 for a flow.")
        times = self._shifted(sigmas, self._shift(mu))
        if self.terminal is not None and len(times) > 1:
            times = 1 - (1 - times) * (1 - self.terminal) / (1 - times[-1])
        return self.levels(times)

    def unshifted(self, t: Tensor, mu: float | None) -> Tensor:
        """Return the timesteps of times before the shift, which some networks are called with."""
        return self.timestep(self._shifted(t, 1 / self._shift(mu)))

    def _shift(self, mu: float | None) -> float:
        if not self.dynamic:
            return self.shift
        if mu is None:
            raise ValueError("mu=None: use_dynamic_shifting needs set_timesteps(..., mu=...).")
        return math.exp(mu) if self.kind == "exponential" else mu

    def _shifted(self, t: Tensor, shift: float) -> Tensor:
        return shift * t / (1 + (shift - 1) * t)


@dataclass(frozen=True)
class EDMClock(Clock):
    """The clock of EDM's networks, whose samples are scaled before the network is called."""

    process: EDM
    prediction: Parametrization
    levels: Levels = Levels()
    velocity: ClassVar[Parametrization] = V()
    starts_at_one: ClassVar[bool] = False

    def every(self) -> Tensor:
        return self.timestep(karras(self.process, 999)).float()

    def timestep(self, t: Tensor) -> Tensor:
        return t.log() / 4

    def time(self, timestep: Tensor) -> Tensor:
        return (4 * timestep.double()).exp()

    def level(self, t: Tensor) -> Tensor:
        return t

    def spaced(self, count: int, mu: float | None) -> Tensor:
        if count == 1:
            return torch.tensor([self.process.t_max], dtype=torch.float64)
        ends = torch.tensor([self.process.t_max, self.process.t_min], dtype=torch.float64)
        if self.levels.kind is not None:
            return self.levels(ends[[0, *[1] * (count - 1)]])
        return balanced(self.process, count - 1)

    def of_sigmas(self, sigmas: Tensor, mu: float | None) -> Tensor:
        return sigmas
