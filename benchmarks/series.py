r"""Series: the U-Net, which signals have by default, and the MLP, trained for the same CPU time.

Two public sets of the UCR archive, which the wheel of aeon carries (150 and 251 places)::

    pip download aeon --no-deps
    python benchmarks/series.py --wheel aeon-*.whl               # writes results/series.json
    python benchmarks/series.py --wheel aeon-*.whl --seconds 20  # sooner

A quarter of each set is set aside for the judge. Each network is trained on the rest for so many
seconds of one CPU, and a tenth of the rest chooses its step. Then 256 samples of 20 calls are
compared with the judge's series:

- spectrum: the root mean square over frequencies of the difference of mean spectra, in decibels;
- autocorrelation: that over lags up to half the length, of mean autocorrelations;
- steps: the root mean square of successive differences of samples, over that of the judge's series.

The row "data" has the same numbers of the series that were trained on. The error is that of `x0` on
the judge's series, relative to the best denoiser of independent Gaussian coordinates.
"""

from __future__ import annotations

import argparse
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from machine import facts as machine_facts
from torch import Tensor

import scorefield as sf
from scorefield.training.held_out import HeldOut

RESULTS = Path(__file__).parent / "results" / "series.json"
SETS = ("GunPoint", "ArrowHead")
NETWORKS = ("unet", "mlp")


def load(wheel: Path, name: str) -> Tensor:
    """Return all series of a set, ``(N, 1, L)``."""
    rows: list[list[str]] = []
    with zipfile.ZipFile(wheel) as archive:
        for part in ("TRAIN", "TEST"):
            text = archive.read(f"aeon/datasets/data/{name}/{name}_{part}.ts").decode()
            lines = text.partition("@data")[2].split()
            rows += [line.rpartition(":")[0].split(",") for line in lines]
    return torch.tensor([[float(value) for value in row] for row in rows])[:, None]


def statistics(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the mean spectrum in decibels, the mean autocorrelation, and the size of steps."""
    centred, length = x - x.mean(-1, keepdim=True), x.shape[-1]
    power = torch.fft.rfft(centred, norm="ortho").abs()[..., 1:] ** 2
    products = torch.fft.irfft(torch.fft.rfft(centred, 2 * length).abs() ** 2)[..., : length // 2]
    correlation = (products / products[..., :1]).mean((0, 1))
    return 10 * power.mean((0, 1)).log10(), correlation, float((x.diff() ** 2).mean().sqrt())


def distances(x: Tensor, judge: Tensor) -> dict[str, float]:
    """Return the three numbers of series compared with those of the judge."""
    (spectrum, correlation, steps), (spectrum_0, correlation_0, steps_0) = map(
        statistics, (x, judge)
    )
    return {
        "spectrum_db": float(((spectrum - spectrum_0) ** 2).mean().sqrt()),
        "autocorrelation": float(((correlation - correlation_0) ** 2).mean().sqrt()),
        "steps": steps / steps_0,
    }


def training(x: Tensor, kind: str, steps: int) -> sf.Training:
    """Return a training of a network on series."""
    optim = sf.OptimConfig(steps=steps, batch_size=32)
    config = sf.TrainConfig(network={"kind": kind}, held_out=0.1, end="best", optim=optim)
    return sf.Training(sf.Data(x), config)


def steps_in(seconds: float, x: Tensor, kind: str) -> int:
    """Return the number of steps of a training that take so many seconds of the CPU."""
    steps = iter(training(x, kind, 10))
    next(steps)
    began = time.process_time()
    for _ in range(5):
        next(steps)
    return max(20, round(5 * seconds / (time.process_time() - began)))


def trained(own: Tensor, judge: Tensor, kind: str, seconds: float) -> dict[str, Any]:
    """Train a network, and return the numbers of its samples."""
    steps = steps_in(seconds, own, kind)
    fit = training(own, kind, steps)
    began = time.process_time()
    for _ in fit:
        pass
    used = time.process_time() - began
    judged = HeldOut(judge, None, torch.arange(len(judge)), fit.held_out.prepare, 0)
    return {
        **distances(fit.run.sample(256, nfe=20), judge),
        "error": float(judged.errors(fit.run.field).mean()),
        "steps_trained": steps,
        "cpu_seconds": used,
        "parameters": sum(p.numel() for p in fit.run.field.network.parameters()),
        "said": fit.summary,
    }


def main() -> None:
    """Train networks on sets, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.sets:
        x = load(arguments.wheel, name)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        judge, own = x[order[: len(x) // 4]], x[order[len(x) // 4 :]]
        add(name, "data", distances(own, judge))
        for kind in arguments.networks:
            add(name, kind, trained(own, judge, kind, arguments.seconds))


def add(name: str, kind: str, row: dict[str, Any]) -> None:
    """Print a row, and add it to the results."""
    numbers = [f"{key} {value:.4g}" for key, value in row.items() if key != "said"]
    print(f"{name}, {kind}: {', '.join(numbers)}", flush=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["machine"] = machine_facts()
    results[name] = results.get(name, {}) | {kind: row}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
