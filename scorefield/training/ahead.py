"""Samples of the next batch, read while the present one is learned from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import torch
from torch import Tensor

from scorefield.data.rows import Rows


class Ahead:
    """Rows of which a thread reads those of the next step.

    A tensor, which is in memory, is indexed without the thread.

    Args:
        rows: the samples; the thread reads one batch at a time.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._next: dict[int, tuple[Tensor, Future[Tensor]]] = {}

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "scorefield-data")

    def take(self, piece: int, items: Tensor, following: Callable[[], Tensor]) -> Tensor:
        """Return the samples ``items`` of a piece of the batch, and begin to read ``following``.

        Args:
            following: returns those of the same piece in the next step, or none.

        Raises:
            Exception: as reading ``items`` does, here or in the thread.
        """
        if isinstance(self.rows, Tensor):
            return self.rows[items]
        ahead = self._next.pop(piece, None)
        if ahead is not None and torch.equal(ahead[0], items):
            x = ahead[1].result()
        else:
            x = self.rows[items]
        if len(coming := following()):
            self._next[piece] = coming, self._thread.submit(self.rows.__getitem__, coming)
        return x
