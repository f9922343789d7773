"""What the config of a scheduler of diffusers says of the network that it was made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from diffusers.schedulers.scheduling_ddim_cogvideox import rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from torch import Tensor

from scorefield.interop.schedulers import FLOW

COMPATIBLE = [
    *(kind.name for kind in KarrasDiffusionSchedulers if kind.name != "EDMEulerScheduler"),
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
]
# what a config says of the network is taken over even where it was its scheduler's default; so is
# a solver, since diffusers takes arguments given in order for defaults
_TAKEN = (
    "solver",
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "snr_shift_scale",
    "prediction_type",
    "shift",
)
_PLAIN_FLOW = {"num_train_timesteps", "shift"}
# settings of schedulers whose networks are told or say something else, and what that is
_FOREIGN = {
    "invert_sigmas": "time runs from data to noise",
    "stages": "a flow in stages, each with a start of its own",
    "n_grid": "a network of several outputs",
}


def taken(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `SolverScheduler` that a config stands for, those given aside.

    Raises:
        ValueError: neither a table nor a flow, or a network that is told or says something else.
    """
    for name, why in _FOREIGN.items():
        if config.get(name):
            raise ValueError(f"{name} = {config[name]!r}: {why}, which cannot be taken over.")
    if config.get("timestep_type", "discrete") != "discrete":
        raise ValueError(
            f"timestep_type = {config['timestep_type']!r}: networks that are told something else "
            "than the timestep cannot be taken over."
        )
    found = {name: config[name] for name in _TAKEN if name in config}
    if "beta_start" not in config:
        _check_flow(config, given)
        found["prediction_type"] = FLOW
    elif config.get("use_flow_sigmas") and config.get("prediction_type") != FLOW:
        raise ValueError(
            f"use_flow_sigmas = True with prediction_type = {config.get('prediction_type')!r}: a "
            f"flow is taken over where it is {FLOW!r}."
        )
    if "flow_shift" in config and "shift" not in config:
        found["shift"] = config["flow_shift"]
    return {**found, **given}


def _check_flow(config: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse what is no flow, or may be none."""
    if not set(config) >= _PLAIN_FLOW:
        raise ValueError(
            f"the config has {sorted(config)}, and so neither a table (beta_start) nor a flow "
            "(shift, num_train_timesteps): a network of another kind cannot be taken over."
        )
    if {name for name in config if not name.startswith("_")} > _PLAIN_FLOW:
        return
    kind = config.get("_class_name")
    if kind != "FlowMatchHeunDiscreteScheduler" and given.get("prediction_type") != FLOW:
        raise ValueError(
            f"the config has num_train_timesteps and shift alone, and is of {kind}: a flow map "
            "would look the same. If the network predicts the velocity of a flow, say so: "
            f'from_config(config, prediction_type="{FLOW}").'
        )


def table(
    rows: int,
    beta_start: float,
    beta_end: float,
    beta_schedule: str,
    trained_betas: Sequence[float] | np.ndarray | Tensor | None,
    rescale: bool,
    shift: float,
) -> tuple[Tensor, Tensor]:
    r"""Return ``beta`` and ``abar`` of a table, as `DDPMScheduler` makes them.

    With a ``shift`` other than 1 of the signal to noise, ``abar`` becomes ``abar / (shift + (1 -
    shift) abar)`` before it is rescaled, as `CogVideoXDDIMScheduler` has it.

    Raises:
        ValueError: a schedule that it does not have; a shift that is not positive.
    """
    if not 0 < shift < float("inf"):
        raise ValueError(f"snr_shift_scale = {shift!r}: give a positive number.")
    betas = rows, beta_start, beta_end, beta_schedule, trained_betas
    try:
        plain = DDPMScheduler(*betas, rescale_betas_zero_snr=rescale and shift == 1)
    except NotImplementedError:
        raise ValueError(
            f"beta_schedule = {beta_schedule!r}: DDPMScheduler has none such."
        ) from None
    alpha_bar: Tensor = plain.alphas_cumprod
    if shift != 1:
        alpha_bar = alpha_bar / (shift + (1 - shift) * alpha_bar)
        alpha_bar = rescale_zero_terminal_snr(alpha_bar) if rescale else alpha_bar
    return plain.betas, alpha_bar
