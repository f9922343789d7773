"""The processes that train one network together, and how they share the work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn


class Workers(ABC):
    """Some workers, of which this is one.

    Attributes:
        rank, size: the number of this one, and how many there are.
    """

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this process writes and prints for all."""
        return self.rank == 0

    def part(self, count: int, piece: int, pieces: int) -> slice:
        """Return what falls to this process of a piece of its share of ``count`` items."""
        start, stop = (count * k // self.size for k in (self.rank, self.rank + 1))
        return slice(*(start + (stop - start) * k // pieces for k in (piece, piece + 1)))

    @abstractmethod
    def own(self, network: nn.Module) -> nn.Module:
        """Return the network whose weights the optimizer moves: this one or a copy of it."""

    @abstractmethod
    def divide(self, network: nn.Module) -> None:
        """Leave each process its share of the weights, if they are divided."""

    @abstractmethod
    def join(self, network: nn.Module) -> nn.Module:
        """Return what to call, so that a backward pass ends with the mean of all gradients."""

    @abstractmethod
    def hold(self, joined: nn.Module) -> AbstractContextManager[None]:
        """Let gradients add up in each process until a backward pass outside this context."""

    @abstractmethod
    def whole(self, tensor: Tensor) -> Tensor:
        """Return all of a tensor of weights."""

    @abstractmethod
    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Return this process's share of a whole tensor, as ``like`` is shared."""

    @abstractmethod
    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the workers."""

    @abstractmethod
    def gathered(self, value: Any) -> list[Any]:
        """Return what every process gives."""


class SingleWorker(Workers):
    """One process, which does everything."""

    rank, size = 0, 1

    def own(self, network: nn.Module) -> nn.Module:
        return network

    def divide(self, network: nn.Module) -> None:
        pass

    def join(self, network: nn.Module) -> nn.Module:
        return network

    def hold(self, joined: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor

    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        return tensor

    def total(self, value: Tensor) -> Tensor:
        return value

    def gathered(self, value: Any) -> list[Any]:
        return [value]
