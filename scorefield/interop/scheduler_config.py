"""Arguments of `SolverScheduler` from the config of a scheduler of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from diffusers.schedulers.scheduling_ddim_cogvideox import rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from torch import Tensor

from scorefield.interop.scheduler_process import FLOW

COMPATIBLE = [
    *(kind.name for kind in KarrasDiffusionSchedulers if kind.name != "EDMEulerScheduler"),
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
]
# entries that describe the network are used even where they are the scheduler's defaults; so is the
# solver, because diffusers treats positional arguments as defaults
_USED = (
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
# settings of schedulers whose networks have another label or output, and the reason
_FOREIGN = {
    "invert_sigmas": "time runs from data to noise",
    "stages": "a flow in stages, each with a start of its own",
    "n_grid": "a network of several outputs",
}


def solver_arguments(config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `SolverScheduler` for a config; ``own`` ones take precedence.

    Raises:
        ValueError: neither a table nor a flow, or a network with another label or output.
    """
    for name, why in _FOREIGN.items():
        if config.get(name):
            raise ValueError(f"{name}={config[name]!r}: {why}, which is not supported.")
    if config.get("timestep_type", "discrete") != "discrete":
        raise ValueError(f"timestep_type={config['timestep_type']!r}: must be 'discrete'.")
    arguments = {name: config[name] for name in _USED if name in config}
    if "beta_start" not in config:
        _check_flow(config, own)
        arguments["prediction_type"] = FLOW
    elif config.get("use_flow_sigmas") and config.get("prediction_type") != FLOW:
        raise ValueError(
            f"use_flow_sigmas=True with prediction_type={config.get('prediction_type')!r}: a flow "
            f"must have {FLOW!r}."
        )
    if "flow_shift" in config and "shift" not in config:
        arguments["shift"] = config["flow_shift"]
    return {**arguments, **own}


def _check_flow(config: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Reject a config that is not a flow's, or might not be."""
    if not set(config) >= _PLAIN_FLOW:
        raise ValueError(
            f"the config has {sorted(config)}: must describe a table (beta_start) or a flow "
            "(shift, num_train_timesteps)."
        )
    if {name for name in config if not name.startswith("_")} > _PLAIN_FLOW:
        return
    kind = config.get("_class_name")
    if kind != "FlowMatchHeunDiscreteScheduler" and own.get("prediction_type") != FLOW:
        raise ValueError(
            f"the config of {kind} has only num_train_timesteps and shift, as a flow map would: if "
            "the network predicts the velocity of a flow, use "
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
    r"""Return ``beta`` and ``abar`` of a table, as in `DDPMScheduler`.

    A ``shift`` of the signal-to-noise ratio other than 1 turns ``abar`` into ``abar / (shift + (1 -
    shift) abar)`` before rescaling, as in `CogVideoXDDIMScheduler`.

    Raises:
        ValueError: an unknown schedule; a shift that is not positive.
    """
    if not 0 < shift < float("inf"):
        raise ValueError(f"snr_shift_scale={shift!r}: must be positive.")
    betas = rows, beta_start, beta_end, beta_schedule, trained_betas
    try:
        plain = DDPMScheduler(*betas, rescale_betas_zero_snr=rescale and shift == 1)
    except NotImplementedError:
        raise ValueError(
            f"beta_schedule={beta_schedule!r}: must be a schedule of DDPMScheduler."
        ) from None
    alpha_bar: Tensor = plain.alphas_cumprod
    if shift != 1:
        alpha_bar = alpha_bar / (shift + (1 - shift) * alpha_bar)
        alpha_bar = rescale_zero_terminal_snr(alpha_bar) if rescale else alpha_bar
    return plain.betas, alpha_bar
