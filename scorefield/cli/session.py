"""Everything around the steps of a training: log, evaluations, samples, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scorefield._internal.atomic_files import write
from scorefield._internal.errors import NumericalError, StorageError, UsageError
from scorefield.cli.console import say
from scorefield.runs.folder import CHECKPOINTS
from scorefield.runs.quality import affordable
from scorefield.runs.run import Run
from scorefield.runs.trackers import Tracker, tracker
from scorefield.runs.trainer import Evaluation, Training
from scorefield.training import checkpoint
from scorefield.training.held_out import bins
from scorefield.training.log import FINAL, NAME, Log
from scorefield.training.steps import Progress

_IDS = range(64)  # of the samples drawn on the way


@dataclass(frozen=True)
class Every:
    """Steps between lines of the log, samples and checkpoints; 0 for never.

    Raises:
        UsageError: a negative number.
    """

    log: int = 50
    sample: int = 1000
    checkpoint: int = 500
    keep: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise UsageError(f"--{name}-every {value}: give a number of steps, or 0.")


class Session:
    """A training on its way to a run folder, in a process that has the lock of its work folder.

    Its files are in a folder next to that of the run until training ends. A checkpoint has
    everything up to its step; log lines after it are written again.

    Args:
        out: the run folder to come.
        every: the intervals.
        best: also keep the checkpoint with the smallest error on held-out data.
        track: a kind of `scorefield.runs.trackers.tracker`, or None.

    Raises:
        UsageError: ``best`` without held-out data, or a tracker that is not installed; and as
            `Training.resume`.
        StorageError: as `Training.resume`, or workers with different folders.
    """

    def __init__(
        self,
        training: Training,
        out: Path,
        every: Every,
        best: bool = False,
        track: str | None = None,
    ) -> None:
        if best and not training.config.held_out:
            raise UsageError("--keep-best has no effect without --held-out.")
        self.training, self.every, self.best = training, every, best
        self.out, self.work = out, checkpoint.folder_of(out)
        self.writes = training.workers.first
        if self.writes:
            # without a checkpoint nothing can be resumed
            checkpoint.clear(self.work, every=not checkpoint.steps(self.work))
        self.done = training.resume(self.work)
        if len(set(training.workers.gathered(self.done))) > 1:
            raise StorageError(
                f"the workers have different checkpoints in {self.work}: give all workers the same "
                "folder."
            )
        self.log = Log(self.work / NAME, self.done) if self.writes else None
        self.tracker: Tracker | None = None
        if track is not None and self.writes:
            settings = training.config.model_dump(mode="json")
            self.tracker = tracker(track, self.work / track, out.name, settings, self.done)
        self._mark = time.monotonic(), self.done

    def after(self, progress: Progress, stop: bool = False) -> None:
        """Log, evaluate, sample and save if it is time; always save if training stops here."""
        step, total = progress.step, self.training.fit.last

        def due(interval: int, last: bool = False) -> bool:
            return bool(interval) and (step % interval == 0 or (last and step == total))

        if due(self.every.log, last=True):
            self._log_step(progress)
        evaluation = self.training.evaluation
        if evaluation is not None and evaluation.step == step:
            self._log_evaluation(evaluation)
        better = self._is_best(step)
        if due(self.every.sample):
            self._sample(step)
        if stop or due(self.every.checkpoint) or due(self.every.keep) or (better and self.best):
            self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Save a checkpoint, next to the last one and to the permanent ones."""
        self.training.save_checkpoint(self.work, self._stays)

    def _stays(self, step: int) -> bool:
        return (self.best and self._is_best(step)) or (
            step > 0 < self.every.keep and step % self.every.keep == 0
        )

    def finish(self) -> None:
        """Write the run folder with log, samples and checkpoints, and remove the working folder."""
        run = self.training.run
        if not self.writes:
            return
        self._compare(run)
        if self.tracker is not None:
            self.tracker.close()
        names = [NAME, "samples", "tensorboard"]
        include = {name: self.work / name for name in names if (self.work / name).exists()}
        for step in checkpoint.steps(self.work):
            if self._stays(step):
                name = checkpoint.name(step)
                include[f"{CHECKPOINTS}/{name}"] = self.work / name
        run.save(self.out, include)
        checkpoint.clear(self.work)

    def _compare(self, run: Run) -> None:
        """Print the distances of samples to held-out data and to the closest training records."""
        began, fit = time.monotonic(), self.training.fit
        if run.field.between_data:
            say("no samples were compared with the data: a translation needs data to start from")
            return
        if run.config.data.lengths:
            say("no samples were compared with the data: signals have several lengths")
            return
        count = affordable(fit.step, fit.optim.batch_size, len(self.training.learned))
        if not count:
            say("no samples were compared with the data: there are few steps or few data")
            return
        try:
            quality = self.training.compare(run, count)
        except NumericalError as error:
            say(f"no samples to compare: {error}")
            return
        say(str(quality))
        seconds = time.monotonic() - began
        self._record(FINAL, fit.last, {**quality.record, "seconds": seconds})

    def _log_step(self, progress: Progress) -> None:
        self.training.fit.settle()
        now, (before, step) = time.monotonic(), self._mark
        self._mark = now, progress.step
        pace = (progress.step - step) / max(now - before, 1e-9)
        values = {
            "loss": self.training.loss,
            "grad_norm": _finite(progress.norm),
            "lr": progress.lr,
            "samples_per_second": pace * self.training.config.optim.batch_size,
            "seconds": self.training.seconds,
            "memory_mib": _memory(self.training.fit.device),
            "eta_seconds": (self.training.fit.last - progress.step) / pace,
        }
        self._record("train", progress.step, values)

    def _is_best(self, step: int) -> bool:
        best = self.training.course.best
        return best is not None and best[0] == step

    def _log_evaluation(self, evaluation: Evaluation) -> None:
        """Print the error on held-out data."""
        step, mean, levels, seconds = evaluation
        edges = bins(self.training.denoiser.process).exp().tolist()
        say(
            f"held out, step {step}: error {mean:.4f} relative to "
            f"{self.training.data_config.baseline}; "
            f"{' '.join(f'{value:.3f}' for value in levels)} from sigma/alpha {edges[0]:.2g} to "
            f"{edges[-1]:.2g}",
        )
        values = {"error": _finite(mean), "levels": list(map(_finite, levels)), "edges": edges}
        self._record("evaluation", step, {**values, "seconds": seconds})

    def _sample(self, step: int) -> None:
        if self.training.source is not None:
            return
        try:
            x = self.training.averaged.sample(_IDS, seed=self.training.config.seed)
        except NumericalError as error:  # early weights may be anything
            say(f"no samples at step {step}: {error}")
            return
        if not self.writes:
            return
        folder = self.work / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        path = _write_samples(folder / f"samples-{step}", x.cpu(), self.work)
        self._record("samples", step, {"file": f"samples/{path.name}"})

    def _record(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.add(event, step, values)
        if self.tracker is not None:
            flat = dict(values)
            flat |= {f"level-{k}": value for k, value in enumerate(flat.pop("levels", []))}
            numbers = {k: float(v) for k, v in flat.items() if isinstance(v, float | int)}
            if numbers:
                self.tracker.add(step, {f"{event}/{k}": v for k, v in numbers.items()})


def _write_samples(stem: Path, x: torch.Tensor, work: Path) -> Path:
    """Write a picture of images if possible, otherwise an array, inside a folder."""
    if x.ndim == 4 and x.shape[1] in (1, 3):
        from scorefield.report import image_grid

        try:
            picture = stem.with_suffix(".png")
            write(picture, lambda file: image_grid(x, file), folder=work)
            return picture
        except ImportError:
            pass
    array = stem.with_suffix(".npy")
    write(array, lambda file: np.save(file, x.numpy()), folder=work)
    return array


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _memory(device: torch.device) -> float:
    """Return the peak memory of the device, or of this process, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # which not every system has

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
