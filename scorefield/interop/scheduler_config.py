"""Arguments of `SolverScheduler` from the config of a scheduler of diffusers.

`arguments` is the one reader of such configs: for a scheduler of ours, and for the import of a
network. Every entry is used, listed here as one without effect, named in a warning, or rejected.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from diffusers.schedulers.scheduling_ddim_cogvideox import rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from torch import Tensor

FLOW = "flow_prediction"
COMPATIBLE = [
    *(kind.name for kind in KarrasDiffusionSchedulers if kind.name != "EDMEulerScheduler"),
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
]
# the network and its estimates: used even where they are the defaults of their scheduler, and kept
# when a config of ours is converted; so is the solver
NETWORK = (
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
    "sigma_data",
    "clip_sample",
    "clip_sample_range",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
)
# the grid: used if they are not the defaults, as diffusers converts configs
_GRID = (
    "timestep_spacing",
    "steps_offset",
    "sigma_min",
    "sigma_max",
    "rho",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "time_shift_type",
    "shift_terminal",
    "invert_sigmas",
)
# the solver, which ours replaces, and the noise that it adds
_OF_SOLVER = {
    *("algorithm_type", "solver_order", "solver_type", "solver_p", "lower_order_final"),
    *("euler_at_final", "final_sigmas_type", "disable_corrector", "predict_x0", "corrector_order"),
    *("predictor_order", "tau_func", "skip_prk_steps", "set_alpha_to_one", "interpolation_type"),
    *("variance_type", "eta", "s_noise", "stochastic_sampling", "noise_sampler_seed"),
}
# read by pipelines, which find them in our config too; or read above
_OF_PIPELINES = {
    *("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"),
    *("use_flow_sigmas", "flow_shift", "sigma_schedule", "timestep_type"),
}
# settings of schedulers whose networks have another label or output, and the reason
_FOREIGN = {
    "stages": "a flow in stages, each with a start of its own",
    "n_grid": "a network of several outputs",
    "original_inference_steps": "a distilled network, which does not represent a score",
    "scale_factors": "a distilled network, which does not represent a score",
    "upscale_mode": "a distilled network, which does not represent a score",
    "use_lu_lambdas": "another spacing; choose timestep_spacing or use_karras_sigmas",
}
_PLAIN_FLOW = {"num_train_timesteps", "shift"}
_FLOWS = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"


def arguments(
    config: Mapping[str, Any], own: Mapping[str, Any] | None = None, name: str | None = None
) -> dict[str, Any]:
    """Return the arguments of `SolverScheduler` for a config; ``own`` ones take precedence.

    Args:
        config: of a scheduler of diffusers, or of `SolverScheduler`.
        own: arguments of `SolverScheduler`.
        name: of the scheduler's class, if the config does not have it.

    Raises:
        ValueError: neither a table, a flow nor EDM's; a network with another label or output.
    """
    own = {} if own is None else own
    for entry, why in _FOREIGN.items():
        if config.get(entry):
            raise ValueError(f"{entry}={config[entry]!r}: {why}, which is not supported.")
    result = {entry: config[entry] for entry in NETWORK if entry in config}
    defaults = config.get("_use_default_values", ())
    result |= {entry: config[entry] for entry in _GRID if entry in config and entry not in defaults}
    if "solver" in config:
        return {**result, **own}
    if config.get("timestep_type", "discrete") != "discrete":
        result |= _continuous(config)
    elif config.get("sigma_data") is not None:
        result |= _edm(config, defaults)
    elif "beta_start" not in config:
        _check_flow(config, own, name or config.get("_class_name"))
        result["prediction_type"] = FLOW
    elif config.get("use_flow_sigmas") and config.get("prediction_type") != FLOW:
        raise ValueError(
            f"use_flow_sigmas=True with prediction_type={config.get('prediction_type')!r}: a flow "
            f"must have {FLOW!r}."
        )
    if "flow_shift" in config and "shift" not in config:
        result["shift"] = config["flow_shift"]
    return {**result, **own}


def _continuous(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for a network that is labelled by ``log(sigma) / 4``."""
    ends = {end: config.get(end) for end in ("sigma_min", "sigma_max")}
    if config["timestep_type"] != "continuous" or config.get("prediction_type") != "v_prediction":
        raise ValueError(
            f"timestep_type={config['timestep_type']!r}: must be 'discrete', or 'continuous' with "
            "prediction_type='v_prediction'."
        )
    if None in ends.values():
        raise ValueError(f"timestep_type='continuous' with {ends}: must have both ends.")
    return {"sigma_data": 1.0, **ends}


def _edm(config: Mapping[str, Any], defaults: Sequence[str]) -> dict[str, Any]:
    """Return the arguments for a network of EDM."""
    if "sigma_schedule" not in config:
        raise ValueError(
            f"sigma_data={config['sigma_data']!r} without sigma_schedule: not a scheduler of EDM, "
            "which is not supported."
        )
    ends = {end: config[end] for end in ("sigma_min", "sigma_max")}
    if "sigma_schedule" in defaults:
        return ends
    return {**ends, f"use_{config['sigma_schedule']}_sigmas": True}


def _check_flow(config: Mapping[str, Any], own: Mapping[str, Any], kind: str | None) -> None:
    """Reject a config that is not a flow's, or might not be."""
    names = {name for name in config if not name.startswith("_")}
    if not names >= _PLAIN_FLOW:
        raise ValueError(
            f"the config has {sorted(names)}: must describe a table (beta_start), a flow (shift, "
            "num_train_timesteps) or a network of EDM (sigma_data)."
        )
    if names > _PLAIN_FLOW:
        return
    if kind not in _FLOWS and own.get("prediction_type") != FLOW:
        raise ValueError(
            f"the config of {kind} has only num_train_timesteps and shift, as a flow map would: if "
            "the network predicts the velocity of a flow, use "
            f'from_config(config, prediction_type="{FLOW}").'
        )


def name_others(config: Mapping[str, Any]) -> None:
    """Warn of entries that are neither used nor known to have no effect.

    Warns:
        UserWarning: with their names and values.
    """
    listed = {*NETWORK, *_GRID, *_OF_SOLVER, *_OF_PIPELINES, *_FOREIGN}
    others = {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and name not in listed and value not in (None, False, -math.inf)
    }
    if others:
        text = ", ".join(f"{name}={value!r}" for name, value in others.items())
        warnings.warn(
            f"{text}: unknown here, and ignored; the samples may differ from those of "
            f"{config.get('_class_name', 'the scheduler')} for that reason.",
            stacklevel=3,
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
