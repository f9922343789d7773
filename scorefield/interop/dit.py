"""Networks trained with the code of DiT and of SiT, which are one transformer.

With the network called ``F``, and SiT's time ``u`` that runs from noise to data:

========  =====================================  ==============================================
model     trained on                             ours
========  =====================================  ==============================================
DiT       ``F(x, k)`` is the noise of step k     `Tabulated`, eps; the label is the step
SiT       ``F(x, u)`` is dx/du for               `Flow`, velocity of a network -F(x, 1 - t)
          ``x = u x0 + (1 - u) eps``
========  =====================================  ==============================================

Sines and cosines of ``1 - t`` are sums of sines and cosines of ``t``, so the time is turned around
in the layer that follows them.

Reference: Peebles and Xie (2023), arXiv:2212.09748; Ma et al. (2024), arXiv:2401.08740.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from scorefield._internal.errors import CheckpointError
from scorefield.data.rows import Rows
from scorefield.interop.contents import described
from scorefield.interop.conversion import (
    Origin,
    Table,
    both,
    convert,
    layers,
    of_classes,
    outline,
    swap_halves,
)
from scorefield.interop.folders import read_codec
from scorefield.interop.foreign import DataOptions, ForeignNetwork, Noising
from scorefield.interop.guided_diffusion import alpha_bar
from scorefield.interop.pipelines import codec_config, image_shape
from scorefield.interop.settings import Part, one_line_errors, read_config, validate
from scorefield.interop.weight_files import state_of
from scorefield.networks import DiT
from scorefield.networks.dit import positions
from scorefield.networks.embedding import Sinusoids
from scorefield.runs.run import Run
from scorefield.training.config import (
    DiTConfig,
    FlowConfig,
    PlainParametrization,
    TabulatedConfig,
    TimeLabelConfig,
)

_HEADS = {"S": 6, "B": 12, "L": 16, "XL": 16}
_STEPS = 1000
_LATENT_STD = 1.0


class _Settings(Part):
    """The name of the model, and the arguments of SiT's training."""

    model: str = Field(pattern=r"(DiT|SiT)-(S|B|L|XL)/\d+")
    num_classes: PositiveInt | None = None
    num_heads: PositiveInt | None = None
    path_type: Literal["Linear"] = "Linear"
    prediction: Literal["velocity"] = "velocity"

    @property
    def reversed(self) -> bool:
        """Whether time runs from noise to data, and the output with it."""
        return self.model.startswith("SiT")

    def noising(self) -> Noising:
        """Return the process, the prediction and our label."""
        if self.reversed:
            flow = FlowConfig(t_min=1 / _STEPS, t_max=1.0)
            return Noising(flow, PlainParametrization(kind="velocity"), TimeLabelConfig())
        table = TabulatedConfig(alpha_bar=alpha_bar("linear", _STEPS))
        return Noising(table, PlainParametrization(kind="eps"), TimeLabelConfig())


def load(
    weights: str | Path | Mapping[str, Any],
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    pipeline: str | Path | None = None,
    data_std: float | None = None,
    levels: int | None = None,
    data: Rows | None = None,
) -> Run:
    """Return the run of a network that was trained with the code of DiT or of SiT.

    A checkpoint provides its averaged weights.

    Args:
        weights: a checkpoint with ``model`` and ``ema``, or the network's state dict; or the file
            of either, ``.pt`` or ``.safetensors``.
        config: ``model``, such as ``DiT-XL/2`` or ``SiT-XL/2``, as a mapping or a JSON file;
            ``num_heads``, if it is not that of the model; ``num_classes``, if the network needs
            a class.
        pipeline: the folder of a pipeline of diffusers, or of the autoencoder alone, to decode
            latents; without it the run is of latents.
        data_std, levels, data: as in `scorefield.interop.foreign.DataOptions`.

    Raises:
        UsageError: an unknown or missing configuration.
        CheckpointError: weights that cannot be read, or contradict the configuration.
        DataError: data of another shape, or outside the levels.
    """
    options = DataOptions(data_std, levels, data)
    tensors, where = state_of(weights, "ema", "model")
    name = 'the name of the model, such as {"model": "DiT-XL/2"}, as JSON'
    settings = validate(_Settings, *read_config(config, where, name))
    with one_line_errors(where):
        foreign = _foreign(tensors, settings, where, pipeline)
    return foreign.run(options)


def _foreign(
    tensors: Mapping[str, Tensor], settings: _Settings, where: str, pipeline: str | Path | None
) -> ForeignNetwork:
    config, shape, classes = _sizes(tensors, settings, where)
    network = cast(DiT, outline(config, shape, classes, where))
    table = _table(network, settings)
    part = None if pipeline is None else read_codec(Path(pipeline))
    codec = None if part is None else codec_config(part, where)
    name = f"{settings.model} by {part.architecture}" if part else settings.model
    return ForeignNetwork(
        source=f"{where}: {name}",
        name=Path(where).stem,
        shape=shape if codec is None else image_shape(shape, codec, f"{where}: {settings.model}"),
        noising=settings.noising(),
        network=config,
        weights=convert(tensors, table, network.state_dict(), "pos_embed", where),
        data_std=_LATENT_STD,
        classes=classes,
        unconditional=bool(classes) and config.classless,
        codec=codec,
        codec_weights=None if part is None else part.inner,
    )


def _sizes(
    tensors: Mapping[str, Tensor], settings: _Settings, where: str
) -> tuple[DiTConfig, tuple[int, int, int], int]:
    """Return our configuration, the shape of a sample, and the number of classes.

    Raises:
        CheckpointError: weights of another network, or with learned positions.
    """
    ends = "x_embedder.proj.weight", "final_layer.linear.weight", "pos_embed"
    patches, leave, places = (tensors.get(name) for name in ends)
    if patches is None or leave is None or places is None or (patches.ndim, places.ndim) != (4, 3):
        raise CheckpointError(
            f"{where}: these are not weights of a DiT or SiT, which have {', '.join(ends)}: "
            f"{described(tensors)}."
        )
    width, channels, patch, _ = patches.shape
    side = math.isqrt(places.shape[1])
    expected = positions(width, (side, side), places.double())
    if places.shape[1:] != expected.shape or not torch.allclose(
        places[0].double(), expected, atol=1e-3
    ):
        raise CheckpointError(f"{where}: pos_embed does not have the sines and cosines of DiT.")
    rows = len(tensors.get("y_embedder.embedding_table.weight", ()))
    classes = max(0, rows - 1) if settings.num_classes is None else settings.num_classes
    kind = settings.model.partition("-")[2].partition("/")[0]
    config = DiTConfig(
        width=width,
        layers=sum(name.endswith(".attn.qkv.weight") for name in tensors),
        head=width // (settings.num_heads or _HEADS[kind]),
        patch=patch,
        variances=len(leave) == 2 * channels * patch**2,
        classless=rows > classes,
    )
    return config, (channels, patch * side, patch * side), classes


def _table(network: DiT, settings: _Settings) -> Table:
    """Return the origins of the weights."""
    sign = -1.0 if settings.reversed else 1.0
    names = [("enter", "x_embedder.proj"), ("modulation", "final_layer.adaLN_modulation.1")]
    names += [(f"embedding.mix.{k}", f"t_embedder.mlp.{k}") for k in (0, 2)]
    for k in range(len(network.blocks)):
        block = {"enter": "attn.qkv", "leave": "attn.proj", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
        block["modulation"] = "adaLN_modulation.1"
        names += [(f"blocks.{k}.{ours}", f"blocks.{k}.{theirs}") for ours, theirs in block.items()]
    table = layers(names) | both("leave", "final_layer.linear", lambda tensor: sign * tensor)
    turn = _turned if settings.reversed else swap_halves
    table["embedding.mix.0.weight"] = Origin(("t_embedder.mlp.0.weight",), turn)
    if "y" in network.embedding.conditions:
        make = (
            _last_first
            if network.embedding.conditions["y"].optional
            else lambda rows: of_classes(rows.mT)
        )
        origin = Origin(("y_embedder.embedding_table.weight",), make)
        table["embedding.conditions.y.weight"] = origin
    return table


def _last_first(rows: Tensor) -> Tensor:
    """Return the rows with that of no class before the classes."""
    return rows.roll(1, 0)


def _turned(weight: Tensor) -> Tensor:
    """Return a layer for sines and cosines of t, from one for cosines and sines of 1 - t."""
    cosines, sines = weight.double().chunk(2, 1)
    f = Sinusoids(weight.shape[1], last=False).frequencies.double()
    parts = cosines * f.sin() - sines * f.cos(), cosines * f.cos() + sines * f.sin()
    return torch.cat(parts, 1).float()
