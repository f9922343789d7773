"""`scorefield import`: a run folder from a network that another library trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield._internal.text import one_line
from scorefield.cli.console import say
from scorefield.cli.options import ITEMS, WHERE, option

if TYPE_CHECKING:
    from scorefield.runs.run import Run

SourceKind = Literal["diffusers", "edm", "score_sde"]
_ROWS = ("process", "noise levels", "parametrization", "network", "data", "values", "classes")
# options that the files of each kind answer themselves
_ANSWERED = {
    "diffusers": ("config",),
    "edm": ("shape", "unconditional"),
    "score_sde": ("shape", "unconditional"),
}


def import_(
    source: str,
    /,
    *,
    kind: Annotated[SourceKind | None, option(ITEMS, "detected")] = None,
    config: Annotated[Path | None, option(ITEMS)] = None,
    shape: Annotated[tuple[int, ...] | None, option(ITEMS, "from the source")] = None,
    unconditional: Annotated[int | None, option(ITEMS)] = None,
    data_std: Annotated[float | None, option(ITEMS, "0.5 for images")] = None,
    levels: Annotated[int | None, option(ITEMS, "256 for images")] = None,
    data: Annotated[str | None, option(ITEMS)] = None,
    pickle: Annotated[bool, option(ITEMS)] = False,
    out: Annotated[Path, option(WHERE)],
) -> None:
    """Import a network that another library trained, as a run folder.

    Every command can use it like a run that was trained here.

    Parameters
    ----------
    source
        A folder that save_pretrained of a diffusers pipeline wrote; or a file of weights of EDM or
        of score_sde, with --config.
    kind
        The library of the source.
    config
        A JSON file of the arguments of network and training (edm, score_sde).
    shape
        Shape of a sample, such as 3 32 32.
    unconditional
        The class that stands for no class, if the network learned one.
    data_std
        Standard deviation of the data as the network receives it.
    levels
        Number of values of data that is whole numbers from 0; 0 for continuous data.
    data
        Data like that of the training, to measure its mean and standard deviation.
    pickle
        Read weights from a pickle, which can run code. Use it only if you trust the file.
    out
        The run folder to write. It must not exist, or be empty.
    """
    from scorefield.data.source import read
    from scorefield.runs.folder import RunFolder
    from scorefield.runs.summary import summary

    RunFolder(out).refuse_existing()
    kind = _kind(source, config) if kind is None else kind
    for name, value in {"config": config, "shape": shape, "unconditional": unconditional}.items():
        if name in _ANSWERED[kind] and value is not None:
            raise UsageError(f"--{name} has no effect for {kind}, whose files contain it.")
    run = _load(
        kind,
        source,
        config,
        pickle,
        {"shape": shape, "unconditional": unconditional},
        data_std=data_std,
        levels=levels,
        data=None if data is None else read(data, learn=False).x,
    )
    run.save(out)
    rows = summary(run)
    say(one_line(f"imported from {run.config.source}"))
    for name in _ROWS:
        if name in rows:
            say(one_line(f"{name}: {rows[name]}"))
    say(f"run folder: {out}")


def _load(
    kind: SourceKind,
    source: str,
    config: Path | None,
    pickle: bool,
    answers: dict[str, Any],
    **settings: Any,
) -> Run:
    if kind == "diffusers":
        from scorefield.interop import diffusers

        return diffusers.load(source, pickle=pickle, **answers, **settings)
    if kind == "edm":
        from scorefield.interop import edm

        return edm.load(source, config, pickle=pickle, **settings)
    from scorefield.interop import score_sde

    if pickle:
        raise UsageError("--pickle has no effect for score_sde: PyTorch reads its weights safely.")
    if config is None:
        raise UsageError(f"{source}: give --config, score_sde's configuration as a JSON file.")
    return score_sde.load(source, config, **settings)


def _kind(source: str, config: Path | None) -> SourceKind:
    """Return the library of a source, by its files.

    Raises:
        CheckpointError: the source does not exist.
        UsageError: its files do not show the library.
    """
    from scorefield.interop.settings import read_json

    path = Path(source)
    if not path.exists():
        raise CheckpointError(
            f"{source} does not exist: give a folder on this machine; nothing is downloaded."
        )
    if any((path / name).is_file() for name in ("model_index.json", "scheduler_config.json")):
        return "diffusers"
    keys = set() if config is None else read_json(config).keys()
    if path.suffix == ".pkl" or keys & {"class_name", "network_kwargs"}:
        return "edm"
    if keys >= {"data", "model", "training"}:
        return "score_sde"
    raise UsageError(
        f"{source} is not a folder of diffusers, with a model_index.json, and --config is not a "
        f"configuration of EDM or of score_sde: give --kind ({', '.join(_ANSWERED)})."
    )
