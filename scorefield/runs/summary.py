"""A run in words."""

from __future__ import annotations

import torch

from scorefield.data.channels import described
from scorefield.data.config import DataConfig
from scorefield.data.inspection import column_summary
from scorefield.runs.run import Run


def summary(run: Run) -> dict[str, str]:
    """Return the data, the process, the network and the training of a run, by name."""
    process, data, config = run.field.process, run.config.data, run.config.train
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    low, high = torch.exp(-process.half_log_snr(ends)).tolist()
    network = config.network.model_dump(exclude_none=True)
    kind = network.pop("kind")
    network.pop("arguments", None)  # pages of them
    settings = ", ".join(f"{name} {value}" for name, value in network.items())
    rows = {
        "imported from": run.config.source or "",
        "data": f"{data.name}: {amount(data)} of shape {data.shape}",
        "values": f"whole numbers in {config.levels} levels" if config.levels else "",
        **column_summary(data.columns),
        "points": _points(data),
        "conditions": "; ".join(map(described, data.conditions)) or "none",
        "process": f"{process}",
        "noise levels": f"sigma/alpha from {low:.3g} to {high:.3g}",
        "parametrization": f"{run.field.parametrization}",
        "coupling": "" if config.coupling == "independent" else f"{config.coupling}: no score",
        "network": f"{kind} of {parameters(run.field.network):,} parameters: {settings}",
    }
    if run.config.loss is not None:
        optim = config.optim
        of = "" if run.config.step is None else f", weights of step {run.config.step}"
        rows["training"] = f"{optim.steps} steps of {optim.batch_size}, seed {config.seed}{of}"
        rows["loss"] = f"{run.config.loss:.4f}"
    return {name: text for name, text in rows.items() if text}


def _points(data: DataConfig) -> str:
    """Return the space of the points in the data and the forms of their columns."""
    points = data.points
    forms = ", ".join(points.forms)
    angles = {"angles", "latlon", "euler"} & {*points.forms}
    unit = f", in {points.angles}" if angles else ""
    return f"of {points.space} as {forms}{unit}" if points.space else ""


def amount(data: DataConfig) -> str:
    """Return the number of samples, if the configuration has it."""
    return "samples" if data.count is None else f"{data.count:,} samples"


def parameters(network: torch.nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(p.numel() for p in network.parameters())
