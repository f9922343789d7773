"""Networks trained with diffusers: a folder it saved, a pipeline, or a network and a scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.data.config import CodecConfig
from scorefield.data.rows import Rows
from scorefield.interop.imported import Found, Known
from scorefield.interop.pipelines import Part, Source, given, read
from scorefield.interop.schedulers import noising
from scorefield.interop.settings import agreeing
from scorefield.networks.diffusers import embedded
from scorefield.runs import build
from scorefield.runs.run import Run
from scorefield.training.config import DiffusersConfig

_STD, _LATENT_STD = 0.25, 1.0  # of pictures, relative to their range; of latents


def load(
    source: str | Path | tuple[Any, Any] | Any,
    *,
    shape: tuple[int, ...] | None = None,
    unconditional: int | None = None,
    data_std: float | None = None,
    levels: int | None = None,
    data: Rows | None = None,
    pickle: bool = False,
) -> Run:
    """Return the run of a network that was trained with diffusers.

    Args:
        source: a folder that ``save_pretrained`` wrote, a pipeline, or ``(network, scheduler)``.
        shape: of a sample ``(C, H, W)``, of pictures where the network is of their latents; as the
            network's configuration says unless given.
        unconditional: the class that stands for none, if the network has learned one.
        data_std, levels, data: as in `scorefield.interop.imported.Known`.
        pickle: read weights that are a pickle, where the folder has no others.

    Raises:
        UsageError: a kind of network, scheduler or prediction that is not known; no shape.
        CheckpointError: a folder that is incomplete, or contradicts itself.
        DataError: data of another shape, or not in the levels.
        ImportError: diffusers is not installed.
    """
    known = Known(data_std, levels, data)
    held = read(Path(source), pickle) if isinstance(source, str | Path) else given(source)
    with agreeing(held.where, CheckpointError):
        found = _found(held, shape, unconditional)
    return found.run(known)


def _found(source: Source, shape: tuple[int, ...] | None, none: int | None) -> Found:
    network, scheduler, where = source.network, source.scheduler, source.where
    process, parametrization, label, low = noising(scheduler)
    held = embedded(network.architecture, network.settings)
    if none is None and network.architecture == "DiTTransformer2DModel":
        none = held - 1
    if none is not None and not 0 <= none < held:
        raise UsageError(
            f"unconditional = {none}: {network.architecture} of {where} has {held} classes."
        )
    codec = None if source.codec is None else _codec(source.codec, where)
    of_latents = "" if codec is None else f" of latents by {codec.architecture}"
    return Found(
        source=f"{where}: {network.architecture}{of_latents} with {type(scheduler).__name__}",
        name=Path(where).name,
        shape=_shape(source, codec) if shape is None else _images(shape),
        process=process,
        parametrization=parametrization,
        label=label,
        network=DiffusersConfig(
            architecture=network.architecture,  # type: ignore[arg-type]
            arguments=json.dumps(network.settings),
            unconditional=none,
        ),
        weights=network.inner,
        low=low,
        data_std=_STD * (1 - low) if codec is None else _LATENT_STD,
        classes=held - (none is not None),
        unconditional=none is not None,
        codec=codec,
        codec_weights=None if source.codec is None else source.codec.inner,
    )


def _codec(part: Part, where: str) -> CodecConfig:
    settings = part.settings
    if settings.get("latents_mean") is not None or settings.get("latents_std") is not None:
        raise UsageError(f"{where}: latents with a latents_mean or latents_std are not known.")
    scale, shift = settings.get("scaling_factor", 0.18215), settings.get("shift_factor") or 0.0
    if not all(isinstance(v, int | float) for v in (scale, shift)) or not 0 < scale < float("inf"):
        raise CheckpointError(f"{where}: scaling_factor = {scale!r}, shift_factor = {shift!r}.")
    return CodecConfig(
        architecture=part.architecture,  # type: ignore[arg-type]
        arguments=json.dumps(settings),
        scale=scale,
        shift=shift,
    )


def _images(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3:
        raise UsageError(f"shape = {shape}: this network takes images, so give (C, H, W).")
    return shape


def _shape(source: Source, codec: CodecConfig | None) -> tuple[int, ...]:
    """Return the shape of a sample, as the configurations say."""
    network = source.network
    side = network.settings.get("sample_size")
    sides = side if isinstance(side, list | tuple) else (side, side)
    if not all(isinstance(one, int) for one in sides):
        raise UsageError(
            f"{network.architecture} has sample_size {side!r}: say with shape what a sample is, as "
            "(3, 32, 32)."
        )
    channels = network.settings.get("in_channels")
    if codec is None:
        return (channels, *sides)
    try:
        made = build.codec_outline(codec)
    except ValueError as error:
        raise CheckpointError(f"{source.where}: {error}") from None
    if made.latents != channels:
        raise CheckpointError(
            f"{source.where}: {network.architecture} takes {channels} channels, and the latents of "
            f"{codec.architecture} have {made.latents}."
        )
    return (made.channels, *(made.factor * side for side in sides))
