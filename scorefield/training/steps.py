"""One step of training: its batch, its losses, and its numbers on their way from a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """One step, which a GPU may still compute: to read its loss or norm waits for it.

    Attributes:
        step: the number of steps so far.
        lr: the learning rate.
    """

    step: int
    lr: float
    _read: Callable[[], tuple[float, float]] = field(repr=False, compare=False)

    @property
    def loss(self) -> float:
        """The step's mean loss.

        Raises:
            NumericalError: it is not finite.
        """
        return self._read()[0]

    @property
    def norm(self) -> float:
        """The norm of the gradient before clipping.

        It is infinite where float16 overflowed: then the weights stay as they are and the next step
        scales less.
        """
        return self._read()[1]


class Drawn(NamedTuple):
    """A batch, or a part of it, each ``(B, ...)``.

    Attributes:
        items, x0, t, condition: numbers of the samples, data, times and conditions.
        eps: the noise, or the other ends of the paths.
        z: the noise between two data sets, if there is any.
    """

    items: Tensor
    x0: Tensor
    t: Tensor
    eps: Tensor
    condition: dict[str, Tensor]
    z: Tensor | None = None

    def part(self, rows: slice) -> Drawn:
        """Return some of the rows."""
        items, x0, t, eps, condition, z = self
        some = {k: v[rows] for k, v in condition.items()}
        return Drawn(
            items[rows], x0[rows], t[rows], eps[rows], some, None if z is None else z[rows]
        )


class Tried(NamedTuple):
    """A part of a batch after its backward pass: items, times and losses, each ``(B,)``."""

    items: Tensor
    t: Tensor
    losses: Tensor


class QueuedStep:
    """A step whose loss and gradient norm may still be on the way from the device.

    Args:
        tried: the parts of its batch.
        numbers: the loss and the norm, ``(2,)``.
    """

    def __init__(self, tried: Sequence[Tried], numbers: Tensor) -> None:
        self.tried, self._numbers, self._event = tried, numbers, None
        if numbers.is_cuda:
            self._numbers = numbers.to("cpu", non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    @cached_property
    def numbers(self) -> tuple[float, float]:
        """The loss and the norm; a wait for this step, but not for work that was queued after."""
        if self._event is not None:
            self._event.synchronize()
        loss, norm = self._numbers.tolist()
        return loss, norm
