"""What `scorefield train` does: from a source of data to a run folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import tomli_w
import torch
from rich.console import Console

from scorefield._internal.errors import Stopped, UsageError
from scorefield.cli.commands import check_device, say, track
from scorefield.cli.options import ReadOptions
from scorefield.cli.session import Every, Session
from scorefield.data import read
from scorefield.runs.folder import RunFolder
from scorefield.runs.summary import parameters
from scorefield.runs.trainer import Training
from scorefield.training.config import TrainConfig
from scorefield.training.workers import SingleWorker, Workers

Distributed = Literal["auto", "ddp", "fsdp"]


def train(
    console: Console,
    source: str,
    out: Path | None,
    reading: ReadOptions,
    config: TrainConfig,
    *,
    every: Every,
    keep_best: bool = False,
    tracker: str | None = None,
    distributed: Distributed = "auto",
    device: Literal["cpu", "cuda"] = "cpu",
    print_config: bool = False,
    dry_run: bool = False,
) -> None:
    """Train on a source and write the run folder, at the end and at once.

    On the way there checkpoints lie beside it, and the same command goes on from the last.
    """
    if out is None and not (print_config or dry_run):
        raise UsageError("--out: name the run folder to write.")
    if out is not None:
        RunFolder(out).refuse_existing()
    if reading.labels is not None and not config.conditional:
        raise UsageError(f"--labels {reading.labels} has no effect without --conditional.")
    data = read(source, **reading.arguments())
    with _together(distributed, device, config) as (workers, where):
        console = console if workers.first else Console(quiet=True)
        training = Training(data, config, workers, where)
        if print_config:
            if workers.first:
                print(tomli_w.dumps(training.config.model_dump(exclude_none=True)), end="")
            return
        say(
            console,
            f"{len(data.x)} samples of shape {data.shape} from {data.name}; "
            f"{parameters(training.denoiser.network):,} parameters",
        )
        if dry_run:
            _try(console, training)
            return
        assert out is not None
        _run(console, Session(console, training, out, every, keep_best, tracker))


@contextmanager
def _together(
    kind: Distributed, device: str, config: TrainConfig
) -> Iterator[tuple[Workers, torch.device]]:
    """Give the processes that train, and the device of this one.

    Raises:
        UsageError: no such device; processes that nobody started; float16 with divided weights.
    """
    check_device(device)
    if "WORLD_SIZE" not in os.environ:
        if kind != "auto":
            raise UsageError(
                f"--distributed {kind}: start the processes with torchrun, as in torchrun "
                f"--nproc-per-node 2 -m scorefield train ... --distributed {kind}"
            )
        yield SingleWorker(), torch.device(device)
        return
    if kind == "fsdp" and config.optim.precision == "float16":
        raise UsageError(
            "--optim.precision float16 has a scale that divided weights do not share: use "
            "bfloat16, or --distributed ddp."
        )
    from scorefield.training.distributed import group  # which is slow to import

    local = torch.device(device)
    if device == "cuda":
        local = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(local)
    with group("fsdp" if kind == "fsdp" else "ddp", local) as workers:
        yield workers, local


def _run(console: Console, session: Session) -> None:
    """Train to the end, or to where a signal asks to stop."""
    training, done = session.training, session.done
    if not done and training.config.optim.minutes:
        training.pace()
        say(console, f"{training.fit.steps} steps in {training.config.optim.minutes:g} minutes")
        if session.every.checkpoint:
            session.save_checkpoint()
    total, began = training.fit.steps, time.monotonic()
    if done:
        names = " and ".join(training.damaged)
        said = f"checkpoint {names} damaged: " if names else ""
        say(console, f"{said}going on from step {done} of {total}")
    with asked_to_stop() as asked:
        for progress in track(
            console, training, total - done, "training", lambda: f"loss {training.loss:.4f}"
        ):
            stop = progress.step < total and _any(asked, training.workers)
            session.after(progress, stop)
            if stop:
                raise Stopped(
                    f"stopped after step {progress.step} of {total}; the same command goes on.",
                    asked[0] if asked else signal.SIGTERM,
                )
    session.finish()
    say(console, f"trained in {time.monotonic() - began:.1f} s, loss {training.loss:.4f}")
    say(console, f"run folder: {session.out}")


def _any(asked: list[int], workers: Workers) -> bool:
    """Return whether a process was asked to stop, the same answer in all."""
    return bool(workers.total(torch.tensor(len(asked))) > 0)


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Give a list that gets the signals to stop, instead of stopping at once; a second one does."""
    asked: list[int] = []

    def keep(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, keep) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _try(console: Console, training: Training) -> None:
    """Take three steps, and tell what the whole will cost."""
    import resource  # which not every system has

    steps, began = iter(training), time.monotonic()
    next(steps)
    first = time.monotonic() - began
    each = first
    if training.fit.steps > 2:
        began = time.monotonic()
        next(steps)
        next(steps)
        each = (time.monotonic() - began) / 2
    weights = 4 * parameters(training.denoiser.network)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    total = training.fit.steps
    say(
        console,
        f"a step takes {each:.2g} s after the first, with {first:.2g} s: {total} steps about "
        f"{first + each * (total - 1):.0f} s",
    )
    say(console, f"memory so far: {peak:.0f} MiB; the run folder: {weights / 2**20:.1f} MiB")
    say(console, "nothing was written")
