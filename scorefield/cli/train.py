"""`scorefield train`: from data to a run folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args

from cyclopts import Parameter
from pydantic import create_model

from scorefield._internal.errors import NumericalError, Stopped, UsageError
from scorefield._internal.text import one_line, printable
from scorefield.cli.console import console, leave_terminal, say, track
from scorefield.cli.options import (
    ITEMS,
    MODEL,
    OPTIMIZER,
    PROGRESS,
    WHERE,
    Device,
    ReadOptions,
    option,
)
from scorefield.training.config import CustomConfig, TrainConfig

if TYPE_CHECKING:
    import torch

    from scorefield.cli.session import Session
    from scorefield.runs.codecs import TrainedCodec
    from scorefield.runs.folder import RunFolder
    from scorefield.runs.trainer import Training
    from scorefield.training.workers import Workers

    Settings = TrainConfig

_HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # which not every system has
_HEADINGS = {
    "optim": OPTIMIZER,
    "conditional": ITEMS,
    "levels": ITEMS,
    "held_out": ITEMS,
    "evaluate_every": PROGRESS,
}


def _settings() -> type[TrainConfig]:
    """Return the settings with headings; the options of ``optim`` have no prefix.

    Without objects of the user's own, which an option cannot describe.
    """
    fields: dict[str, object] = {}
    for name, field in TrainConfig.model_fields.items():
        group, kinds = _HEADINGS.get(name, MODEL), get_args(field.annotation)
        annotation: Any = field.annotation
        if CustomConfig in kinds:
            annotation = Union[tuple(kind for kind in kinds if kind is not CustomConfig)]  # noqa: UP007
        parameter = Parameter(name="*" if name == "optim" else None, group=group)
        fields[name] = (Annotated[annotation, parameter], field)
    model: type[TrainConfig] = create_model("Settings", __base__=TrainConfig, **fields)  # type: ignore[call-overload]
    return model


if not TYPE_CHECKING:
    Settings = _settings()


def train(
    data: str,
    /,
    *,
    to: Annotated[str | None, option(ITEMS)] = None,
    codec: Annotated[Path | None, option(ITEMS)] = None,
    reading: ReadOptions = ReadOptions(),
    network: Annotated[str | None, option(MODEL, "auto")] = None,
    settings: Annotated[Settings | None, Parameter(name="*")] = None,
    log_every: Annotated[int, option(PROGRESS)] = 50,
    sample_every: Annotated[int, option(PROGRESS)] = 1000,
    checkpoint_every: Annotated[int, option(PROGRESS)] = 500,
    keep_every: Annotated[int, option(PROGRESS)] = 0,
    keep_best: Annotated[bool, option(PROGRESS)] = False,
    tracker: Annotated[Literal["tensorboard", "wandb", "trackio"] | None, option(PROGRESS)] = None,
    out: Annotated[Path | None, option(WHERE)] = None,
    config: Annotated[Path | None, option(WHERE)] = None,
    distributed: Annotated[Literal["auto", "ddp", "fsdp"], option(WHERE)] = "auto",
    device: Device = "cpu",
    print_config: Annotated[bool, option(WHERE)] = False,
    dry_run: Annotated[bool, option(WHERE)] = False,
) -> None:
    """Train a score field on data and write a run folder.

    Run the same command again to resume training that was interrupted. After Ctrl-C, SIGTERM or
    the loss of its terminal it saves a checkpoint at the end of the current step.

    Parameters
    ----------
    data
        A file of vectors (N, D), signals (N, C, L) or images (N, C, H, W): .npy, .npz, idx; a
        table: .csv, .tsv, .txt, .jsonl, .parquet; cells: .h5ad; a folder of images; or a built-in
        set: digits, digits-test, checkerboard, moons, rings, spiral.
    to
        A second data set of the same shape. The run translates the first one to it, and back; its
        process, parametrization, weighting and times are those of flow matching by default.
    codec
        Folder of `scorefield codec`: the run learns its latents, and decodes its samples.
    network
        Kind of network, as --network.kind. Or your own network, package.module:factory: the factory
        is called without arguments and returns a torch.nn.Module or a Denoiser.
    log_every
        Steps between lines of log.jsonl, which also has the last step; 0 for no lines.
    sample_every
        Steps between grids of samples 0 to 63, written to samples/; 0 for none.
    checkpoint_every
        Steps between checkpoints, next to the run folder until that is written; 0 for none. The
        same command resumes from the last one, and ends with the same weights.
    keep_every
        Steps between checkpoints that stay in the run, in checkpoints/; 0 for none.
    keep_best
        Also keep the checkpoint with the smallest error on held-out data.
    tracker
        Also send the numbers of the log to this tracker.
    out
        The run folder to write. It must not exist, or be empty; the finished run of the same
        command stays as it is. Required for training.
    config
        A TOML file of settings, or the config.toml of a run. Options of the command line override
        it.
    distributed
        How the workers that torchrun started divide the work: ddp divides each batch, fsdp also
        the weights; auto is ddp.
    print_config
        Print the settings as TOML, with every default, and exit.
    dry_run
        Take three steps, print the time, the memory and the sizes, and exit.
    """
    import scorefield as sf
    from scorefield._internal.factory import make_network
    from scorefield.cli.session import Every, Session
    from scorefield.runs.build import NONE, Objects
    from scorefield.runs.folder import RunFolder
    from scorefield.runs.summary import parameters
    from scorefield.runs.trainer import FLOW, SPACE, Training

    if out is None and not (print_config or dry_run):
        raise UsageError("--out: name the run folder to write.")
    if out is not None and not RunFolder(out).is_written:
        RunFolder(out).refuse_existing()
    config_ = TrainConfig() if settings is None else TrainConfig(**dict(settings))
    if to is not None:
        config_ = _with(FLOW, config_, settings)
    if reading.space is None and config_.process.kind == "brownian":
        reading = replace(reading, space=config_.process.space)
    if reading.space is not None:
        config_ = _with(SPACE, config_, settings)
    objects = NONE if network is None else Objects.of(make_network(network))
    if reading.conditions is not None and not config_.conditional:
        config_ = config_.model_copy(update={"conditional": True})
    every = Every(log_every, sample_every, checkpoint_every, keep_every)
    items = sf.read(data, **vars(reading))
    with _workers(distributed, device, config_) as (workers, local):
        console.quiet = not workers.first
        source = None
        if to is not None:
            items, source = sf.read(to, **vars(reading)), items
        latents = None if codec is None else _codec(codec)
        training = Training(items, config_, workers, local, objects, source, latents)
        if print_config:
            _print_config(training)
            return
        say(
            f"{len(items.x)} samples of shape {items.shape} from {items.name}; "
            f"{parameters(training.denoiser.network):,} parameters"
        )
        for note in training.data.notes:
            say(f"note: {note}")
        if dry_run:
            _try(training)
            return
        assert out is not None
        with _alone(out, workers.first):
            if _is_finished(training, RunFolder(out)):
                return
            _run(Session(training, out, every, keep_best, tracker))


def _codec(folder: Path) -> TrainedCodec:
    from scorefield.runs.codecs import load_codec

    return load_codec(folder)


def _with(kinds: dict[str, str], config: TrainConfig, settings: TrainConfig | None) -> TrainConfig:
    """Return a configuration with the kinds of some settings where none was chosen."""
    chosen = set() if settings is None else settings.model_fields_set
    rest = {name: {"kind": kind} for name, kind in kinds.items() if name not in chosen}
    return TrainConfig.model_validate({**dict(config), **rest})


def _print_config(training: Training) -> None:
    import tomli_w

    if training.workers.first:
        print(printable(tomli_w.dumps(training.config.model_dump(exclude_none=True))), end="")


@contextmanager
def _workers(kind: str, device: str, config: TrainConfig) -> Iterator[tuple[Workers, torch.device]]:
    """Yield the workers that train, and the device of this one.

    Raises:
        UsageError: the device does not exist; workers were not started; float16 with fsdp.
    """
    import torch

    from scorefield._internal.devices import find_device
    from scorefield.training.workers import SingleWorker

    local = find_device(device)
    if "WORLD_SIZE" not in os.environ:
        if kind != "auto":
            raise UsageError(
                f"--distributed {kind}: start the workers with torchrun, as in torchrun "
                f"--nproc-per-node 2 -m scorefield train ... --distributed {kind}"
            )
        yield SingleWorker(), local
        return
    if kind == "fsdp" and config.optim.precision == "float16":
        raise UsageError(
            "--precision float16 needs one scale for all weights, which fsdp divides: use "
            "bfloat16, or --distributed ddp."
        )
    from scorefield.training.distributed import group  # which is slow to import

    if device == "cuda":
        local = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(local)
    with group("fsdp" if kind == "fsdp" else "ddp", local) as workers:
        yield workers, local


@contextmanager
def _alone(out: Path, writes: bool) -> Iterator[None]:
    """Exclude other trainings to the same run folder.

    Raises:
        StorageError: there is one.
    """
    from scorefield._internal.lock import lock
    from scorefield.training.checkpoint import folder_of

    if not writes:
        yield
        return
    with lock(folder_of(out), f"--out {out}") as locked:
        if not locked:
            say(f"{out}: no locks here, so do not start another training to this folder")
        yield


def _is_finished(training: Training, folder: RunFolder) -> bool:
    """Return whether this command has written the run before; clean up after kills.

    Raises:
        UsageError: the folder holds something else.
    """
    from scorefield.training import checkpoint

    if training.workers.first:
        folder.clear_leftovers()
    if not training.is_in(folder):
        folder.refuse_existing()
        return False
    if training.workers.first:
        checkpoint.clear(checkpoint.folder_of(folder.path))  # of a kill after the last step
    say(f"run folder: {folder.path}, which this command has finished before")
    return True


def _run(session: Session) -> None:
    """Train to the end, or until a signal to stop."""
    training, first = session.training, session.done
    if not first and training.config.optim.minutes:
        training.pace()
        say(f"{training.fit.steps} steps in {training.config.optim.minutes:g} minutes")
        if session.every.checkpoint:
            session.save_checkpoint()
    total, began = training.fit.steps, time.monotonic()
    if first:
        names = " and ".join(training.damaged)
        note = f"checkpoint {names} damaged: " if names else ""
        say(f"{note}resuming from step {first} of {total}")
        if training.changed:
            texts = (f"{name} {change}" for name, change in training.changed.items())
            say(one_line(f"the last bits may differ: the checkpoint has {'; '.join(texts)}"))
    steps = track(training, total - first, "training", lambda: f"loss {training.loss:.4f}")
    with stop_signals() as signals, _saving(session):
        for progress in steps:
            stop = progress.step < training.fit.last and _any(signals, training.workers)
            session.after(progress, stop)
            if stop:
                raise Stopped(
                    f"stopped after step {progress.step} of {total}; the same command resumes.",
                    signals[0] if signals else signal.SIGTERM,
                )
    session.finish()
    say(f"trained in {time.monotonic() - began:.1f} s, loss {training.loss:.4f}")
    say(training.summary)
    say(f"run folder: {session.out}")


@contextmanager
def _saving(session: Session) -> Iterator[None]:
    """Save the last finite step if the training diverges.

    Raises:
        NumericalError: with how to continue.
    """
    try:
        yield
    except NumericalError as error:
        step = session.training.fit.step
        if not (session.training.fit.diverged and step and session.every.checkpoint):
            raise
        session.save_checkpoint()
        raise NumericalError(
            f"{error} With a lower --lr this continues from step {step}."
        ) from None


def _any(signals: list[int], workers: Workers) -> bool:
    """Return whether any worker received a signal, the same answer in all."""
    import torch

    return bool(workers.total(torch.tensor(len(signals))) > 0)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list that collects the signals to stop, so that a step ends; a second Ctrl-C raises.

    SIGHUP says that the terminal is gone, so nothing more is printed; `nohup` has it ignored.
    """
    signals: list[int] = []

    def collect(number: int, frame: object) -> None:
        if number == signal.SIGINT and signal.SIGINT in signals:
            raise KeyboardInterrupt
        if number == _HANGUP:
            leave_terminal()
        signals.append(number)

    numbers = {signal.SIGINT, signal.SIGTERM, _HANGUP}
    ignored = {k for k in numbers if signal.getsignal(k) is signal.SIG_IGN}
    before = {k: signal.signal(k, collect) for k in numbers - ignored}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _try(training: Training) -> None:
    """Take three steps, and print the cost of the whole training."""
    import resource  # which not every system has

    from scorefield.runs.summary import parameters
    from scorefield.training.pace import steps_at

    steps, began = iter(training.fit), time.monotonic()
    next(steps)
    first = each = time.monotonic() - began
    if training.fit.steps > 2:
        began = time.monotonic()
        next(steps)
        next(steps)
        each = (time.monotonic() - began) / 2
    weights = 4 * parameters(training.denoiser.network)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    minutes = training.config.optim.minutes
    total = steps_at(each, minutes) if minutes else training.fit.steps
    say(
        f"a step takes {each:.2g} s after the first, with {first:.2g} s: {total} steps about "
        f"{first + each * (total - 1):.0f} s"
    )
    say(f"memory so far: {peak:.0f} MiB; the run folder: {weights / 2**20:.1f} MiB")
    say("nothing was written")
