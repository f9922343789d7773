"""Samples that are read as they are asked for, so that data may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Rows(Protocol):
    """What training needs of data ``(N, ...)``; a `Tensor` is one way to have it."""

    def __len__(self) -> int: ...

    def __getitem__(self, items: Tensor, /) -> Tensor:
        """Return the samples of the given numbers, int64 ``(B,)`` on the CPU: ``(B, ...)``."""
        ...


@dataclass(frozen=True)
class Through(Rows):
    """Samples that go through a function of batches as they are read."""

    rows: Rows
    function: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, items: Tensor, /) -> Tensor:
        return self.function(self.rows[items])
