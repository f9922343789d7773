"""A run folder: the one class that reads and writes the files of a run.

==========================  =====================================================================
``config.toml``             the configuration
``model.safetensors``       weights, data transform and moments of the data
``ema-DECAY.safetensors``   weights averaged with another decay
``checkpoints/STEP/``       checkpoints of the training that were kept
``plans/nfe-N.json``        plans of ``N`` network calls (``nfe-N-guidance-W.json`` with guidance)
``frontier.json``           measurements of plans (``frontier-yK-guidance-W.json`` of a class)
``log.jsonl``, ``samples``  the log of the training, and samples drawn during it
``SHA256SUMS``              digests of these files
==========================  =====================================================================

Files of a folder are data from anywhere: they are checked before they are used, and nothing that a
file names is ever imported.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from pydantic import ValidationError
from safetensors.torch import save as serialise
from torch import Tensor, nn

from scorefield._internal import files, toml
from scorefield._internal.atomic_files import check_place, in_room, publish
from scorefield._internal.errors import CheckpointError, DataError, StorageError, UsageError
from scorefield._internal.frozen import Frozen
from scorefield._internal.hub import snapshot
from scorefield.field import ScoreField
from scorefield.runs import digests, weights
from scorefield.runs.weights import CONFIG
from scorefield.sampling import Plan
from scorefield.training.config import RunConfig

if TYPE_CHECKING:
    from scorefield.data import Data
    from scorefield.tuning.frontier import Frontier
    from scorefield.tuning.tried import Tried

WEIGHTS = "model.safetensors"
CHECKPOINTS, PLANS, SAMPLES, FRONTIER = "checkpoints", "plans", "samples", "frontier.json"

_GUIDANCE = "-guidance-"
_ROUNDS = "-rounds-"
_SYSTEM = ("._", ".DS_Store", "lost+found")  # names of files that systems make in any folder
_WRITING = ".writing-"  # in the name of a folder that is being written
# the settings of training, which do not apply to a run that was not trained here
_OBJECTIVE = ("weighting", "times", "optim")


class RunFolder:
    """The files of one run.

    Nothing is read before a method asks for it. A file of another run, or one that was damaged,
    raises `CheckpointError` with its path.

    Args:
        path: of the folder; it need not exist yet. Of a repository in the cache of the Hugging Face
            hub, the snapshot of its main branch.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = snapshot(Path(path))

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    # --- configuration and weights

    @cached_property
    def config(self) -> RunConfig:
        """The configuration of the run.

        Raises:
            CheckpointError: the folder does not exist, or the file cannot be read.
        """
        if not self.path.is_dir():
            raise CheckpointError(
                f"{self.path}: this run folder does not exist; train a run first."
            )
        path = self.path / CONFIG
        try:
            with files.reading(path, "", CheckpointError):
                values = toml.read(path, self.path)
            if values.get("format") == "codec":
                raise CheckpointError(
                    f"{path} is the configuration of a codec: train a run with --codec {self.path}."
                )
            return RunConfig.model_validate(values)
        except ValidationError as error:
            raise CheckpointError(
                f"{path} is not the configuration of a run: {first_problem(error)}."
            ) from None

    def tensors(
        self,
        ema: float | None = None,
        checkpoint: int | None = None,
        network: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Return all tensors of the run, which match its configuration.

        Args:
            ema: the decay of the average of the weights, one of ``optim.ema``; by default the
                first.
            checkpoint: the step of a checkpoint that was kept; by default the last step.
            network: the user's own, if the run has one.

        Raises:
            CheckpointError: a file is missing, damaged or larger than memory, or the weights do
                not match the configuration.
            UsageError: the run has no such average or checkpoint.
        """
        decays = self.config.train.optim.ema
        if ema is not None and ema not in decays:
            available = ", ".join(map(str, decays))
            raise UsageError(
                f"ema={ema:g}: {self.path} has averages of decay {available}; choose one of them."
            )
        average = 0 if ema is None else decays.index(ema)
        expected = weights.outlines(self.config, self.path / CONFIG, network)
        reference = CONFIG if network is None else f"network={type(network).__name__}"
        path = weights.plain_file(self.path, WEIGHTS)
        tensors = weights.read_tensors(path, expected, reference)
        part = {name: value for name, value in expected.items() if name.startswith("network.")}
        if checkpoint is not None:
            folder = self.path / CHECKPOINTS
            tensors |= weights.read_checkpoint(
                folder, checkpoint, self.config.train, average, part, reference
            )
        elif average:
            path = weights.plain_file(self.path, average_name(decays[average]))
            tensors |= weights.read_tensors(path, part, reference)
        weights.check_moments(self.path / WEIGHTS, tensors)
        return tensors

    def check_unchanged(self) -> None:
        """Reject weights or a configuration that have changed since the run was written.

        Raises:
            CheckpointError: naming the file.
        """
        averages = [average_name(decay) for decay in self.config.train.optim.ema[1:]]
        digests.check(self.path, (CONFIG, WEIGHTS, *averages))

    @property
    def checkpoints(self) -> list[int]:
        """The steps of the checkpoints that were kept."""
        from scorefield.training import checkpoint

        return checkpoint.steps(self.path / CHECKPOINTS)

    @property
    def mark(self) -> str:
        """A digest of weights and configuration, hexadecimal."""
        result = hashlib.sha256()
        for name in (WEIGHTS, CONFIG):
            with files.reading(self.path / name, "", CheckpointError):
                result.update(files.read(self.path / name, folder=self.path))
        return result.hexdigest()

    # --- tuned plans

    def plan_path(self, nfe: int, guidance: float = 1.0, rounds: int | None = None) -> Path:
        """Return the path of the plan of ``nfe`` calls under a guidance; it need not exist."""
        of_rounds = "" if rounds in (None, nfe) else f"{_ROUNDS}{rounds}"
        return self.path / PLANS / f"nfe-{nfe}{of_rounds}{guidance_suffix(guidance)}.json"

    def plan(
        self, field: ScoreField, nfe: int, guidance: float = 1.0, rounds: int | None = None
    ) -> Plan | None:
        """Return the plan that was tuned for a field and ``nfe`` calls, or None.

        Args:
            field: the run's field under the guidance, `Run.conditional`.
            rounds: of calls that are made at once, as for `scorefield.Tuner.tune`.

        Raises:
            CheckpointError: the file does not hold a tuned plan, or a plan for another field.
        """
        path = self.plan_path(nfe, guidance, rounds)
        return _tuned_plan(path, field, self.path) if os.path.lexists(path) else None

    def plans(
        self,
        field: ScoreField,
        guidance: float = 1.0,
        skip: Callable[[str], None] | None = None,
    ) -> dict[int, Plan]:
        """Return the plans that were tuned for a field, by their calls, in ascending order.

        Those of several calls at once are in `parallel_plans`.

        Args:
            field: the run's field under the guidance, `Run.conditional`.
            skip: called with a message for each file that cannot be used, which is then skipped.

        Raises:
            CheckpointError: as `plan`, without ``skip``.
        """
        plans = self._plans(field, guidance, skip, parallel=False)
        return {nfe: plan for (nfe, _), plan in plans.items()}

    def parallel_plans(
        self,
        field: ScoreField,
        guidance: float = 1.0,
        skip: Callable[[str], None] | None = None,
    ) -> dict[tuple[int, int], Plan]:
        """Return the plans with several calls at once, by their calls and rounds, as `plans`."""
        return self._plans(field, guidance, skip, parallel=True)

    def _plans(
        self,
        field: ScoreField,
        guidance: float,
        skip: Callable[[str], None] | None,
        *,
        parallel: bool,
    ) -> dict[tuple[int, int], Plan]:
        suffix, plans = guidance_suffix(guidance), {}
        for path in sorted((self.path / PLANS).glob("nfe-*.json")):
            name, *scale = path.stem.removeprefix("nfe-").partition(_GUIDANCE)
            nfe, several, rounds = name.partition(_ROUNDS)
            counts = [nfe, rounds] if several else [nfe]
            if not all(map(str.isdecimal, counts)) or "".join(scale) != suffix:
                continue
            if bool(several) is not parallel:
                continue
            try:
                plans[int(nfe), int(rounds or nfe)] = _tuned_plan(path, field, self.path)
            except CheckpointError as error:
                if skip is None:
                    raise
                skip(str(error))
        return dict(sorted(plans.items()))

    def save_plan(
        self,
        plan: Plan,
        guidance: float = 1.0,
        *,
        nfe: int | None = None,
        rounds: int | None = None,
    ) -> Path:
        """Write a tuned plan, at once or not at all, and return its path.

        Args:
            nfe, rounds: those it was tuned for, by default the plan's own calls.

        Raises:
            ValueError: a plan that was not tuned, or whose solver cannot be written.
            StorageError: no room on the disk, or a link in place of the file.
        """
        if plan.tuning is None:
            raise ValueError("plan: only a tuned plan belongs to a run; use Plan.save for others.")
        path = self.plan_path(nfe or plan.tuning.nfe, guidance, rounds)
        check_place(path, self.path)
        path.parent.mkdir(exist_ok=True)
        with digests.rewriting(path, self.path):
            plan.save(path)
        return path

    def tried(
        self, nfe: int, guidance: float, facts: Mapping[str, Any], rounds: int | None = None
    ) -> Tried:
        """Return the record of the search for a plan, so that an interrupted search continues.

        Raises:
            StorageError: a link in place of the plan's file or of the record.
        """
        from scorefield.tuning.tried import Tried

        path = self.plan_path(nfe, guidance, rounds)
        check_place(path, self.path)
        facts = {"nfe": nfe, "rounds": rounds or nfe, **facts}
        return Tried(path.with_name(f".{path.stem}.tried"), facts)

    # --- the frontier

    def frontier_path(self, given: str = "", guidance: float = 1.0) -> Path:
        """Return the path of a frontier, whether it exists or not.

        Args:
            given: the `Run.given_name` of the conditions.
        """
        if not given:
            return self.path / FRONTIER
        return self.path / f"frontier-{given}{guidance_suffix(guidance)}.json"

    def frontier(
        self, field: ScoreField | None = None, given: str = "", guidance: float = 1.0
    ) -> Frontier | None:
        """Return the measurements of `Run.compare`, or None.

        Args:
            field: that it must have been measured on; by default it is not checked.
            given, guidance: as for `frontier_path`.

        Raises:
            CheckpointError: the file does not hold a frontier, or one of another field.
        """
        from scorefield.tuning.frontier import Frontier

        path = self.frontier_path(given, guidance)
        if not os.path.lexists(path):
            return None
        try:
            frontier = Frontier.load(path, self.path)
            if field is not None:
                frontier.check(field)
        except ValueError as error:
            raise _unusable(path, error) from None
        digests.check(self.path, (path.name,))
        return frontier

    def save_frontier(self, frontier: Frontier, path: Path) -> None:
        """Write the measurements of a comparison, in the folder or elsewhere.

        Raises:
            StorageError: no room on the disk, or a link in place of the file.
        """
        with digests.rewriting(path, self.path):
            frontier.save(path)

    # --- data and log

    def held_out(self, data: Data) -> Tensor:
        """Return the numbers of the items that training held out, of the data that it was given.

        Raises:
            UsageError, DataError: as `held_out_items`.
        """
        return held_out_items(self.config, data)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The records of the training; empty without a log."""
        from scorefield.training.log import NAME, records

        path = self.path / NAME
        return records(path) if os.path.lexists(path) else []

    @property
    def samples(self) -> list[Path]:
        """The files of samples that were drawn during training, by step."""
        paths = (self.path / SAMPLES).glob("samples-*.*")
        own = [path for path in paths if path.is_file() and not files.leads_out(path, self.path)]
        return sorted(own, key=lambda path: (len(path.stem), path.stem))

    @property
    def measurements(self) -> dict[str, Path]:
        """The files that were measured on the run, by their names: log, plans and frontiers.

        Links that lead out of the folder are excluded.
        """
        paths = [self.path / "log.jsonl", *self.path.glob("frontier*.json")]
        paths += (self.path / PLANS).glob("nfe-*.json")
        own = [path for path in paths if path.is_file() and not files.leads_out(path, self.path)]
        return {path.relative_to(self.path).as_posix(): path for path in own}

    # --- writing

    def write(
        self,
        config: RunConfig,
        tensors: Mapping[str, Tensor],
        averages: Mapping[float, Mapping[str, Tensor]],
        plans: Mapping[tuple[float, int], Plan],
        include: Mapping[str, Path | str],
    ) -> None:
        """Write a new run folder, at once or not at all.

        Args:
            averages: the network's weights averaged with other decays, by the decay.
            plans: that were tuned, by guidance and network calls.
            include: files and folders to copy into it, or texts, by their names there.

        Raises:
            UsageError: the folder exists and is not empty.
            StorageError: no room on the disk.
        """
        self.refuse_existing()
        path = Path(os.path.realpath(self.path))  # a link to a new or empty folder is followed
        parts = {WEIGHTS: tensors}
        for decay, average in averages.items():
            parts[average_name(decay)] = {f"network.{k}": v for k, v in average.items()}
        weights.check_types(tensors)
        contents = {name: serialise(_separate(part)) for name, part in parts.items()}
        text = config_text(config)
        with new_folder(path, sum(map(len, contents.values()))) as aside:
            for name, content in contents.items():
                (aside / name).write_bytes(content)
            (aside / CONFIG).write_text(text, encoding="utf-8")
            for name, source in include.items():
                _copy(source, aside / name)
            for (guidance, _), plan in plans.items():
                RunFolder(aside).save_plan(plan, guidance)

    @property
    def is_written(self) -> bool:
        """Whether there is a configuration, the last file to be written."""
        return (self.path / CONFIG).is_file()

    def clear_leftovers(self) -> None:
        """Remove the folders that writing this run has left where it was killed."""
        path = Path(os.path.realpath(self.path))
        for place in (path, path.parent):
            for rest in place.glob(f".{glob.escape(path.name)}{_WRITING}*"):
                shutil.rmtree(rest, ignore_errors=True)

    def refuse_existing(self) -> None:
        """Raise `UsageError` if a run cannot be written here without losing something."""
        path = Path(os.path.realpath(self.path))
        if path.exists() and (not path.is_dir() or any(map(_counts, path.iterdir()))):
            raise UsageError(
                f"{self.path} exists already: choose another folder, or remove it first."
            )
        parent = next((p for p in path.parents if p.exists()), path)
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise UsageError(
                f"{self.path} cannot be created: {parent} is not a folder you can write to."
            )


def _counts(path: Path) -> bool:
    """Return whether a file makes a folder one that is not empty: not those of a system."""
    return not (path.name.startswith(_SYSTEM) or _WRITING in path.name)


def _stays(path: Path) -> bool:
    """Return whether a folder must not be replaced: it is in use, or it has a system's files."""
    return path.samefile(os.curdir) or path.is_mount() or any(path.iterdir())


def _fill(path: Path, aside: Path) -> None:
    """Move the files of a run into its folder, the configuration last; all or none."""
    moved = []
    try:
        for source in sorted(aside.iterdir(), key=lambda item: item.name == CONFIG):
            moved.append(path / source.name)
            publish(source, moved[-1])
    except BaseException:
        for target in moved:
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        raise
    aside.rmdir()


@contextmanager
def new_folder(path: Path, size: int) -> Iterator[Path]:
    """Yield a folder to fill, which becomes ``path`` at once with its digests, or is removed.

    Args:
        size: of its files, in bytes.

    Raises:
        StorageError: no room on the disk.
    """
    with in_room(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        within = path.exists() and _stays(path)
        place = path if within else path.parent
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}{_WRITING}", dir=place))
        try:
            yield aside
            digests.write(aside)
            if within:
                _fill(path, aside)
                return
            if path.exists():
                path.rmdir()
            publish(aside, path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def guidance_suffix(guidance: float) -> str:
    """Return the part of a file name for a scale of guidance; empty without guidance."""
    return "" if guidance == 1 else f"{_GUIDANCE}{repr(float(guidance)).removesuffix('.0')}"


def read_plan(path: Path, field: ScoreField, folder: Path | None = None) -> Plan:
    """Return the plan of a file, for a field.

    Args:
        folder: that the file must lie in, links resolved.

    Raises:
        CheckpointError: the file cannot be read, does not hold a plan, or one for another field.
    """
    try:
        plan = Plan.load(path, folder)
        plan.check(field)
    except ValueError as error:
        raise _unusable(path, error) from None
    return plan


def _tuned_plan(path: Path, field: ScoreField, folder: Path) -> Plan:
    plan = read_plan(path, field, folder)
    if plan.tuning is None or not isinstance(plan.times, Tensor):
        raise CheckpointError(f"{path} holds a plan that was not tuned: remove it.")
    digests.check(folder, (path.relative_to(folder).as_posix(),))
    return plan


def _unusable(path: Path, error: ValueError) -> CheckpointError:
    prefix = "" if str(path) in str(error) else f"{path}: "
    return CheckpointError(f"{prefix}{error}")


def held_out_items(config: RunConfig, data: Data) -> Tensor:
    """Return the numbers of the items that training held out, of the data that it was given.

    Raises:
        UsageError: the run has no held-out data.
        DataError: data of another size.
    """
    if not config.train.held_out or config.data.count is None:
        raise UsageError(
            "held_out=True: this run has no held-out data (it was trained without held_out, or "
            "imported)."
        )
    count = len(data.x)
    if count != config.data.count:
        raise DataError(
            f"{data.name} has {count} items, but this run was trained on {config.data.count} items "
            f"of {config.data.name}: pass the same data."
        )
    from scorefield.training.held_out import split

    return split(count, config.train.held_out, config.train.seed)[1]


def settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings of a configuration that apply to the run, in TOML's types."""
    unused = set() if config.loss is not None else {*_OBJECTIVE}
    unused |= set() if config.source is None else {"held_out", "seed"}
    values = config.model_dump(exclude_none=True, exclude={"train": unused})
    data = config.data.model_dump(exclude_defaults=True)
    if not data["conditions"]:
        del data["conditions"]
    return values | {"data": data}


def config_text(config: RunConfig) -> str:
    """Return the content of a configuration file."""
    return tomli_w.dumps(settings(config))


def check_config(config: RunConfig) -> None:
    """Reject a configuration that could not be written, or not be read again.

    Raises:
        UsageError: with what to change.
    """
    check_text(config_text(config), RunConfig, config.data.name)


def check_text(text: str, model: type[Frozen], name: str) -> None:
    """Reject the text of a configuration of data that could not be written, or not be read again.

    Raises:
        UsageError: with what to change.
    """
    try:
        model.model_validate(toml.parse(text.encode()))
    except UnicodeEncodeError as error:
        before, after = error.object[: error.start], error.object[error.start :]
        near = before.rpartition("\n")[2][-60:] + after.partition("\n")[0][:60]
        raise UsageError(
            f"{near!r}: {CONFIG} holds UTF-8 only: rename the file, its columns or classes."
        ) from None
    except ValueError as error:
        raise UsageError(
            f"{name}: {CONFIG} could not be loaded again: {error}; use fewer columns "
            "and categories, or shorter names."
        ) from None


def first_problem(error: ValidationError) -> str:
    """Return the place of the first value that is not allowed, and why."""
    first = error.errors(include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def average_name(decay: float) -> str:
    """Return the name of the file of weights averaged with another decay than the first."""
    return f"ema-{decay}.safetensors"


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU of which no two share memory, as tied weights do."""
    result, places = {}, set[int]()
    for name, value in tensors.items():
        value = value.detach().contiguous().cpu()
        result[name] = value.clone() if value.data_ptr() in places else value
        places.add(value.data_ptr())
    return result


def _copy(source: Path | str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, str):
        target.write_text(source, encoding="utf-8")
    elif source.is_dir():
        ignore, copy = shutil.ignore_patterns(".*"), partial(_copy_file, folder=source)
        shutil.copytree(source, target, ignore=ignore, copy_function=copy)
    else:
        _copy_file(source, target)


def _copy_file(source: str | Path, target: str | Path, folder: Path | None = None) -> None:
    with files.reading(source, "", StorageError):
        files.check(Path(source), sys.maxsize, folder)
    shutil.copyfile(source, target)
