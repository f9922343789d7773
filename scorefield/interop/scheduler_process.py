"""The process and the parametrization of a network, from the config of its scheduler.

`scheduler_config.arguments` reads the config. From its result, `clock_of` and `field_of` make the
parts of a scheduler of ours, and `noising` the configuration of a run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.field import (
    X0,
    Clipped,
    Eps,
    Parametrization,
    Preconditioned,
    ScoreField,
    Thresholded,
    V,
    Velocity,
)
from scorefield.interop.clocks import Clock, EDMClock, FlowClock, Levels, Negated, TableClock
from scorefield.interop.foreign import Noising
from scorefield.interop.replay import replay_field
from scorefield.interop.scheduler_config import FLOW, arguments, table
from scorefield.process import EDM, Flow, Tabulated
from scorefield.training.config import (
    EDMConfig,
    FlowConfig,
    ParametrizationConfig,
    PlainLabel,
    PlainParametrization,
    PreconditionedConfig,
    TabulatedConfig,
    TimeLabelConfig,
)

_DISTILLED = "LCMScheduler", "TCDScheduler"  # for latents and for flows
_MOST = 10_000  # entries of a table
_PREDICTIONS: dict[str, tuple[Parametrization, ParametrizationConfig]] = {
    "epsilon": (Eps(), PlainParametrization(kind="eps")),
    "sample": (X0(), PlainParametrization(kind="x0")),
    "v_prediction": (V(), PlainParametrization(kind="v")),
}
Table = tuple[Tensor, Tensor]


def clock_of(config: Mapping[str, Any]) -> tuple[Clock, Table | None]:
    """Return the clock for a config of `SolverScheduler`; the betas and ``abar`` of its table.

    Raises:
        ValueError: a prediction, schedule, spacing or shift that is not one of the kind's.
    """
    levels = _levels(config)
    if config["sigma_data"] is not None:
        return _edm_clock(config, levels), None
    if config["prediction_type"] == FLOW:
        velocity = Negated(Velocity()) if config["invert_sigmas"] else Velocity()
        shift = config["shift"], config["use_dynamic_shifting"], config["time_shift_type"]
        ends = config["shift_terminal"], config["invert_sigmas"]
        flow = Flow(t_min=1e-5, t_max=1.0), velocity, config["num_train_timesteps"]
        return FlowClock(*flow, *shift, *ends, levels), None
    betas = _table(config)
    prediction = _prediction(config, (*_PREDICTIONS, FLOW))[0]
    grid = config["timestep_spacing"], config["steps_offset"]
    return TableClock(Tabulated(betas[1]), prediction, *grid, levels), betas


def field_of(config: Mapping[str, Any], clock: Clock) -> ScoreField:
    """Return the field of a network that is called outside, clipped as the config says.

    Raises:
        ValueError: the prediction has infinite coefficients at an end of the process.
    """
    return clipped(replay_field(clock.process, clock.prediction), config)


def clipped(field: ScoreField, config: Mapping[str, Any]) -> ScoreField:
    """Return a field whose estimates of the data are clipped as a config says."""
    if config["thresholding"]:
        return Thresholded(field, config["dynamic_thresholding_ratio"], config["sample_max_value"])
    return Clipped(field, config["clip_sample_range"]) if config["clip_sample"] else field


def _levels(config: Mapping[str, Any]) -> Levels:
    kinds = [k for k in ("karras", "exponential", "beta") if config[f"use_{k}_sigmas"]]
    if len(kinds) > 1:
        names = [f"use_{kind}_sigmas" for kind in kinds]
        raise ValueError(f"{names[0]}=True: cannot be combined with {names[1]}.")
    ends = config["sigma_min"], config["sigma_max"]
    if kinds and ends[0] is not None and ends[0] <= 0:
        raise ValueError(f"sigma_min={ends[0]!r}: must be positive for use_{kinds[0]}_sigmas=True.")
    return Levels(kinds[0] if kinds else None, config["rho"], *ends)


def _edm_clock(config: Mapping[str, Any], levels: Levels) -> EDMClock:
    prediction, (low, high) = config["prediction_type"], (levels.least, levels.most)
    if prediction not in ("epsilon", "v_prediction") or low is None or high is None:
        raise ValueError(
            f"prediction_type={prediction!r}, sigma_min={low}, sigma_max={high}: a network of EDM "
            "has 'epsilon' or 'v_prediction', and both ends."
        )
    plain = Preconditioned(config["sigma_data"])
    return EDMClock(EDM(low, high), plain if prediction == "epsilon" else Negated(plain), levels)


def _table(config: Mapping[str, Any]) -> Table:
    betas = config["beta_start"], config["beta_end"], config["beta_schedule"]
    rescaled = config["rescale_betas_zero_snr"], config["snr_shift_scale"]
    return table(config["num_train_timesteps"], *betas, config["trained_betas"], *rescaled)


def _prediction(
    config: Mapping[str, Any], allowed: tuple[str, ...]
) -> tuple[Parametrization, ParametrizationConfig]:
    prediction = config["prediction_type"]
    if not isinstance(prediction, str) or prediction not in _PREDICTIONS:
        text = str(prediction)[:60]
        raise ValueError(f"prediction_type={text!r}: must be one of {', '.join(allowed)}.")
    return _PREDICTIONS[prediction]


def build_scheduler(values: Mapping[str, Any], where: str) -> Any:
    """Return the scheduler of a configuration file.

    Raises:
        CheckpointError: an unknown scheduler, or settings that it rejects.
        ImportError: diffusers is not installed.
    """
    import diffusers

    name = values.get("_class_name")
    is_scheduler = isinstance(name, str) and name.endswith("Scheduler")
    cls = getattr(diffusers, str(name), None) if is_scheduler else None
    if cls is None:
        raise CheckpointError(f"{where}: {name!r} is not a scheduler of diffusers.")
    _check_steps(values.get("num_train_timesteps", 1), values.get("trained_betas"), name, where)
    parameters = inspect.signature(cls).parameters
    try:
        return cls(**{key: value for key, value in values.items() if key in parameters})
    except ImportError:
        raise
    except Exception as error:  # a scheduler raises anything for bad values
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{where}: {name} rejects its settings: {reason[:200]}") from None


def _check_steps(count: Any, betas: Any, name: Any, where: str) -> None:
    betas = [] if betas is None else betas
    if not isinstance(betas, list) or not all(isinstance(beta, int | float) for beta in betas):
        raise CheckpointError(f"{where}: trained_betas of {name} must be a list of numbers.")
    if not isinstance(count, int) or count < 1 or max(count, len(betas)) > _MOST:
        raise CheckpointError(
            f"{where}: num_train_timesteps={str(count)[:20]} of {name} must be a whole number from "
            f"1 to {_MOST:,}, and so the number of trained_betas."
        )


def reject_distilled(scheduler: str, subject: str) -> None:
    """Reject the scheduler of a distilled network, by its name.

    Raises:
        UsageError: with the subject at its start.
    """
    if scheduler.endswith(_DISTILLED):
        raise UsageError(
            f"{subject}: distilled networks map noise directly to data and do not represent a "
            "score; use the network before distillation, with its scheduler."
        )


def noising(scheduler: Any) -> Noising:
    """Return the process and the parametrization of a scheduler.

    Raises:
        UsageError: a scheduler or a prediction without a known process; a prediction of the noise
            where the signal is zero.
    """
    name, settings = type(scheduler).__name__, getattr(scheduler, "config", None)
    if settings is None:
        raise UsageError(
            f"{name} is not a scheduler of this version of diffusers: give such an object."
        )
    reject_distilled(name, name)
    if name == "ScoreSdeVeScheduler":
        process = EDMConfig(t_min=settings.sigma_min, t_max=settings.sigma_max)
        score, ratio = PlainParametrization(kind="score"), PlainLabel(kind="ratio")
        return Noising(process, score, ratio, low=0.0)
    try:
        values = arguments(settings, name=name)
        if values.get("sigma_data") is not None:
            return _edm(values)
        if values["prediction_type"] == FLOW:
            return _flow(values)
        return _tabulated(scheduler.alphas_cumprod, values)
    except ValueError as error:
        raise UsageError(f"{name} is not supported: {error}") from None


def _flow(values: Mapping[str, Any]) -> Noising:
    if values.get("invert_sigmas"):
        raise ValueError("invert_sigmas=True: use a pipeline with SolverScheduler instead.")
    count = values["num_train_timesteps"]
    flow, label = FlowConfig(t_min=1 / count, t_max=1.0), TimeLabelConfig(scale=float(count))
    return Noising(flow, PlainParametrization(kind="velocity"), label)


def _tabulated(alphas_cumprod: Tensor, values: Mapping[str, Any]) -> Noising:
    prediction = _prediction(values, (*_PREDICTIONS, FLOW))[1]
    alpha_bar = tuple(alphas_cumprod.double().tolist())
    if values.get("rescale_betas_zero_snr"):
        alpha_bar = (*alpha_bar[:-1], 0.0)  # some schedulers put 2^-24 there, to divide by it
    if not all(0 <= value < 1 for value in alpha_bar):
        raise ValueError("its betas give alphas_cumprod outside [0, 1).")
    if values["prediction_type"] == "epsilon" and alpha_bar[-1] == 0:
        raise ValueError(
            "prediction_type='epsilon' and a table that ends at alpha = 0 "
            "(rescale_betas_zero_snr), where the noise does not depend on the data: set "
            "prediction_type to 'v_prediction' or 'sample' if that is true, or do not rescale."
        )
    return Noising(TabulatedConfig(alpha_bar=alpha_bar), prediction, TimeLabelConfig())


def _edm(values: Mapping[str, Any]) -> Noising:
    if values["prediction_type"] != "epsilon":
        raise ValueError(f"prediction_type={values['prediction_type']!r}: must be 'epsilon'.")
    process = EDMConfig(t_min=values["sigma_min"], t_max=values["sigma_max"])
    return Noising(process, PreconditionedConfig(data_std=values["sigma_data"]), PlainLabel())
