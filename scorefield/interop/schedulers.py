"""What a scheduler of diffusers says of the process a network was trained on.

It also says how to sample, which is no matter of the network, and left aside: spacing, clipping,
solvers and their orders, and a flow's shift.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.training.config import (
    EDMConfig,
    FlowConfig,
    LabelConfig,
    ParametrizationConfig,
    PlainLabel,
    PlainParametrization,
    PreconditionedConfig,
    ProcessConfig,
    TabulatedConfig,
    TimeLabelConfig,
)

_MOST = 10_000  # steps of a table
FLOW = "flow_prediction"
_DISTILLED = "LCMScheduler", "TCDScheduler"  # of latents and of flows
_PREDICTIONS: dict[str, ParametrizationConfig] = {
    "epsilon": PlainParametrization(kind="eps"),
    "sample": PlainParametrization(kind="x0"),
    "v_prediction": PlainParametrization(kind="v"),
}


class Noising(NamedTuple):
    """How data was noised, and what the network predicts and is told.

    Attributes:
        low: what black is for the network, where white is 1.
    """

    process: ProcessConfig
    parametrization: ParametrizationConfig
    label: LabelConfig
    low: float = -1.0


def made(values: Mapping[str, Any], where: str) -> Any:
    """Return the scheduler of a configuration file.

    Raises:
        CheckpointError: no scheduler that diffusers knows, or not with these settings.
        ImportError: diffusers is not installed.
    """
    import diffusers

    name = values.get("_class_name")
    known = isinstance(name, str) and name.endswith("Scheduler")
    cls = getattr(diffusers, str(name), None) if known else None
    if cls is None:
        raise CheckpointError(f"{where}: {name!r} is no scheduler that diffusers knows.")
    _check_steps(values.get("num_train_timesteps", 1), values.get("trained_betas"), name, where)
    takes = inspect.signature(cls).parameters
    try:
        return cls(**{key: value for key, value in values.items() if key in takes})
    except ImportError:
        raise
    except Exception as error:  # whatever comes of values that nobody checked
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{where}: no {name} of these settings: {reason[:200]}") from None


def _check_steps(count: Any, betas: Any, name: Any, where: str) -> None:
    betas = [] if betas is None else betas
    if not isinstance(betas, list) or not all(isinstance(beta, int | float) for beta in betas):
        raise CheckpointError(f"{where}: trained_betas of {name} are no list of numbers.")
    if not isinstance(count, int) or count < 1 or max(count, len(betas)) > _MOST:
        raise CheckpointError(
            f"{where}: num_train_timesteps {str(count)[:20]} of {name} is no number of steps, or "
            f"there are more than {_MOST:,}."
        )


def noising(scheduler: Any) -> Noising:
    """Return what a scheduler says of the process.

    Raises:
        UsageError: a scheduler, or a prediction, that no process is known of; a prediction of the
            noise from no signal at all.
    """
    name, settings = type(scheduler).__name__, getattr(scheduler, "config", None)
    if settings is None:
        raise UsageError(
            f"{name} is no scheduler, or none that this version of diffusers has: give a scheduler "
            "object, as diffusers.DDPMScheduler()."
        )
    if name.endswith(_DISTILLED):
        raise UsageError(
            f"{name}: a network that is distilled for it leaps to the data and tells no score: "
            "import the one that it was distilled from, with that one's scheduler."
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
        raise UsageError(f"{name} has invert_sigmas: no process is known of it.")
    count = settings.num_train_timesteps
    flow, label = FlowConfig(t_min=1 / count, t_max=1.0), TimeLabelConfig(scale=float(count))
    return Noising(flow, PlainParametrization(kind="velocity"), label)


def _table(scheduler: Any, name: str, settings: Any) -> Noising:
    prediction = settings.get("prediction_type", "epsilon")
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None or settings.get("timestep_type", "discrete") != "discrete":
        raise UsageError(
            f"{name}: no table of alphas_cumprod by whole steps, and no process is known of it; "
            "known are schedulers with a table, FlowMatchEuler, FlowMatchHeun, EDM and ScoreSdeVe."
        )
    if not isinstance(prediction, str) or prediction not in _PREDICTIONS:
        raise UsageError(
            f"{name} has prediction_type {str(prediction)[:60]!r}: known are "
            f"{', '.join(_PREDICTIONS)} and {FLOW}."
        )
    alpha_bar = tuple(table.double().tolist())
    if settings.get("rescale_betas_zero_snr"):
        alpha_bar = (*alpha_bar[:-1], 0.0)  # some put 2^-24 there, to divide by it
    if not all(0 <= value < 1 for value in alpha_bar):
        raise UsageError(f"{name}: its betas make no table of alphas_cumprod within [0, 1).")
    if prediction == "epsilon" and alpha_bar[-1] == 0:
        raise UsageError(
            f"{name} has prediction_type 'epsilon', and a table that ends at alpha = 0 "
            "(rescale_betas_zero_snr), where the noise tells nothing of the data: if the network "
            "predicts v or the data, say so in prediction_type; otherwise leave out the rescaling."
        )
    return Noising(
        TabulatedConfig(alpha_bar=alpha_bar), _PREDICTIONS[prediction], TimeLabelConfig()
    )


def _edm(name: str, settings: Any) -> Noising:
    if settings.prediction_type != "epsilon":
        raise UsageError(
            f"{name} has prediction_type {settings.prediction_type!r}: known is 'epsilon'."
        )
    process = EDMConfig(t_min=settings.sigma_min, t_max=settings.sigma_max)
    return Noising(process, PreconditionedConfig(data_std=settings.sigma_data), PlainLabel())
