"""`scorefield import`: a run folder from a network that another library trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield._internal.text import one_line
from scorefield.cli.console import say
from scorefield.cli.options import ITEMS, WHERE, option
from scorefield.training.config import CouplingKind

SourceKind = Literal["diffusers", "edm", "score_sde", "guided_diffusion", "dit"]
_ROWS = (
    "process",
    "noise levels",
    "parametrization",
    "network",
    "data",
    "values",
    "classes",
    "coupling",
)
# the options of each kind
_ACCEPTED = {
    "diffusers": ("pipeline", "variant", "shape", "unconditional", "pickle"),
    "edm": ("config", "pickle"),
    "score_sde": ("config",),
    "guided_diffusion": ("config",),
    "dit": ("config", "pipeline"),
}


def import_(
    source: str,
    /,
    *,
    kind: Annotated[SourceKind | None, option(ITEMS, "detected")] = None,
    config: Annotated[Path | None, option(ITEMS)] = None,
    pipeline: Annotated[Path | None, option(ITEMS)] = None,
    variant: Annotated[str | None, option(ITEMS)] = None,
    shape: Annotated[tuple[int, ...] | None, option(ITEMS, "from the source")] = None,
    unconditional: Annotated[int | None, option(ITEMS)] = None,
    data_std: Annotated[float | None, option(ITEMS, "0.5 for images")] = None,
    levels: Annotated[int | None, option(ITEMS, "256 for images")] = None,
    data: Annotated[str | None, option(ITEMS)] = None,
    coupling: Annotated[CouplingKind | None, option(ITEMS, "independent")] = None,
    pickle: Annotated[bool, option(ITEMS)] = False,
    out: Annotated[Path, option(WHERE)],
) -> None:
    """Import a network that another library trained, as a run folder.

    Every command can use it like a run that was trained here.

    Parameters
    ----------
    source
        A folder of diffusers: a pipeline, a network alone, a training checkpoint, or a repository
        in the hub's cache; a single file of Stable Diffusion; or a file of weights of another
        library, with --config.
    kind
        The library of the source.
    config
        A JSON file of the settings of the network (edm, score_sde, guided_diffusion, dit). For EDM
        it is training_options.json; for DiT and SiT it has the model's name.
    pipeline
        Folder of a pipeline, for the scheduler and the autoencoder that the source lacks
        (diffusers, dit).
    variant
        Variant of the weights in a folder, such as fp16 (diffusers).
    shape
        Shape of a sample, such as 3 32 32 (diffusers).
    unconditional
        Number of the class that stands for no class, if the network learned one (diffusers).
    data_std
        Standard deviation of the data as the network receives it.
    levels
        Number of values of data that is whole numbers from 0; 0 for continuous data.
    data
        A file or folder of data like that of the training, to measure its mean and standard
        deviation.
    coupling
        Pairs of data and noise that the network was trained on, if the noise was not independent:
        ot for optimal transport, reflow for pairs of another run, other. The run then has no score,
        and solvers that add noise refuse it.
    pickle
        Read weights from a pickle, which can run code (diffusers, edm). Use it only if you trust
        the file.
    out
        The run folder to write. It must not exist, or be empty.
    """
    from scorefield import interop
    from scorefield.data.source import read
    from scorefield.runs.folder import RunFolder
    from scorefield.runs.loading import with_coupling
    from scorefield.runs.summary import summary

    RunFolder(out).refuse_existing()
    kind = _kind(source, config) if kind is None else kind
    values: dict[str, Any] = {"config": config, "pipeline": pipeline, "variant": variant}
    values |= {"shape": shape, "unconditional": unconditional, "pickle": pickle or None}
    own = {name: value for name, value in values.items() if value is not None}
    if unused := next((name for name in own if name not in _ACCEPTED[kind]), None):
        raise UsageError(f"--{unused} has no effect for {kind}: leave it out.")
    x = None if data is None else read(data, learn=False).x
    load = getattr(interop, kind).load
    run = load(source, data_std=data_std, levels=levels, data=x, **own)
    if coupling is not None:
        run = with_coupling(run, coupling)
    run.save(out)
    rows = summary(run)
    say(one_line(f"imported from {run.config.source}"))
    for name in _ROWS:
        if name in rows:
            say(one_line(f"{name}: {rows[name]}"))
    say(f"run folder: {out}")


def _kind(source: str, config: Path | None) -> SourceKind:
    """Return the library of a source, by its files.

    Raises:
        CheckpointError: the source does not exist.
        UsageError: content of another kind.
    """
    from scorefield.interop.contents import Content, content_of, described, names_in
    from scorefield.interop.settings import read_json

    path = Path(source)
    if not path.exists():
        raise CheckpointError(
            f"{source} does not exist: give a folder on this machine; nothing is downloaded."
        )
    if path.is_dir():
        return "diffusers"
    keys = set() if config is None else read_json(config).keys()
    if path.suffix == ".pkl" or keys & {"class_name", "network_kwargs"}:
        return "edm"
    if keys >= {"data", "model", "training"}:
        return "score_sde"
    names = names_in(path)
    match content_of(names):
        case Content(kind=str(kind)), _ if kind in _ACCEPTED:
            return cast("SourceKind", kind)
    raise UsageError(f"{source} is not supported: {described(names)}.")
