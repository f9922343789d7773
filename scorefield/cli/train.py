"""What `scorefield train` does: from a source of data to a run folder."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tomli_w
from rich.console import Console

from scorefield.cli.commands import parameters, say, track
from scorefield.cli.options import ReadOptions
from scorefield.config import TrainConfig
from scorefield.data import read
from scorefield.errors import Stopped, UsageError
from scorefield.training import checkpoint
from scorefield.training.run import refuse_existing
from scorefield.training.trainer import Training


def train(
    console: Console,
    source: str,
    out: Path | None,
    reading: ReadOptions,
    config: TrainConfig,
    *,
    checkpoint_every: int = 0,
    print_config: bool = False,
    dry_run: bool = False,
) -> None:
    """Train on a source and write the run folder, at the end and at once.

    On the way there checkpoints lie beside it, and the same command goes on from the last.
    """
    if checkpoint_every < 0:
        raise UsageError(f"--checkpoint-every {checkpoint_every}: give a number of steps, or 0.")
    if out is None and not (print_config or dry_run):
        raise UsageError("--out: name the run folder to write.")
    if out is not None:
        refuse_existing(out)
    if reading.labels is not None and not config.conditional:
        raise UsageError(f"--labels {reading.labels} has no effect without --conditional.")
    data = read(source, **reading.arguments())
    training = Training(data, config)
    if print_config:
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
    work, total, began = checkpoint.folder_of(out), config.optim.steps, time.monotonic()
    done = training.resume(work)
    if done:
        names = " and ".join(training.damaged)
        said = f"checkpoint {names} damaged: " if names else ""
        say(console, f"{said}going on from step {done} of {total}")
    with asked_to_stop() as asked:
        for progress in track(
            console, training, total - done, "training", lambda: f"loss {training.loss:.4f}"
        ):
            stop = bool(asked) and progress.step < total
            if stop or (checkpoint_every and progress.step % checkpoint_every == 0):
                training.save_checkpoint(work)
            if stop:
                raise Stopped(
                    f"stopped after step {progress.step} of {total}; the same command goes on.",
                    asked[0],
                )
    training.run.save(out)
    shutil.rmtree(work, ignore_errors=True)
    say(console, f"trained in {time.monotonic() - began:.1f} s, loss {training.loss:.4f}")
    say(console, f"run folder: {out}")


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
    if training.config.optim.steps > 2:
        began = time.monotonic()
        next(steps)
        next(steps)
        each = (time.monotonic() - began) / 2
    weights = 4 * parameters(training.denoiser.network)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    total = training.config.optim.steps
    say(
        console,
        f"a step takes {each:.2g} s after the first, with {first:.2g} s: {total} steps about "
        f"{first + each * (total - 1):.0f} s",
    )
    say(console, f"memory so far: {peak:.0f} MiB; the run folder: {weights / 2**20:.1f} MiB")
    say(console, "nothing was written")
