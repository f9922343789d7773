"""The settings of a training by flat names, as `scorefield.train` takes them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from scorefield._internal.errors import UsageError
from scorefield.data import Data
from scorefield.field import Denoiser, Parametrization
from scorefield.process import Process
from scorefield.runs import build
from scorefield.runs.build import Objects, is_classless
from scorefield.training.config import OptimConfig, TrainConfig
from scorefield.training.objective import TimeDistribution, Weighting

# settings that may be an object of the user's own, and its base classes
_OBJECTS: dict[str, tuple[type, ...]] = {
    "network": (nn.Module, Denoiser),
    "process": (Process,),
    "parametrization": (Parametrization,),
    "label": (),
    "weighting": (Weighting,),
    "times": (TimeDistribution,),
}
_OPTIM, _TRAIN = set(OptimConfig.model_fields), set(TrainConfig.model_fields)
# arguments of `scorefield.read`
_OF_DATA = {"without", "missing", "layer"}
# words of other libraries
_SYNONYMS = {
    "classes": "conditions",
    "epochs": "steps",
    "iterations": "steps",
    "labels": "conditions",
    "y": "conditions",
    "learning_rate": "lr",
    "model": "network",
    "schedule": "process",
    "prediction_type": "parametrization",
    "val_split": "held_out",
}


def configured(
    config: TrainConfig | None, settings: Mapping[str, Any]
) -> tuple[TrainConfig, Objects]:
    """Return a configuration with settings in it by their flat names, and the user's objects.

    A network, process, parametrization, label, weighting or distribution of times is the name of a
    kind, a configuration, or an object.

    Raises:
        TypeError: a name that is not a setting.
        UsageError: a value that is not allowed.
    """
    if not isinstance(config, TrainConfig | None):
        raise UsageError(
            f"config={config!r}: must be a TrainConfig; pass settings as keywords, steps=20."
        )
    values = dict(config or TrainConfig())
    optim, objects = dict(values.pop("optim")), dict[str, Any]()
    for name, value in settings.items():
        if name not in _OPTIM | _TRAIN:
            near = difflib.get_close_matches(name, _OPTIM | _TRAIN, n=1)
            close = _SYNONYMS.get(name) or (near[0] if near else "")
            if name in _OF_DATA:
                hint = f"read the data with it, train(scorefield.read(path, {name}=...))."
            else:
                hint = f"did you mean {close}?" if close else f"settings are {', '.join(_names())}."
            raise TypeError(f"train() has no setting {name!r}: {hint}")
        if name in _OPTIM:
            optim[name] = value
        elif name == "optim":
            optim |= dict(value)
        elif name not in _OBJECTS or isinstance(value, dict | BaseModel):
            values[name] = value
        elif isinstance(value, str):
            values[name] = {"kind": value}
        else:
            _check_object(name, value)
            objects[name] = value
    try:
        result = TrainConfig.model_validate({**values, "optim": optim})
    except ValidationError as error:
        raise UsageError(_message(error)) from None
    return result, Objects.of(objects.pop("network", None), **objects)


def check_settings(config: TrainConfig, data: Data) -> None:
    """Reject settings that do not fit the data.

    Raises:
        UsageError: with the setting to change.
    """
    if data.points.space:
        _check_on_space(config, data)
    if config.conditional and not data.conditions:
        raise UsageError(
            f"conditional=True: {data.name} has no conditions; pass them as conditions, or leave "
            "out conditional."
        )
    if config.conditional and not is_classless(config.network):
        _check_all_have_classes(data, config.dropout)
    if getattr(config.network, "components", 0):
        _check_components(config)
    if config.levels and any(c.kind == "category" for c in data.columns.kinds):
        raise UsageError(
            f"levels={config.levels}: {data.name} has columns of texts, which are not levels. "
            "Leave levels out; the whole numbers of a table stay whole anyway."
        )


def check_codec(config: TrainConfig, translates: bool) -> None:
    """Reject settings that do not fit latents.

    Raises:
        UsageError: with the setting to change.
    """
    if config.levels:
        raise UsageError(f"levels={config.levels}: a codec learns numbers; leave levels out.")
    if translates:
        raise UsageError("codec: translations between two data sets take none; leave it out.")
    if config.network.kind in ("unet", "song", "adm", "dit", "diffusers"):
        raise UsageError(
            f"network={config.network.kind}: the latents of a codec are vectors; use mlp."
        )


def _check_components(config: TrainConfig) -> None:
    """Reject a Wiener filter for a network that predicts, or is given, other quantities."""
    by = config.parametrization
    if by.kind != "preconditioned" or by.data_std != 1 or config.label.kind != "noise":
        raise UsageError(
            "network.components: needs parametrization.kind=preconditioned with data_std=1, and "
            "label.kind=noise."
        )


def _check_on_space(config: TrainConfig, data: Data) -> None:
    """Reject settings that have no meaning for points of a space."""
    kinds = {name: getattr(config, name).kind for name in ("process", "parametrization", "label")}
    needed = {"process": "brownian", "parametrization": "eps", "label": "noise"}
    wrong = [f"{name}={kind}" for name, kind in kinds.items() if kind != needed[name]]
    if config.network.kind not in ("auto", "mlp", "custom"):
        wrong.append(f"network={config.network.kind}")
    wrong += [f"{k}={getattr(config, k):g}" for k in ("levels", "bridge") if getattr(config, k)]
    if config.coupling != "independent":
        wrong.append(f"coupling={config.coupling}")
    if components := getattr(config.network, "components", 0):
        wrong.append(f"network.components={components}")
    if wrong:
        raise UsageError(
            f"{wrong[0]}: {data.name} has points of {data.points.space}, for which the process is "
            "brownian, the parametrization eps, the label noise and the network mlp or your own, "
            "without levels, couplings and components."
        )
    process = build.process(config.process)
    space, t_min = process.space, process.t_min
    if t_min**2 < space.earliest:
        raise UsageError(
            f"process.t_min={t_min:g}: heat kernels of {data.points.space} are computed from the "
            f"time {space.earliest:g}, its square; give {1.01 * space.earliest**0.5:.2g} or more."
        )


def _check_all_have_classes(data: Data, dropout: float) -> None:
    """Refuse to hide classes from a network that needs one for each sample."""
    if dropout:
        raise UsageError(
            f"dropout={dropout:g}: this network needs a class for every sample; set dropout=0, or "
            "use a network with classless=True."
        )
    if any(bool((y < 0).any()) for y in _classes(data)):
        raise UsageError(
            f"{data.name} has samples without a class, but this network needs one for every sample:"
            " give each a class, or use a network with classless=True."
        )


def _classes(data: Data) -> list[Tensor]:
    conditions = data.conditions
    return [conditions.values[c.key] for c in conditions.channels if c.kind == "class"]


def _names() -> list[str]:
    return sorted(_OPTIM | _TRAIN - {"optim"})


def _check_object(name: str, value: Any) -> None:
    kinds = _OBJECTS[name]
    if isinstance(value, type) and issubclass(value, kinds or object):
        raise UsageError(f"{name}={value.__name__}: pass an instance, {value.__name__}(...).")
    if not (isinstance(value, kinds) if kinds else callable(value)):
        wanted = " or ".join(kind.__name__ for kind in kinds) or "function (process, t) -> label"
        raise UsageError(
            f"{name}={value!r}: pass the name of a kind, a configuration, or an object: {wanted}."
        )


def _message(error: ValidationError) -> str:
    """Return one line on the first value that is not allowed."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if not isinstance(part, int)]
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        return f"{place[0]}={context['tag']!r}: the kinds are {context['expected_tags']}."
    name = place[-1] if place[0] in ("optim", *_TRAIN) and len(place) < 3 else ".".join(place)
    return f"{name}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}."
