"""What the commands do."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import tomli_w
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from torch import Tensor

from scorefield.cli.options import ReadOptions
from scorefield.cli.text import one_line
from scorefield.config import TrainConfig
from scorefield.data import inspect, read
from scorefield.errors import NumericalError, Stopped, UsageError
from scorefield.files import write
from scorefield.training import checkpoint
from scorefield.training.run import Run, load, refuse_existing
from scorefield.training.trainer import Training

T = TypeVar("T")


def say(console: Console, text: str) -> None:
    """Print one line as it is: a long path stays in one piece."""
    console.print(text, soft_wrap=True)


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
        f"{_parameters(training.denoiser.network):,} parameters",
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
    weights = 4 * _parameters(training.denoiser.network)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    total = training.config.optim.steps
    say(
        console,
        f"a step takes {each:.2g} s after the first, with {first:.2g} s: {total} steps about "
        f"{first + each * (total - 1):.0f} s",
    )
    say(console, f"memory so far: {peak:.0f} MiB; the run folder: {weights / 2**20:.1f} MiB")
    say(console, "nothing was written")


def draw(console: Console, images: Tensor, path: Path, columns: int | None = None) -> None:
    """Draw images ``(N, C, H, W)``, if they are of one or three channels."""
    if images.shape[1] not in (1, 3):
        return
    from scorefield.report import image_grid

    try:
        image_grid(images, path, columns=columns)
        say(console, f"picture: {path}")
    except ImportError as error:
        say(console, f"no picture: {error}")


def certify(console: Console, what: str, out: Path | None, overwrite: bool) -> None:
    """Print a table of certificates, and write it if asked to.

    Raises:
        NumericalError: a solver failed.
    """
    from scorefield import certify as certificates

    if out is not None and out.exists() and not overwrite:
        raise UsageError(f"{out} exists already: give another --out, or --overwrite.")
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"{out}: give a name in a folder that exists.")
    solver_names, process_names = certificates.choose(what)
    lines, failed = certificates.header(process_names), []
    for text in lines:
        say(console, text)
    for solver in solver_names:
        made = [certificates.certify(solver, process) for process in process_names]
        failed += [f"{c.solver} on {c.process}" for c in made if not c.passed]
        lines.append(certificates.line(made))
        say(console, lines[-1])
    if out is not None:
        write_text(out, "\n".join(lines) + "\n")
    count = len(solver_names) * len(process_names)
    if failed:
        raise NumericalError(f"{len(failed)} of {count} certificates fail: {', '.join(failed)}.")
    say(console, f"all {count} certificates pass")


def inspect_data(console: Console, source: str, reading: ReadOptions) -> None:
    """Print a table of what a source of data holds."""
    table = Table(show_header=False, box=None)
    for name, text in inspect(source, **reading.arguments()).items():
        table.add_row(name, one_line(text))
    console.print(table)


def info(console: Console, folder: Path) -> None:
    """Print a table of what a run is."""
    run = load(folder)
    process, data, config = run.field.process, run.config.data, run.config.train
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    low, high = torch.exp(-process.half_log_snr(ends)).tolist()
    table = Table(show_header=False, box=None)
    rows = {
        "data": f"{data.name}: {data.count} samples of shape {data.shape}",
        "values": f"whole numbers in {config.levels} levels" if config.levels else "continuous",
        "classes": str(data.classes) if data.classes else "none",
        "process": f"{process}",
        "noise levels": f"sigma/alpha from {low:.3g} to {high:.3g}",
        "parametrization": f"{run.field.parametrization}",
        "network": f"{config.network}, {_parameters(run.field.network):,} parameters",
        "training": f"{config.optim.steps} steps of {config.optim.batch}, seed {config.seed}",
        "loss": f"{run.config.loss:.4f}",
        "files": ", ".join(sorted(path.name for path in folder.iterdir())),
    }
    for name, text in rows.items():
        table.add_row(name, one_line(text))
    console.print(table)


def track(
    console: Console,
    work: Iterable[T],
    total: int,
    title: str,
    note: Callable[[], str] = lambda: "",
) -> Iterator[T]:
    """Yield from ``work`` with a progress bar and ETA; every tenth as a line if not a terminal."""
    if not console.is_terminal:
        began, marks = time.monotonic(), max(1, total // 10)
        for done, item in enumerate(work, 1):
            yield item
            if done % marks == 0 and done < total:
                left = (time.monotonic() - began) / done * (total - done)
                say(console, f"{title} {done}/{total} {note()} ETA {left:.0f} s")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, note="")
        for item in work:
            yield item
            bar.update(task, advance=1, note=note())


def write_text(path: Path, text: str) -> None:
    """Write a text file at once or not at all."""
    write(path, lambda file: file.write(text.encode()))


def find_class(run: Run, y: str | None) -> int | None:
    """Return the number of a class that is asked for by its number or its name.

    Raises:
        UsageError: the run does not know it.
    """
    classes, names = run.config.data.classes, run.config.data.class_names
    if y is None:
        return None
    if not classes:
        raise UsageError(f"--y {y}: this run has no classes; train with --conditional.")
    if y in names:
        return names.index(y)
    if not (y.isdecimal() and int(y) < classes):
        known = f", {', '.join(names[:8])}" if names else ""
        raise UsageError(f"--y {y}: this run knows the classes 0 to {classes - 1}{known}.")
    return int(y)


def _parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
