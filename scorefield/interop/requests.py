r"""Requests that share a scheduler: which grid a timestep is from, and where a sample stands.

The one thing here that changes is what is known of tensors that were handed out, and it is theirs:
it is found by the very tensor and goes when that goes. So no request can see another's. What was
returned last in a thread is found by its numbers as well, for pipelines that copy their samples.

A change in place is told by the count that torch keeps of such changes. It does not count those
made behind its back, through ``.data`` or ``.numpy()``.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from scorefield.interop.course import Course
from scorefield.interop.replay import Draw, Place


class Grid(NamedTuple):
    """A course of so many points, and the timesteps of its calls as numbers."""

    course: Course
    values: list[float]
    points: int


class Standing(NamedTuple):
    """Where a sample stands: at which call of which grid.

    ``version`` counts its changes in place.
    """

    grid: Grid
    call: int
    place: Place
    version: int = 0


class Requests:
    """What is known of the timesteps and samples that are about."""

    def __init__(self) -> None:
        self._grids: Any = WeakTensorKeyDictionary()
        self._standing: Any = WeakTensorKeyDictionary()
        self._latest: tuple[Tensor, Grid] | None = None
        self._thread = threading.local()

    @property
    def latest(self) -> tuple[Tensor, Grid] | None:
        """The timesteps that this thread has set last; where it has set none, those last of all."""
        found: tuple[Tensor, Grid] | None = getattr(self._thread, "latest", self._latest)
        return found

    @property
    def current(self) -> tuple[Tensor, Grid]:
        """`latest`.

        Raises:
            ValueError: there are none.
        """
        if self.latest is None:
            raise ValueError("there are no timesteps yet: call set_timesteps first.")
        return self.latest

    def set(
        self, course: Course, timesteps: Tensor, device: str | torch.device | None, points: int
    ) -> None:
        """Set the timesteps of this thread."""
        with torch.inference_mode(False):  # in which slices would not tell what they are from
            out = timesteps.to(device, copy=True)
        self._grids[out] = made = Grid(course, timesteps.tolist(), points)
        self._thread.latest = self._latest = out, made

    def answered(
        self, output: Tensor, timestep: float | Tensor, sample: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """Return the sample for the next call, at last the result; and the data as now seen.

        Raises:
            ValueError: see `SolverScheduler.step`.
        """
        at = self._find(timestep, sample)
        course = at.grid.course
        x0 = course.x0(at.place.x, at.call, output)
        place = at.place.answered(output, draw)
        given = _counted(_another(place.x, sample.dtype))
        self._thread.last = None
        if place.t is not None:
            self._standing[given] = Standing(at.grid, at.call + 1, place, given._version)
            self._thread.last = given
        return given, x0.to(sample.dtype)

    def check_begin(self, call: int) -> None:
        """Refuse a call of the latest grid that no run can begin at.

        Raises:
            ValueError: see `Course.begin`; there are no timesteps.
        """
        grid = self.current[1]
        if call in range(1, len(grid.values)):
            self._begun(grid, call, torch.empty(0))

    def _find(self, timestep: float | Tensor, sample: Tensor) -> Standing:
        known: Standing | None = self._standing.get(sample)
        if known is None and self._is_last(timestep, sample):
            sample = self._thread.last
            known = self._standing[sample]
        if known is None or known.version != sample._version:
            return self._begin(timestep, sample)
        expected = known.grid.values[known.call]
        # a look at a time on a device would wait for it
        seen = not isinstance(timestep, Tensor) or timestep.is_cpu
        if seen and _number(timestep) != expected:
            raise ValueError(
                f"the sample was returned for timestep {expected:g} and comes with "
                f"{_number(timestep):g}: take the timesteps in order."
            )
        return known

    def _is_last(self, timestep: float | Tensor, sample: Tensor) -> bool:
        """Tell whether a new tensor holds what was returned last in this thread, for its time."""
        last: Tensor | None = getattr(self._thread, "last", None)
        if last is None or last.dtype != sample.dtype or last.device != sample.device:
            return False
        at: Standing = self._standing[last]
        return _number(timestep) == at.grid.values[at.call] and torch.equal(last, sample)

    def _begin(self, timestep: float | Tensor, sample: Tensor) -> Standing:
        whole = timestep._base if isinstance(timestep, Tensor) else None
        grid: Grid = (None if whole is None else self._grids.get(whole)) or self.current[1]
        t, values = _number(timestep), grid.values
        if t not in values:
            raise ValueError(
                f"timestep {t:g} is none of the {len(values)} from {values[0]:g} to "
                f"{values[-1]:g}: pass those of scheduler.timesteps."
            )
        x = _another(sample, torch.promote_types(sample.dtype, torch.float32))
        return self._begun(grid, values.index(t), x)

    def _begun(self, grid: Grid, call: int, x: Tensor) -> Standing:
        try:
            return Standing(grid, call, grid.course.begin(x, call))
        except ValueError as error:
            raise _not_here(grid.values[call], error) from None


def _another(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``x`` of a type as another object, so that holding one does not hold the other."""
    return x.view_as(x) if x.dtype is dtype else x.to(dtype)


def _number(timestep: float | Tensor) -> float:
    """Return a timestep as a number, which waits for a device that it is on."""
    if isinstance(timestep, Tensor) and timestep.numel() != 1:
        raise ValueError(f"timestep has shape {tuple(timestep.shape)}: give one for the batch.")
    return float(timestep)


def _counted(x: Tensor) -> Tensor:
    """Return ``x`` as a tensor whose changes in place are counted, in inference mode too."""
    if not x.is_inference():
        return x
    with torch.inference_mode(False):
        return x.clone()


def _not_here(timestep: float, error: ValueError) -> ValueError:
    return ValueError(
        f"the sample at timestep {timestep:g} is none that step returned, or was changed since, "
        f"and no run can begin there: {error}. Pass prev_sample on as it is, or begin where a step "
        "does, or use DDIM() or Multistep(), which can begin at any timestep."
    )
