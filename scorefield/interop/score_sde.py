"""Networks trained with score_sde's PyTorch code, as runs.

Its NCSN++ and DDPM++ are called ``F``, and are told and predict:

=========  ==========================  ==========================================================
sde        score                       ours
=========  ==========================  ==========================================================
vpsde      ``-F(x, 999 t) / sigma``    `VP`, eps; not continuous, `Tabulated`, told the index
subvpsde   ``-F(x, 999 t) / sigma``    `SubVP`, eps
vesde      ``F(x, sigma) / sigma``     `EDM`, eps of a network -F
=========  ==========================  ==========================================================

Where data is not centered, it lies in [0, 1] and ``F`` begins with ``2 x - 1``. Ours lies in
[-1, 1] always, with twice the noise; the network is told half of that, the same as before.

Reference: Song et al. (2021), arXiv:2011.13456.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import ConfigDict, PositiveFloat, PositiveInt
from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield._internal.frozen import Frozen
from scorefield.data.rows import Rows
from scorefield.interop import score_sde_names as names
from scorefield.interop.edm_settings import Resolutions, Steps, levels as levels_of
from scorefield.interop.imported import Found, Known
from scorefield.interop.renaming import converted, negated, outline
from scorefield.interop.schedulers import Noising
from scorefield.interop.settings import agreeing, checked, given
from scorefield.interop.weights import by_name, read_checkpoint
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

_LAST = 999.0  # what the network is told at time 1
_ENCODERS: dict[str, Literal["standard", "skip", "residual"]] = {
    "none": "standard",
    "input_skip": "skip",
    "residual": "residual",
}


class _Part(Frozen):
    """A part of the configuration; what else is there concerns training and sampling."""

    model_config = ConfigDict(extra="ignore")


class _Data(_Part):
    image_size: PositiveInt
    num_channels: PositiveInt = 3
    centered: bool
    dataset: str = "score_sde"


class _Training(_Part):
    sde: Literal["vpsde", "subvpsde", "vesde"]
    continuous: bool


class _Model(_Part):
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


class _Config(_Part):
    data: _Data
    model: _Model
    training: _Training

    def check(self, where: str) -> None:
        """Refuse what the network's code does not do, or ours cannot say.

        Raises:
            UsageError: naming the settings that contradict each other.
        """
        sde, model = self.training.sde, self.model
        wanted = {
            "training.continuous": (self.training.continuous, True),
            "model.embedding_type": (model.embedding_type, "fourier"),
            "model.scale_by_sigma": (model.scale_by_sigma, True),
        }
        if sde != "vesde":
            wanted = {
                "data.centered": (self.data.centered, True),
                "model.embedding_type": (model.embedding_type, "positional"),
                "model.scale_by_sigma": (model.scale_by_sigma, False),
            }
        for name, (held, known) in wanted.items():
            if held != known:
                raise UsageError(f"{where}: {sde} with {name} = {held!r}: known is {known!r}.")
        if not model.fir and (model.progressive, model.progressive_input) != ("none", "none"):
            raise UsageError(
                f"{where}: progressive = {model.progressive!r} and progressive_input = "
                f"{model.progressive_input!r} with fir = False: known with fir = True alone."
            )

    @property
    def unit(self) -> float:
        """How much larger our data is than theirs."""
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
            attention=levels_of(self.data.image_size, len(model.ch_mult), model.attn_resolutions),
            embedding=model.embedding_type,
            widening=2 if model.embedding_type == "fourier" else 1,
            encoder=_ENCODERS[model.progressive_input],
            decoder="standard" if model.progressive == "none" else "skip",
            taps=model.fir_kernel if model.fir else (1.0, 1.0),
            rescaled=model.skip_rescale,
        )


def load(
    weights: str | Path | Mapping[str, Any],
    config: str | Path | Mapping[str, Any],
    *,
    data_std: float | None = None,
    levels: int | None = None,
    data: Rows | None = None,
) -> Run:
    """Return the run of a network that was trained with score_sde.

    Of a checkpoint the averaged weights are taken.

    Args:
        weights: a checkpoint with ``model`` and ``ema``, or the network's state dict; or the file
            of either, ``.pth`` or ``.safetensors``.
        config: of score_sde, as a mapping or a JSON file, with ``data``, ``model`` and
            ``training``.
        data_std, levels, data: as in `scorefield.interop.imported.Known`.

    Raises:
        UsageError: a configuration that is not known.
        CheckpointError: weights that cannot be read, or contradict the configuration.
        DataError: data of another shape, or not in the levels.
    """
    known = Known(data_std, levels, data)
    where = "weights" if isinstance(weights, Mapping) else str(weights)
    values, said = given(config, where)
    found = checked(_Config, values, said)
    found.check(said)
    held = weights if isinstance(weights, Mapping) else read_checkpoint(Path(weights))
    with agreeing(said):
        made = _found(_averaged(held, where), found, where)
    return made.run(known)


def _averaged(held: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, averaged as far as they are parameters."""
    state = held.get("model", held)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{where} holds no weights by name, nor a model and its ema.")
    weights = {n.removeprefix("module."): v for n, v in by_name(state, where).items()}
    if "ema" not in held:
        return weights
    averages = held["ema"].get("shadow_params") if isinstance(held["ema"], Mapping) else None
    found = [v for v in averages if isinstance(v, Tensor)] if isinstance(averages, list) else []
    learned = [name for name in weights if name not in names.FIXED]
    by_name({f"shadow_params[{k}]": value for k, value in enumerate(found)}, where)
    if len(found) != len(learned):
        raise CheckpointError(
            f"{where}: ema has {len(found)} shadow_params, and model {len(learned)} parameters."
        )
    return weights | dict(zip(learned, found, strict=True))


def _found(held: Mapping[str, Tensor], settings: _Config, where: str) -> Found:
    side = settings.data.image_size
    shape = (settings.data.num_channels, side, side)
    noising, config = settings.noising(), settings.network()
    network = outline(config, shape, 0, where)
    zero = -math.log(settings.unit)
    table = names.song(cast(SongUNet, network), config.encoder, 4.0, zero)
    made = converted(held, table, network.state_dict(), names.IDLE, where)
    return Found(
        source=f"{where}: {settings.model.name} with {settings.training.sde} of score_sde",
        name=settings.data.dataset,
        shape=shape,
        process=noising.process,
        parametrization=noising.parametrization,
        label=noising.label,
        network=config,
        weights=negated(made) if settings.training.sde == "vesde" else made,
    )
