"""What `scorefield import` does: from what others have trained to a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield._internal.text import one_line
from scorefield.cli.commands import say
from scorefield.cli.options import ImportName, ImportOptions
from scorefield.data import read
from scorefield.interop.settings import read_json
from scorefield.runs.folder import RunFolder
from scorefield.runs.run import Run
from scorefield.runs.summary import summary

_TOLD = ("process", "noise levels", "parametrization", "network", "data", "values", "classes")


def import_run(console: Console, source: str, out: Path, options: ImportOptions) -> None:
    """Import a source, tell what was found in it, and write the run folder."""
    RunFolder(out).refuse_existing()
    kind = _kind(source, options.config) if options.kind is None else options.kind
    run = LOADERS[kind](source, options)
    run.save(out)
    found = summary(run)
    say(console, one_line(f"imported from {run.config.source}"))
    for name in _TOLD:
        if name in found:
            say(console, one_line(f"{name}: {found[name]}"))
    say(console, f"run folder: {out}")


def _kind(source: str, config: Path | None) -> ImportName:
    """Return what a source was trained with, by the files that lie there.

    Raises:
        CheckpointError: there is nothing.
        UsageError: it cannot be told.
    """
    path = Path(source)
    if not path.exists():
        raise CheckpointError(
            f"there is no {source}: give a folder that lies here; none is fetched."
        )
    if any((path / name).is_file() for name in ("model_index.json", "scheduler_config.json")):
        return "diffusers"
    held = {} if config is None else read_json(config)
    if path.suffix == ".pkl" or held.keys() & {"class_name", "network_kwargs"}:
        return "edm"
    if held.keys() >= {"data", "model", "training"}:
        return "score_sde"
    raise UsageError(
        f"{source} is no folder of diffusers, with a model_index.json, nor is there a --config of "
        f"EDM or of score_sde: say with --kind what it was trained with ({', '.join(LOADERS)})."
    )


def _diffusers(source: str, options: ImportOptions) -> Run:
    from scorefield.interop import diffusers

    _refuse(options, "diffusers", "config")
    return diffusers.load(
        source,
        shape=options.shape,
        unconditional=options.unconditional,
        pickle=options.pickle,
        **_known(options),
    )


def _known(options: ImportOptions) -> dict[str, Any]:
    """Return what is known of the data, as every loader takes it."""
    data = None if options.data is None else read(options.data, learn=False).x
    return {"data_std": options.data_std, "levels": options.levels, "data": data}


def _edm(source: str, options: ImportOptions) -> Run:
    from scorefield.interop import edm

    _refuse(options, "edm", "shape", "unconditional")
    return edm.load(source, options.config, pickle=options.pickle, **_known(options))


def _score_sde(source: str, options: ImportOptions) -> Run:
    from scorefield.interop import score_sde

    _refuse(options, "score_sde", "shape", "unconditional")
    if options.pickle:
        raise UsageError(
            "--pickle: checkpoints of score_sde are read without, by PyTorch's reader of weights."
        )
    if options.config is None:
        raise UsageError(f"{source}: give --config, score_sde's configuration as a JSON file.")
    return score_sde.load(source, options.config, **_known(options))


def _refuse(options: ImportOptions, kind: ImportName, *names: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name}: the weights of {kind} and its configuration say this.")


LOADERS: dict[ImportName, Callable[[str, ImportOptions], Run]] = {
    "diffusers": _diffusers,
    "edm": _edm,
    "score_sde": _score_sde,
}
