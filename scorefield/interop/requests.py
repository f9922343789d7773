r"""Requests that share a scheduler: the grid of a timestep, and the progress of a sample.

The only mutable state is stored in weak dictionaries by the tensors that were returned. It is found
by the tensor and disappears with it, so requests are independent. The tensor that was returned last
in a thread is also found by its values, for pipelines that copy their samples.

Changes in place are detected by torch's version counter, which does not count changes through
``.data`` or ``.numpy()``.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from scorefield.interop.course import Course
from scorefield.interop.replay import Draw, Progress


class Grid(NamedTuple):
    """A course, the timesteps of its calls as numbers, and the number of its times."""

    course: Course
    values: list[float]
    points: int


class Position(NamedTuple):
    """The position of a sample: the call of a grid, and its progress.

    ``version`` counts changes in place.
    """

    grid: Grid
    call: int
    progress: Progress
    version: int = 0


class Requests:
    """The timesteps and samples that were returned and still exist."""

    def __init__(self) -> None:
        self._grids: Any = WeakTensorKeyDictionary()
        self._positions: Any = WeakTensorKeyDictionary()
        self._latest: tuple[Tensor, Grid] | None = None
        self._thread = threading.local()

    @property
    def latest(self) -> tuple[Tensor, Grid] | None:
        """The timesteps that this thread has set last, or else any thread."""
        latest: tuple[Tensor, Grid] | None = getattr(self._thread, "latest", self._latest)
        return latest

    @property
    def current(self) -> tuple[Tensor, Grid]:
        """`latest`.

        Raises:
            ValueError: no timesteps were set.
        """
        if self.latest is None:
            raise ValueError("no timesteps were set: call set_timesteps first.")
        return self.latest

    def set(
        self, course: Course, timesteps: Tensor, device: str | torch.device | None, points: int
    ) -> None:
        """Set the timesteps of this thread."""
        with torch.inference_mode(False):  # inference tensors do not record the base of a slice
            out = timesteps.to(device, copy=True)
        self._grids[out] = grid = Grid(course, timesteps.tolist(), points)
        self._thread.latest = self._latest = out, grid

    def advance(
        self, output: Tensor, timestep: float | Tensor, sample: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """Return the sample for the next call, or the result; and the estimate of the data.

        Raises:
            ValueError: see `SolverScheduler.step`.
        """
        at = self._find(timestep, sample)
        course = at.grid.course
        if at.call == 0:
            output = course.reread(output, sample)
        x0 = course.x0(at.progress.x, at.call, output)
        progress = at.progress.after(output, draw)
        result = _with_version(_another(progress.x, sample.dtype))
        self._thread.last = None
        if progress.t is not None:
            self._positions[result] = Position(at.grid, at.call + 1, progress, result._version)
            self._thread.last = result
        return result, x0.to(sample.dtype)

    def _find(self, timestep: float | Tensor, sample: Tensor) -> Position:
        position: Position | None = self._positions.get(sample)
        if position is None and self._is_last(timestep, sample):
            sample = self._thread.last
            position = self._positions[sample]
        if position is None or position.version != sample._version:
            return self._start(timestep, sample)
        expected = position.grid.values[position.call]
        # reading a timestep on a device would wait for the device
        readable = not isinstance(timestep, Tensor) or timestep.is_cpu
        if readable and _number(timestep) != expected:
            raise ValueError(
                f"timestep={_number(timestep):g}: must be {expected:g}, that of the sample."
            )
        return position

    def _is_last(self, timestep: float | Tensor, sample: Tensor) -> bool:
        """Return whether a new tensor has the values returned last in this thread, at its time."""
        last: Tensor | None = getattr(self._thread, "last", None)
        if last is None or last.dtype != sample.dtype or last.device != sample.device:
            return False
        at: Position = self._positions[last]
        return _number(timestep) == at.grid.values[at.call] and torch.equal(last, sample)

    def _start(self, timestep: float | Tensor, sample: Tensor) -> Position:
        whole = timestep._base if isinstance(timestep, Tensor) else None
        grid: Grid = (None if whole is None else self._grids.get(whole)) or self.current[1]
        t, values = _number(timestep), grid.values
        if t not in values:
            raise ValueError(
                f"timestep={t:g}: not in scheduler.timesteps, {values[0]:g} to {values[-1]:g}."
            )
        x = _another(sample, torch.promote_types(sample.dtype, torch.float32))
        call = values.index(t)
        return Position(grid, call, grid.course.start(x, call))


def _another(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``x`` in a type as another object, so that neither keeps the other alive."""
    return x.view_as(x) if x.dtype is dtype else x.to(dtype)


def _number(timestep: float | Tensor) -> float:
    """Return a timestep as a number; this waits for its device."""
    if isinstance(timestep, Tensor) and timestep.numel() != 1:
        raise ValueError(
            f"timestep has shape {tuple(timestep.shape)}: must be one number for the batch."
        )
    return float(timestep)


def _with_version(x: Tensor) -> Tensor:
    """Return ``x`` as a tensor with a version counter, in inference mode too."""
    if not x.is_inference():
        return x
    with torch.inference_mode(False):
        return x.clone()
