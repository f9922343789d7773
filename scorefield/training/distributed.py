"""Training by several processes: replicas of the network (DDP), or divided weights (FSDP2).

``torchrun`` starts the processes and sets their ranks. A collective call that waits longer than
`TIMEOUT` raises, and so does one whose peer has ended: no process waits without end.

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

from scorefield._internal.errors import UsageError
from scorefield.training.workers import Undivided, Workers

TIMEOUT = timedelta(minutes=5)


class _Group(Workers):
    """The default process group, common to replicas and shares."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device

    def total(self, value: Tensor) -> Tensor:
        whole = value.detach().to(self.device, copy=True)
        dist.all_reduce(whole)
        return whole

    def gathered(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


class Replicated(_Group, Undivided):
    """Each worker has all weights."""

    def join(self, network: nn.Module) -> nn.Module:
        on = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=on)

    def hold(self, joined: nn.Module) -> AbstractContextManager[None]:
        assert isinstance(joined, DistributedDataParallel)
        context: AbstractContextManager[None] = joined.no_sync()
        return context


class Sharded(_Group):
    """Each process has a share of every weight, gradient and moment, and gathers blocks in use."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.mesh = init_device_mesh(device.type, (self.size,))
        # the warning concerns changes of a network's output in place, which do not happen here
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)

    def own(self, network: nn.Module) -> nn.Module:
        return self.copy(network)

    def copy(self, network: nn.Module) -> nn.Module:
        shared = len(list(network.named_parameters(remove_duplicate=False)))
        if shared != len(list(network.parameters())):
            raise UsageError(
                "--distributed fsdp: two layers of the network share a weight, which cannot be "
                "divided between processes; use ddp."
            )
        # through "meta", so that no worker ever holds a second whole network
        empty: dict[int, Any] = {
            id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
            for p in network.parameters()
        }
        result = copy.deepcopy(network, empty)
        for module in reversed([*result.modules()]):  # inner blocks first
            if isinstance(module, nn.ModuleList):
                for block in module:
                    if not isinstance(block, nn.ModuleList) and [*block.parameters()]:
                        fully_shard(block, mesh=self.mesh)
        # otherwise a pass outside training leaves the root whole, unlike its average
        fully_shard(result, mesh=self.mesh, reshard_after_forward=True)
        result.to_empty(device=self.device)
        sources = {**dict(network.named_buffers()), **dict(network.named_parameters())}
        with torch.no_grad():
            for name, value in (*result.named_buffers(), *result.named_parameters()):
                value.copy_(self.share(sources[name], value))
        return result

    def join(self, network: nn.Module) -> nn.Module:
        return network

    @contextmanager
    def _without_sync(self, network: FSDPModule) -> Iterator[None]:
        network.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            network.set_requires_gradient_sync(True)

    def hold(self, joined: nn.Module) -> AbstractContextManager[None]:
        return self._without_sync(joined) if isinstance(joined, FSDPModule) else nullcontext()

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        if not isinstance(like, DTensor):
            return tensor
        # each worker has read the whole tensor, so nothing is sent
        return distribute_tensor(
            tensor.to(self.device), like.device_mesh, like.placements, src_data_rank=None
        )


@contextmanager
def group(kind: Literal["ddp", "fsdp"], device: torch.device) -> Iterator[Workers]:
    """Give the workers that `torchrun` has started.

    They leave together, or with an error. The group is not destroyed, because that may wait without
    end for a peer that has ended; so end the process by `os._exit`, which skips it too.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    store.set_timeout(TIMEOUT)
    if os.environ.get("LOCAL_WORLD_SIZE") == str(size):
        # torchrun's store outlives its processes: after a restart they must not find the old
        # addresses. Several machines may count restarts differently, so only on one.
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    yield Sharded(device) if kind == "fsdp" else Replicated(device)
    dist.barrier()
