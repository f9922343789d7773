"""Networks trained with diffusers as runs, and its pipelines as fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.data.config import CodecConfig
from scorefield.data.rows import Rows
from scorefield.interop.folders import read_folder
from scorefield.interop.foreign import DataOptions, ForeignNetwork
from scorefield.interop.pipeline_comparison import compare
from scorefield.interop.pipeline_field import field
from scorefield.interop.pipeline_tuning import PipelineTuner, check_plan, tune
from scorefield.interop.pipelines import (
    COUPLING,
    Source,
    codec_config,
    image_shape,
    part_of,
    source_of,
)
from scorefield.interop.scheduler_process import noising
from scorefield.interop.settings import one_line_errors
from scorefield.interop.single_file import read_file
from scorefield.networks.diffusers import Diffusers, class_count
from scorefield.runs.loading import with_coupling
from scorefield.runs.run import Run
from scorefield.training.config import DiffusersConfig

__all__ = ["PipelineTuner", "check_plan", "compare", "export", "field", "load", "tune"]

_STD, _LATENT_STD = 0.25, 1.0  # standard deviations of pictures over their range, and of latents


def load(
    source: str | Path | tuple[Any, Any] | Any,
    *,
    pipeline: str | Path | None = None,
    variant: str | None = None,
    shape: tuple[int, ...] | None = None,
    unconditional: int | None = None,
    data_std: float | None = None,
    levels: int | None = None,
    data: Rows | None = None,
    pickle: bool = False,
) -> Run:
    """Return the run of a network that was trained with diffusers.

    Args:
        source: a folder of a pipeline, of a network alone, or of a training checkpoint, whose
            averaged network is taken; such a folder in the hub's cache; a single file of Stable
            Diffusion; a pipeline, with its LoRA adapters; or ``(network, scheduler)``, where the
            network may be its folder.
        pipeline: the folder of a pipeline, which gives the scheduler and the autoencoder that a
            folder lacks, and the configurations of a single file.
        variant: of the weights in a folder, such as ``fp16``; by default those without a variant.
        shape: of a sample ``(C, H, W)``, of the pictures if the network models their latents; by
            default from the network's configuration.
        unconditional: the class that stands for no class, if the network was trained with one.
        data_std, levels, data: as in `scorefield.interop.foreign.DataOptions`.
        pickle: allow weights that are a pickle, if the folder has no others.

    Raises:
        UsageError: an unsupported network, scheduler or prediction; an unknown shape or variant;
            a missing scheduler.
        CheckpointError: a folder that is incomplete, or contradicts itself.
        DataError: data of another shape, or outside the levels.
        ImportError: diffusers is not installed.
    """
    options = DataOptions(data_std, levels, data)
    parts = _parts(source, pipeline, variant, pickle)
    with one_line_errors(parts.where, CheckpointError):
        foreign = _foreign(parts, shape, unconditional)
    return with_coupling(foreign.run(options), parts.network.coupling)


def export(run: Run) -> nn.Module:
    """Return the network of a run that was imported, as diffusers knows it.

    ``export(run).save_pretrained(folder)`` writes a folder that diffusers and `load` read; its
    configuration names the coupling of data and noise, if there is one.

    Raises:
        UsageError: a network that is not of diffusers.
    """
    network = run.field.network
    if not isinstance(network, Diffusers):
        raise UsageError(
            f"run: its network is {type(network).__name__}, and diffusers has no class for it; "
            "run.field.network.state_dict() has its weights."
        )
    if run.config.train.coupling != "independent":
        inner: Any = network.inner
        inner.register_to_config(**{COUPLING: run.config.train.coupling})
    return network.inner


def _parts(source: Any, pipeline: str | Path | None, variant: str | None, pickle: bool) -> Source:
    """Return the parts of a source, completed by those of a pipeline's folder."""
    network, scheduler = source if isinstance(source, tuple) else (source, None)
    if isinstance(network, str | Path):
        if Path(network).is_file():
            return read_file(Path(network), scheduler, pipeline, pickle)
        return read_folder(Path(network), scheduler, pipeline, variant, pickle)
    for name, value in (("pipeline", pipeline), ("variant", variant)):
        if value is not None:
            raise UsageError(f"{name}={value!s:.60}: has no effect without a folder to import.")
    if isinstance(source, tuple):
        return Source(type(network).__name__, part_of(network), scheduler)
    return source_of(source)


def _foreign(source: Source, shape: tuple[int, ...] | None, none: int | None) -> ForeignNetwork:
    network, scheduler, where = source.network, source.scheduler, source.where
    process = noising(scheduler)
    count = class_count(network.architecture, network.settings)
    if none is None and network.architecture == "DiTTransformer2DModel":
        none = count - 1
    if none is not None and not 0 <= none < count:
        raise UsageError(
            f"unconditional={none}: {network.architecture} of {where} has {count} classes."
        )
    codec = None if source.codec is None else codec_config(source.codec, where)
    of_latents = "" if codec is None else f" of latents by {codec.architecture}"
    return ForeignNetwork(
        source=f"{where}: {network.architecture}{of_latents} with {type(scheduler).__name__}",
        name=Path(where).name,
        shape=_shape(source, codec) if shape is None else _images(shape),
        noising=process,
        network=DiffusersConfig(
            architecture=network.architecture,  # type: ignore[arg-type]
            arguments=json.dumps(network.settings),
            unconditional=none,
        ),
        weights=network.inner,
        data_std=_STD * (1 - process.low) if codec is None else _LATENT_STD,
        classes=count - (none is not None),
        unconditional=none is not None,
        codec=codec,
        codec_weights=None if source.codec is None else source.codec.inner,
    )


def _images(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3:
        raise UsageError(f"shape={shape}: must be (C, H, W), because the network takes images.")
    return shape


def _shape(source: Source, codec: CodecConfig | None) -> tuple[int, ...]:
    """Return the shape of a sample, from the configurations."""
    network = source.network
    side = network.settings.get("sample_size")
    sides = side if isinstance(side, list | tuple) else (side, side)
    if not all(isinstance(one, int) for one in sides):
        raise UsageError(
            f"{network.architecture} has sample_size={side!r}: give the shape, such as (3, 32, 32)."
        )
    channels = network.settings.get("in_channels")
    latents = (channels, *sides)
    if codec is None:
        return latents
    return image_shape(latents, codec, f"{source.where}: {network.architecture}")
