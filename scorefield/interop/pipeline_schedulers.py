"""The deterministic schedulers of diffusers with their usual settings, for a pipeline's network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import diffusers

_SPACINGS = ("leading", "linspace", "trailing")
_SIGMAS = ("karras", "exponential", "beta")
_SHIFTS = (0.5, 1.0, 2.0, 3.0, 5.0)
_ORDERS = {  # classes of several orders, by name
    "DPM++ {}M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "DPM++ {}S": ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver++"}),
    "UniPC {}": ("UniPCMultistepScheduler", {}),
    "DEIS {}": ("DEISMultistepScheduler", {}),
}
_FLOW_EULER, _FLOW_HEUN = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"

_Kind = tuple[str, str, dict[str, Any]]  # name, class and settings


def usual_schedulers(config: Mapping[str, Any], flow: bool) -> dict[str, Any]:
    """Return schedulers for the network of a pipeline whose scheduler has this config, by name.

    Settings that a class rejects are left out.
    """
    result = {}
    for name, kind, settings in _flows(config) if flow else _tables(config):
        try:
            result[name] = getattr(diffusers, kind).from_config(config, **settings)
        except (ValueError, TypeError, NotImplementedError, ImportError):
            continue
    return result


def _tables(config: Mapping[str, Any]) -> Iterator[_Kind]:
    plain, clip = _sigmas(None), config.get("clip_sample", False)
    spacings = {kind: {"timestep_spacing": kind, **plain} for kind in _SPACINGS}
    for grid, settings in spacings.items():
        yield f"DDIM {grid}", "DDIMScheduler", settings | {"clip_sample": clip}
        yield f"PNDM {grid}", "PNDMScheduler", settings | {"skip_prk_steps": True}
    for grid, settings in {**spacings, **{kind: _sigmas(kind) for kind in _SIGMAS}}.items():
        yield f"Euler {grid}", "EulerDiscreteScheduler", settings
        yield f"Heun {grid}", "HeunDiscreteScheduler", settings
        yield from _orders(grid, settings)


def _flows(config: Mapping[str, Any]) -> Iterator[_Kind]:
    """Yield the schedulers of a flow, with the pipeline's own shift and with others."""
    shared = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    yield "Euler own shift", _FLOW_EULER, {}
    own = config.get("flow_shift", config.get("shift", 1.0))  # other classes have another name
    yield from _orders("own shift", shared | {"flow_shift": own})
    for kind in _SIGMAS:
        yield f"Euler {kind}", _FLOW_EULER, _sigmas(kind)
    for shift in _SHIFTS:
        grid, fixed = f"shift {shift:g}", {"use_dynamic_shifting": False}
        yield f"Euler {grid}", _FLOW_EULER, fixed | {"shift": shift}
        yield f"Heun {grid}", _FLOW_HEUN, {"shift": shift}
        yield from _orders(grid, shared | fixed | {"flow_shift": shift})


def _orders(grid: str, settings: dict[str, Any]) -> Iterator[_Kind]:
    for name, (kind, own) in _ORDERS.items():
        for order in (2, 3):
            yield f"{name.format(order)} {grid}", kind, settings | own | {"solver_order": order}


def _sigmas(chosen: str | None) -> dict[str, Any]:
    return {f"use_{kind}_sigmas": kind == chosen for kind in _SIGMAS}
