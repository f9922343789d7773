"""The process and the parametrization of a network, from a scheduler of diffusers.

Settings of sampling are ignored: spacing, clipping, solvers and their orders, and a flow's shift.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.interop.foreign import Noising
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

_MOST = 10_000  # entries of a table
FLOW = "flow_prediction"
DISTILLED = "LCMScheduler", "TCDScheduler"  # for latents and for flows
_PREDICTIONS: dict[str, ParametrizationConfig] = {
    "epsilon": PlainParametrization(kind="eps"),
    "sample": PlainParametrization(kind="x0"),
    "v_prediction": PlainParametrization(kind="v"),
}


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
    if name.endswith(DISTILLED):
        raise UsageError(
            f"{name}: distilled networks map noise directly to data and do not represent a score; "
            "import the network before distillation, with its scheduler."
        )
    if name.startswith("EDM"):
        return _edm(name, settings)
    if name == "ScoreSdeVeScheduler":
        process = EDMConfig(t_min=settings.sigma_min, t_max=settings.sigma_max)
        score, ratio = PlainParametrization(kind="score"), PlainLabel(kind="ratio")
        return Noising(process, score, ratio, low=0.0)
    if name.startswith("FlowMatch") or settings.get("prediction_type") == FLOW:
        return _flow(name, settings)
    return _table(scheduler, name, settings)


def _flow(name: str, settings: Any) -> Noising:
    if settings.get("invert_sigmas"):
        raise UsageError(f"{name} has invert_sigmas=True, which is not supported.")
    count = settings.num_train_timesteps
    flow, label = FlowConfig(t_min=1 / count, t_max=1.0), TimeLabelConfig(scale=float(count))
    return Noising(flow, PlainParametrization(kind="velocity"), label)


def _table(scheduler: Any, name: str, settings: Any) -> Noising:
    prediction = settings.get("prediction_type", "epsilon")
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None or settings.get("timestep_type", "discrete") != "discrete":
        raise UsageError(
            f"{name} is not supported: give a scheduler with a table alphas_cumprod, "
            "FlowMatchEuler, FlowMatchHeun, EDM or ScoreSdeVe."
        )
    if not isinstance(prediction, str) or prediction not in _PREDICTIONS:
        raise UsageError(
            f"{name} has prediction_type={str(prediction)[:60]!r}: must be one of "
            f"{', '.join(_PREDICTIONS)} or {FLOW}."
        )
    alpha_bar = tuple(table.double().tolist())
    if settings.get("rescale_betas_zero_snr"):
        alpha_bar = (*alpha_bar[:-1], 0.0)  # some schedulers put 2^-24 there, to divide by it
    if not all(0 <= value < 1 for value in alpha_bar):
        raise UsageError(f"{name}: its betas give alphas_cumprod outside [0, 1).")
    if prediction == "epsilon" and alpha_bar[-1] == 0:
        raise UsageError(
            f"{name} has prediction_type='epsilon' and a table that ends at alpha = 0 "
            "(rescale_betas_zero_snr), where the noise does not depend on the data: set "
            "prediction_type to 'v_prediction' or 'sample' if that is true, or do not rescale."
        )
    return Noising(
        TabulatedConfig(alpha_bar=alpha_bar), _PREDICTIONS[prediction], TimeLabelConfig()
    )


def _edm(name: str, settings: Any) -> Noising:
    if settings.prediction_type != "epsilon":
        raise UsageError(
            f"{name} has prediction_type={settings.prediction_type!r}: must be 'epsilon'."
        )
    process = EDMConfig(t_min=settings.sigma_min, t_max=settings.sigma_max)
    return Noising(process, PreconditionedConfig(data_std=settings.sigma_data), PlainLabel())
