"""Engines compute the parts of a job, in this process or by the workers of a Ray cluster.

A part is a pure function of the run, its ids and their data, so it is the same on any worker, and
is computed again if its worker is lost.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.runs.folder import RunFolder
from scorefield.runs.jobs.parts import Columns
from scorefield.runs.loading import load
from scorefield.runs.run import Run

_RETRIES = 3  # of a part whose worker is lost


class Task(NamedTuple):
    """A part to compute.

    Attributes:
        part: its number.
        ids: of its items.
        x: their data, ``(len(ids), ...)``, or None if they are sampled from noise.
    """

    part: int
    ids: range
    x: Tensor | None


class Source(NamedTuple):
    """Where a run comes from, in words that another process understands.

    Attributes:
        folder: its folder.
        network: a network of the user's own, as ``package.module:factory``.
        device: where the network runs.
        length: of all signals, for a run of several lengths.
    """

    folder: Path
    network: str | None = None
    device: str = "cpu"
    length: int | None = None

    def load(self) -> Run:
        """Load the run.

        Raises:
            CheckpointError, UsageError: as `scorefield.load`; a network that cannot be made.
        """
        if self.network is None:
            run = load(self.folder, device=self.device)
        else:
            from scorefield._internal.factory import make_network

            run = load(self.folder, network=make_network(self.network), device=self.device)
        return run if self.length is None else run.of_length(self.length)


Work = Callable[[Run, Task], Columns]  # picklable
Parts = Iterator[tuple[int, Columns]]
Engine = Callable[[Run, Source, Work, Iterable[Task]], Parts]


def here(run: Run, source: Source, work: Work, tasks: Iterable[Task]) -> Parts:
    """Yield the number and the columns of each part, computed in this process."""
    for task in tasks:
        yield task.part, work(run, task)


def on_ray(run: Run, source: Source, work: Work, tasks: Iterable[Task]) -> Parts:
    """Yield the number and the columns of each part when a worker of Ray has computed it.

    The cluster is that of ``RAY_ADDRESS``, or this machine. Each worker loads the run once, from
    the same folder. A part takes as many CPUs as torch has threads here, because its bits may
    depend on them.

    Raises:
        UsageError: the cluster does not exist, or its machines have too few CPUs.
        CheckpointError: the folder holds another run on a worker.
        RuntimeError: a part was lost with its worker several times.
    """
    import ray

    threads, mine = torch.get_num_threads(), not ray.is_initialized()
    there = source._replace(folder=source.folder.resolve())
    shared = there, RunFolder(source.folder).mark, threads, work
    try:
        at_once = 2 * _connect(threads)  # so that workers do not wait for this process
        remote = ray.remote(_there).options(
            num_cpus=threads, max_retries=_RETRIES, name="scorefield part"
        )
        todo, running = iter(tasks), dict[Any, int]()
        while True:
            for task in islice(todo, at_once - len(running)):
                running[remote.remote(*shared, task)] = task.part
            if not running:
                return
            (done,), _ = ray.wait(list(running))
            yield running.pop(done), _result(done)
    finally:
        if mine:
            ray.shutdown()


ENGINES: dict[str, Engine] = {"here": here, "ray": on_ray}


def find_engine(name: str) -> Engine:
    """Return the engine of a name.

    Raises:
        UsageError: its package is not installed.
    """
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise UsageError("engine=ray: needs Ray; pip install 'scorefield[ray]'.")
    return ENGINES[name]


def _connect(threads: int) -> int:
    """Join the cluster, and return the number of parts that it computes at once."""
    import ray

    try:
        ray.init(
            ignore_reinit_error=True,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"engine=ray: {str(error).splitlines()[0]}") from None
    cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    if max(cpus) < threads:
        raise UsageError(
            f"engine=ray: torch has {threads} threads here, but a machine of the cluster has at "
            f"most {max(cpus):g} CPUs; set OMP_NUM_THREADS to fewer."
        )
    return sum(int(count // threads) for count in cpus)


def _result(done: Any) -> Columns:
    import ray

    try:
        columns: Columns = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"Ray lost a part: {str(error).splitlines()[0]}") from None
    return columns


def _there(source: Source, mark: str, threads: int, work: Work, task: Task) -> Columns:
    return work(_loaded(source, mark, threads), task)


@functools.lru_cache(maxsize=1)
def _loaded(source: Source, mark: str, threads: int) -> Run:
    torch.set_num_threads(threads)
    run = source.load()
    if RunFolder(source.folder).mark != mark:
        raise CheckpointError(
            f"{source.folder} holds another run on a worker: use a folder that all machines share."
        )
    return run
