"""Processes that train one network together, and how they share the work."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn


class Workers(ABC):
    """Processes that train together, as one of them sees it.

    Attributes:
        rank, size: the number of this worker, and the number of all.
    """

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this worker writes files and prints for all."""
        return self.rank == 0

    def part(self, count: int, piece: int, pieces: int) -> slice:
        """Return this worker's slice of micro-batch ``piece`` of a batch of ``count`` items."""
        start, stop = (count * k // self.size for k in (self.rank, self.rank + 1))
        return slice(*(start + (stop - start) * k // pieces for k in (piece, piece + 1)))

    @abstractmethod
    def own(self, network: nn.Module) -> nn.Module:
        """Return the network whose weights the optimizer changes: this one or a `copy`."""

    @abstractmethod
    def copy(self, network: nn.Module) -> nn.Module:
        """Return a copy, of which each worker has its share of the weights if they are divided."""

    @abstractmethod
    def join(self, network: nn.Module) -> nn.Module:
        """Return the module to call, whose backward pass ends with the mean of all gradients."""

    @abstractmethod
    def hold(self, joined: nn.Module) -> AbstractContextManager[None]:
        """Let gradients add up in each worker until a backward pass outside this context."""

    @abstractmethod
    def whole(self, tensor: Tensor) -> Tensor:
        """Return all of a tensor of weights."""

    @abstractmethod
    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Return this worker's share of a whole tensor, divided as ``like`` is."""

    @abstractmethod
    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the workers."""

    @abstractmethod
    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all workers."""


class Undivided(Workers):
    """Workers that have all weights each."""

    def own(self, network: nn.Module) -> nn.Module:
        return network

    def copy(self, network: nn.Module) -> nn.Module:
        return copy.deepcopy(network)

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor

    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        return tensor


class SingleWorker(Undivided):
    """One process that does everything."""

    rank, size = 0, 1

    def join(self, network: nn.Module) -> nn.Module:
        return network

    def hold(self, joined: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def total(self, value: Tensor) -> Tensor:
        return value

    def gathered(self, value: Any) -> list[Any]:
        return [value]
