"""One evaluation of a pipeline of diffusers: a scheduler that receives the prediction and stops.

A pipeline hands its prediction, guidance included, to ``scheduler.step``. `Probe` takes the place
of the scheduler for one call of the pipeline. All of its timesteps are the same, so the pipeline
predicts at that time, for the state that it was given.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield._internal.errors import UsageError


class Answer(Exception):
    """Ends a call of a pipeline when its predictions have arrived."""


class Step(NamedTuple):
    """The result of `Probe.step`, with the names that pipelines use."""

    prev_sample: Tensor


class Record(NamedTuple):
    """A prediction of a pipeline, and the state that it is for."""

    output: Tensor
    state: Tensor


class Probe:
    """A scheduler that collects predictions at one time, and then ends the call by `Answer`.

    Args:
        scheduler: a scheduler of the pipeline's network, for everything that pipelines read.
        timestep: the one timestep, ``()``.
        count: predictions to collect.
        state: ``(B, ...)``, what each step returns; by default the state that it was called with.
        enters: pass ``state`` to the pipeline by the scheduler, for pipelines without ``latents``.

    Attributes:
        records: the predictions.
    """

    init_noise_sigma = 1.0
    order = 1

    def __init__(
        self,
        scheduler: Any,
        timestep: Tensor,
        count: int = 1,
        state: Tensor | None = None,
        enters: bool = False,
    ) -> None:
        self._scheduler, self._state, self._outside = scheduler, state, enters
        self.count = count
        self.num_inference_steps = count + enters
        self.timesteps = timestep.reshape(1).repeat(self.num_inference_steps)
        self.records: list[Record] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        **options: Any,
    ) -> None:
        """Move the timesteps to a device; they do not change.

        Raises:
            UsageError: the pipeline passes timesteps that are not those of its states' times.
        """
        if timesteps is not None and sigmas is not None:
            raise UsageError(
                "the pipeline passes timesteps and sigmas: its network is called with timesteps of "
                "another time than that of the state, which is not supported for a field; use a "
                "solver in the pipeline, by SolverScheduler."
            )
        self.timesteps = self.timesteps.to(device)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Accept any index: all timesteps are the same."""

    def scale_model_input(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the network's input for the state, if it enters here, or else for the sample."""
        if self._outside:
            self._outside, sample = False, self._next(sample)
        scaled: Tensor = self._scheduler.scale_model_input(sample, self.timesteps[0])
        return scaled

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any
    ) -> Step:
        """Record a prediction.

        Raises:
            Answer: it was the last one.
        """
        if self._outside:
            self._outside = False
            return Step(self._next(sample))
        self.records.append(Record(model_output, sample))
        if len(self.records) == self.count:
            raise Answer
        return Step(self._next(sample))

    def _next(self, sample: Tensor) -> Tensor:
        """Return the state in the layout of a sample, which guidance may have doubled."""
        if self._state is None:
            return sample
        copies = len(sample) // len(self._state)
        return self._state.to(sample).repeat(copies, *[1] * (sample.ndim - 1))


@contextmanager
def borrowed(pipeline: Any, **parts: Any) -> Iterator[None]:
    """Replace parts of a pipeline inside the block, and restore all of its attributes after it.

    The pipeline's own assignment would also change its configuration.
    """
    attributes = vars(pipeline)
    before = dict(attributes)
    attributes.update(parts)
    try:
        yield
    finally:
        for name in attributes.keys() - before.keys():
            del attributes[name]
        attributes.update(before)


@contextmanager
def ending(scheduler: Any) -> Iterator[None]:
    """End a call of a pipeline inside the block by `Answer`, when it has set its timesteps."""
    original = scheduler.set_timesteps

    @functools.wraps(original)  # pipelines look at the signature
    def end(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        raise Answer

    scheduler.set_timesteps = end
    try:
        yield
    except Answer:
        pass
    else:
        raise UsageError("the pipeline does not set the timesteps of its scheduler.")
    finally:
        del scheduler.set_timesteps
