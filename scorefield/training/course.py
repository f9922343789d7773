"""How long to train, how much data to hold out, and which step to end with.

Training that visits each of ``n`` samples often enough memorises them, after a number of visits
that depends little on ``n``, and later in few dimensions ``d``. So the number of steps of ``B``
samples is::

    min(2000, max(250, (1 + 8 / d) 256 n / B))                                      (1)

With fewer than 250 steps, correlated coordinates are learned worse; with more, 60 rows of a table
are copied. Where enough data is held out, the error there of the averaged weights is measured at
steps that grow by a fifth, and the weights of its minimum are the result. Training stops early
where the error has risen by 5 % and the minimum was reached in a third of the steps, because an
error may rise for a while before it falls again.

Reference: Prechelt (1998), Early stopping, but when?; Bonnaire et al. (2025), arXiv:2505.17638 (the
time of memorisation of a diffusion model grows in proportion to the number of samples).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scorefield._internal.errors import UsageError

if TYPE_CHECKING:
    from scorefield.training.config import TrainConfig

ENOUGH = 200  # samples, to hold some out
RISEN = 1.05  # of the smallest error
_SHARE, _MOST_HELD_OUT = 0.1, 1024
_LEAST_STEPS, _MOST_STEPS, _VISITS, _FEW = 250, 2000, 256, 8
_FIRST, _GROWTH, _APART = 25, 1.2, 500
_SLOWER = 3  # times the steps of the minimum


def steps_for(count: int, shape: Sequence[int], batch_size: int) -> int:
    """Return the number of steps (1) for some samples of a shape to learn from."""
    steps = (1 + _FEW / math.prod(shape)) * _VISITS * count / batch_size
    return min(_MOST_STEPS, max(_LEAST_STEPS, math.ceil(steps)))


def completed(config: TrainConfig, shape: Sequence[int], count: int) -> TrainConfig:
    """Return a configuration with its share of held-out data, its steps and its end filled in.

    Args:
        shape, count: of a sample, and the number of all.

    Raises:
        UsageError: an end that needs held-out data, without such data.
    """
    share, optim = config.held_out, config.optim
    if share is None:
        share = min(_SHARE, _MOST_HELD_OUT / count) if count >= ENOUGH else 0.0
    if config.end in ("early", "best") and not share:
        raise UsageError(
            f"end={config.end}: no data is held out to choose the step by; set held_out to a share "
            "of the data, such as 0.1, or leave out end."
        )
    end = config.end or ("best" if optim.steps or optim.minutes else "early")
    if optim.steps is None:
        steps = steps_for(count - round(share * count), shape, optim.batch_size)
        optim = optim.model_copy(update={"steps": steps})
    update = {"held_out": share, "optim": optim, "end": end if share else "last"}
    return config.model_copy(update=update)


@dataclass
class Course:
    """The error on held-out data along a training, and the step that it chooses.

    Attributes:
        every: steps between measurements, or 0 for steps that grow.
        end: the weights to end with, as in `scorefield.training.config.TrainConfig`.
        best: the step of the smallest error so far, and the error.
        last: the step of the last error, and the error.
    """

    every: int
    end: Literal["early", "best", "last"]
    best: tuple[int, float] | None = None
    last: tuple[int, float] | None = None

    def is_due(self, step: int) -> bool:
        """Return whether the error is measured after a step that is not the last one."""
        if self.every:
            return step % self.every == 0
        return step % _APART == 0 or (step >= _FIRST and _stage(step) > _stage(step - 1))

    def add(self, step: int, error: float) -> bool:
        """Take the error of a step; return whether the training ends with it, if it ended here."""
        self.last = step, error
        if self.best is None or error < self.best[1]:
            self.best = self.last
        return self.end != "last" and self.best is self.last

    @property
    def has_risen(self) -> bool:
        """Whether the error is so far above the smallest one, for so long, that training stops."""
        if self.end != "early" or self.best is None or self.last is None:
            return False
        return self.last[0] >= _SLOWER * self.best[0] and self.last[1] > RISEN * self.best[1]

    def summary(self, held_out: int, baseline: str = "a Gaussian") -> str:
        """Return a phrase on the weights that a training ends with, of ``held_out`` samples."""
        if self.best is None or self.last is None:
            return "no held-out samples can show whether it memorises the data"
        (best, smallest), (last, error) = self.best, self.last
        of = f"error {{:.3f}} on {held_out} held-out samples, relative to {baseline}"
        if self.end != "last":
            after = f"; it rose to {error:.3f}" if last != best else ""
            return f"the weights of step {best}, {of.format(smallest)}{after}"
        text = f"the weights of the last step, {of.format(error)}"
        if error > RISEN * smallest:
            text += f". WARNING: it rose from {smallest:.3f} at step {best}, so the network "
            text += "memorises the data: choose the best step, or take fewer"
        return text


def _stage(step: int) -> int:
    return math.floor(math.log(max(1, step) / _FIRST) / math.log(_GROWTH) + 1e-9)
