"""Networks trained with score_sde's PyTorch code.

With its NCSN++ and DDPM++ called ``F``:

=========  ==========================  ==========================================================
sde        score                       ours
=========  ==========================  ==========================================================
vpsde      ``-F(x, 999 t) / sigma``    `VP`, eps; not continuous, `Tabulated` with the index
subvpsde   ``-F(x, 999 t) / sigma``    `SubVP`, eps
vesde      ``F(x, sigma) / sigma``     `EDM`, eps of a network -F
=========  ==========================  ==========================================================

Data that is not centered is in [0, 1], and ``F`` begins with ``2 x - 1``. Ours is always in
[-1, 1], with twice the noise; the label is that of half the noise, as before.

Reference: Song et al. (2021), arXiv:2011.13456.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.data.rows import Rows
from scorefield.interop import score_sde_weights
from scorefield.interop.conversion import convert, negate, outline
from scorefield.interop.edm_settings import Resolutions, Steps, scales
from scorefield.interop.foreign import DataOptions, ForeignNetwork, Noising
from scorefield.interop.settings import Part, one_line_errors, read_config, validate
from scorefield.interop.weight_files import by_name, read_checkpoint
from scorefield.networks import SongUNet
from scorefield.runs.run import Run
from scorefield.training.config import (
    EDMConfig,
    Multipliers,
    PlainLabel,
    PlainParametrization,
    SongConfig,
    SubVPConfig,
    TabulatedConfig,
    Taps,
    TimeLabelConfig,
    VPConfig,
)

_LAST = 999.0  # the network's label of time 1
_ENCODERS: dict[str, Literal["standard", "skip", "residual"]] = {
    "none": "standard",
    "input_skip": "skip",
    "residual": "residual",
}


class _Data(Part):
    image_size: PositiveInt
    num_channels: PositiveInt = 3
    centered: bool
    dataset: str = "score_sde"


class _Training(Part):
    sde: Literal["vpsde", "subvpsde", "vesde"]
    continuous: bool


class _Model(Part):
    name: Literal["ncsnpp"]
    nf: PositiveInt
    ch_mult: Multipliers
    num_res_blocks: PositiveInt
    attn_resolutions: Resolutions
    fir: bool
    fir_kernel: Taps = (1.0, 3.0, 3.0, 1.0)
    skip_rescale: bool
    resblock_type: Literal["biggan"]
    progressive: Literal["none", "output_skip"]
    progressive_input: Literal["none", "input_skip", "residual"]
    progressive_combine: Literal["sum"] = "sum"
    embedding_type: Literal["positional", "fourier"]
    scale_by_sigma: bool
    nonlinearity: Literal["swish"] = "swish"
    conditional: Literal[True] = True
    sigma_min: PositiveFloat = 0.01
    sigma_max: PositiveFloat = 50.0
    num_scales: Steps = 1000
    beta_min: PositiveFloat = 0.1
    beta_max: PositiveFloat = 20.0


class _Config(Part):
    data: _Data
    model: _Model
    training: _Training

    def check(self, where: str) -> None:
        """Reject unsupported combinations.

        Raises:
            UsageError: with the settings that contradict each other.
        """
        sde, model = self.training.sde, self.model
        required = {
            "training.continuous": (self.training.continuous, True),
            "model.embedding_type": (model.embedding_type, "fourier"),
            "model.scale_by_sigma": (model.scale_by_sigma, True),
        }
        if sde != "vesde":
            required = {
                "data.centered": (self.data.centered, True),
                "model.embedding_type": (model.embedding_type, "positional"),
                "model.scale_by_sigma": (model.scale_by_sigma, False),
            }
        for name, (value, needed) in required.items():
            if value != needed:
                raise UsageError(f"{where}: {sde} with {name}={value!r}: must be {needed!r}.")
        if not model.fir and (model.progressive, model.progressive_input) != ("none", "none"):
            raise UsageError(
                f"{where}: progressive={model.progressive!r} and progressive_input="
                f"{model.progressive_input!r} with fir=False: must be with fir=True."
            )

    @property
    def unit(self) -> float:
        """The ratio of our data to theirs."""
        return 1.0 if self.data.centered else 2.0

    def noising(self) -> Noising:
        """Return the process, the prediction and our label."""
        sde, model = self.training.sde, self.model
        eps = PlainParametrization(kind="eps")
        if sde == "vesde":
            ends = self.unit * model.sigma_min, self.unit * model.sigma_max
            return Noising(EDMConfig(t_min=ends[0], t_max=ends[1]), eps, PlainLabel())
        betas = model.beta_min, model.beta_max
        if sde == "vpsde" and not self.training.continuous:
            steps = torch.linspace(*betas, model.num_scales, dtype=torch.float64)
            table = (1 - steps / model.num_scales).cumprod(0)
            return Noising(TabulatedConfig(alpha_bar=tuple(table.tolist())), eps, TimeLabelConfig())
        kind = VPConfig if sde == "vpsde" else SubVPConfig
        process = kind(beta_min=betas[0], beta_max=betas[1])
        return Noising(process, eps, TimeLabelConfig(scale=_LAST))

    def network(self) -> SongConfig:
        """Return our configuration of the network."""
        model = self.model
        return SongConfig(
            width=model.nf,
            multipliers=model.ch_mult,
            blocks=model.num_res_blocks,
            attention=scales(self.data.image_size, len(model.ch_mult), model.attn_resolutions),
            embedding=model.embedding_type,
            widening=2 if model.embedding_type == "fourier" else 1,
            encoder=_ENCODERS[model.progressive_input],
            decoder="standard" if model.progressive == "none" else "skip",
            taps=model.fir_kernel if model.fir else (1.0, 1.0),
            rescaled=model.skip_rescale,
        )


def load(
    weights: str | Path | Mapping[str, Any],
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    data_std: float | None = None,
    levels: int | None = None,
    data: Rows | None = None,
) -> Run:
    """Return the run of a network that was trained with score_sde.

    A checkpoint provides its averaged weights.

    Args:
        weights: a checkpoint with ``model`` and ``ema``, or the network's state dict; or the file
            of either, ``.pth`` or ``.safetensors``.
        config: of score_sde, as a mapping or a JSON file, with ``data``, ``model`` and
            ``training``.
        data_std, levels, data: as in `scorefield.interop.foreign.DataOptions`.

    Raises:
        UsageError: an unknown configuration.
        CheckpointError: weights that cannot be read, or contradict the configuration.
        DataError: data of another shape, or outside the levels.
    """
    options = DataOptions(data_std, levels, data)
    where = "weights" if isinstance(weights, Mapping) else str(weights)
    values, place = read_config(config, where, "that of score_sde, as JSON")
    settings = validate(_Config, values, place)
    settings.check(place)
    content = weights if isinstance(weights, Mapping) else read_checkpoint(Path(weights))
    with one_line_errors(place):
        foreign = _foreign(_averaged(content, where), settings, where)
    return foreign.run(options)


def _averaged(content: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """Return the weights of a checkpoint; the parameters among them are its averages."""
    state = content.get("model", content)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{where} has neither weights by name nor a model and its ema.")
    weights = {n.removeprefix("module."): v for n, v in by_name(state, where).items()}
    if "ema" not in content:
        return weights
    ema = content["ema"]
    averages = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    shadows = [v for v in averages if isinstance(v, Tensor)] if isinstance(averages, list) else []
    learned = [name for name in weights if name not in score_sde_weights.FIXED]
    by_name({f"shadow_params[{k}]": value for k, value in enumerate(shadows)}, where)
    if len(shadows) != len(learned):
        raise CheckpointError(
            f"{where}: ema has {len(shadows)} shadow_params, and model {len(learned)} parameters."
        )
    return weights | dict(zip(learned, shadows, strict=True))


def _foreign(tensors: Mapping[str, Tensor], settings: _Config, where: str) -> ForeignNetwork:
    side = settings.data.image_size
    shape = (settings.data.num_channels, side, side)
    config = settings.network()
    network = outline(config, shape, 0, where)
    zero = -math.log(settings.unit)
    table = score_sde_weights.song(cast(SongUNet, network), config.encoder, 4.0, zero)
    converted = convert(tensors, table, network.state_dict(), score_sde_weights.IDLE, where)
    return ForeignNetwork(
        source=f"{where}: {settings.model.name} with {settings.training.sde} of score_sde",
        name=settings.data.dataset,
        shape=shape,
        noising=settings.noising(),
        network=config,
        weights=negate(converted) if settings.training.sde == "vesde" else converted,
    )
