"""Training by several processes: replicas of the network (DDP), or its weights divided (FSDP2).

``torchrun`` starts the processes and tells each its place. A collective call that waits longer than
`TIMEOUT` raises, and so does one whose peer is gone: no process is left behind waiting.

Reference: Li et al. (2020), arXiv:2006.15704; Zhao et al. (2023), arXiv:2304.11277.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from scorefield.training.workers import Workers

TIMEOUT = timedelta(minutes=5)


class _Group(Workers):
    """What replicas and shares have in common: the default process group."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device

    def total(self, value: Tensor) -> Tensor:
        whole = value.detach().to(self.device, copy=True)
        dist.all_reduce(whole)
        return whole

    def gathered(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


class Replicated(_Group):
    """Each process has all weights."""

    def own(self, network: nn.Module) -> nn.Module:
        return network

    def divide(self, network: nn.Module) -> None:
        pass

    def join(self, network: nn.Module) -> nn.Module:
        on = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=on)

    def hold(self, joined: nn.Module) -> AbstractContextManager[None]:
        assert isinstance(joined, DistributedDataParallel)
        held: AbstractContextManager[None] = joined.no_sync()
        return held

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor

    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        return tensor


class Sharded(_Group):
    """Each process has a share of every weight, gradient and moment, and gathers blocks in use."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.mesh = init_device_mesh(device.type, (self.size,))
        # which warns of a danger to those who change a network's output in place, as nobody does
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)

    def own(self, network: nn.Module) -> nn.Module:
        return copy.deepcopy(network)

    def divide(self, network: nn.Module) -> None:
        for child in network.children():
            if isinstance(child, nn.ModuleList):
                for block in child:
                    fully_shard(block, mesh=self.mesh)
        # without it a pass that is no training leaves the root whole, which the next average is not
        fully_shard(network, mesh=self.mesh, reshard_after_forward=True)

    def join(self, network: nn.Module) -> nn.Module:
        return network

    @contextmanager
    def _held(self, network: FSDPModule) -> Iterator[None]:
        network.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            network.set_requires_gradient_sync(True)

    def hold(self, joined: nn.Module) -> AbstractContextManager[None]:
        return self._held(joined) if isinstance(joined, FSDPModule) else nullcontext()

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        if not isinstance(like, DTensor):
            return tensor
        # each process has read the whole: nothing is to be sent
        return distribute_tensor(
            tensor.to(self.device), like.device_mesh, like.placements, src_data_rank=None
        )


@contextmanager
def group(kind: Literal["ddp", "fsdp"], device: torch.device) -> Iterator[Workers]:
    """Give the processes that `torchrun` has started, this one among them.

    The processes leave together, or with an error. The group is not taken apart, which may wait
    without end for a peer that has gone; so end the process by `os._exit`, which does not either.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    store.set_timeout(TIMEOUT)
    if os.environ.get("LOCAL_WORLD_SIZE") == str(size):
        # torchrun's store outlives its processes: those it starts anew must not find the addresses
        # of the ones before. Several machines may count restarts differently, so only on one.
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    yield Sharded(device) if kind == "fsdp" else Replicated(device)
    dist.barrier()
