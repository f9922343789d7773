"""Tuned plans in eight pipelines of diffusers, against the best scheduler in hindsight.

    python benchmarks/pipelines.py                all pipelines, about an hour on two cores
    python benchmarks/pipelines.py sd flux        some of them
    python benchmarks/pipelines.py --nets DIR     keep the trained networks there

The pipelines are those of ``tests/tiny_pipelines.py``: real pipelines, with tokenizers, text
encoders and guidance, and with tiny networks. Random networks have no meaning, so each is first
trained for some minutes, through its pipeline, on latents of three patterns for each prompt. These
are not real networks: they show that plans work in each kind of pipeline, and not how much a plan
gains on a released one. Those of DiT and PixArt predict the data, because they are too narrow for
the noise.

`scorefield.interop.diffusers.compare` measures the plans and every scheduler of diffusers, from
noises and for prompts that had no part in the tuning. The best scheduler is chosen with knowledge
of the answer.

Writes results/pipelines.json beside this file, and exits with 1 if a plan of 6 or 8 calls leaves
more than half of the best scheduler's error.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
from machine import facts

import scorefield as sf

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import tiny_pipelines  # noqa: E402

PIPELINES = ("sd", "sdxl", "sd3", "flux", "pixart", "dit", "ltx", "stable_audio")
TEXTS = ["a fox", "two dogs", "zebra!", "snow", "the old sea", "42"]
CLASSES = [1, 7, 30, 200, 555, 900]
TUNED, HELD_OUT = [0, 1, 2, 3], [4, 5]  # of the prompts
CALLS = (6, 8)
NOISES, TRIES, COUNT, TRAINED, BATCH = 64, 40, 32, 32, 128
STEPS = 1000  # of the training
GUIDANCE = 2.0  # so that the guided fields of networks this small still end near their data
MODES, SPREAD = 3, 0.25  # of the latents for each prompt


class Case:
    """A pipeline with its prompts, and the arguments of a call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pipeline, call = tiny_pipelines.build(name)
        self.network = tiny_pipelines.build(name).network
        self.network = getattr(self.pipeline, "unet", None) or self.pipeline.transformer
        if name in ("dit", "pixart"):  # too narrow for the noise, which has all dimensions
            config = self.pipeline.scheduler.config
            owner = type(self.pipeline.scheduler)
            self.pipeline.scheduler = owner.from_config(config, prediction_type="sample")
        self.key = "class_labels" if "class_labels" in call else "prompt"
        self.prompts = CLASSES if self.key == "class_labels" else TEXTS
        self.empty = 1000 if self.key == "class_labels" else ""
        self.call = {k: v for k, v in call.items() if k not in (self.key, "output_type")}
        if self.call["guidance_scale"] == 3.0 and name != "flux":
            self.call["guidance_scale"] = GUIDANCE
        if name == "stable_audio":
            self.call["negative_prompt"] = ""

    def field(self, prompts: list[Any], **options: Any) -> sf.Denoiser:
        """Return the field of some prompts."""
        return sf.interop.diffusers.field(
            self.pipeline, prompts, batch_size=BATCH, **self.call | options
        )

    def train(self, path: Path | None) -> float:
        """Train the network through its pipeline, and return the last mean of the loss."""
        if path is not None and path.exists():
            values = torch.load(path, weights_only=True)
            self.network.load_state_dict(values["weights"])
            return values["loss"]
        torch.manual_seed(0)
        plain = {} if self.name == "flux" else {"guidance_scale": 1.0}  # Flux embeds the scale
        plain |= {"negative_prompt": None} if self.name == "stable_audio" else {}
        field = self.field([*self.prompts, self.empty], **plain)
        process, place = field.process, torch.arange(TRAINED) % (len(self.prompts) + 1)
        centres = torch.randn(len(self.prompts) + 1, MODES, *field.shape)
        times = torch.rand(STEPS) * (process.t_max - process.t_min) + process.t_min
        optimizer = torch.optim.Adam(self.network.parameters(), 3e-3)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        losses = []
        for at, alpha, sigma in zip(
            field.instants(times), *process.coefficients(times), strict=True
        ):
            mode = torch.randint(MODES, (TRAINED,))
            of = torch.where(place < len(self.prompts), place, torch.randint(6, (TRAINED,)))
            x0 = centres[of, mode] + SPREAD * torch.randn(TRAINED, *field.shape)
            eps = torch.randn_like(x0)
            x = alpha * x0 + sigma * eps
            target = field.parametrization.target(alpha, sigma, x0, eps)
            loss = (field(x, at, prompt=place).basis[1] - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()
            rate.step()
            losses.append(float(loss))
        mean = sum(losses[-300:]) / 300
        if path is not None:
            torch.save({"weights": self.network.state_dict(), "loss": mean}, path)
        return mean


def solve(name: str, nets: Path | None) -> dict[str, Any]:
    """Return everything measured on one pipeline."""
    case = Case(name)
    began = time.monotonic()
    loss = case.train(None if nets is None else nets / f"{name}.pt")
    trained, began = time.monotonic() - began, time.monotonic()
    plans = sf.interop.diffusers.tune(
        case.pipeline,
        [case.prompts[k] for k in TUNED],
        CALLS,
        noises=NOISES,
        tries=TRIES,
        batch_size=BATCH,
        **case.call,
    )
    seconds = time.monotonic() - began

    table = sf.interop.diffusers.compare(
        case.pipeline,
        [case.prompts[k] for k in HELD_OUT],
        CALLS,
        plans={"tuned": plans},
        best=None,
        n=COUNT,
        seed=99,
        batch_size=BATCH,
        **case.call,
    )
    result: dict[str, Any] = {
        "pipeline": type(case.pipeline).__name__,
        "shape": list(case.field(case.prompts).shape),
        "loss": loss,
        "train_seconds": trained,
        "tune_seconds": seconds,
        "reference": table.teacher,
    }
    for calls, plan in zip(CALLS, plans, strict=True):
        most = 0 if calls == CALLS[0] else CALLS[0]  # Heun has an odd number of calls
        near = [p for p in table.points if p.error and most < p.nfe <= calls]
        best = sorted((p.error.value, p.name) for p in near if p.plan is None)
        (own,) = (p.error.value for p in near if p.plan is not None)
        result[str(calls)] = {
            "plan": own,
            "said": plan.tuning.error,
            "default": plan.tuning.default,
            "best": best[:3],
            "schedulers": len(best),
            "ratio": own / best[0][0],
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--nets", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    path = HERE / "results" / "pipelines.json"
    results = json.loads(path.read_text())["pipelines"] if path.exists() else {}
    missed = []
    for name in arguments.names or PIPELINES:
        results[name] = row = solve(name, arguments.nets)
        path.write_text(json.dumps({"machine": facts(), "pipelines": results}, indent=1) + "\n")
        print(
            f"{name:13s} {row['shape']!s:14s} reference "
            f"{row['reference']:.1g}, loss {row['loss']:.3f}, trained {row['train_seconds']:.0f}, "
            f"tuned {row['tune_seconds']:.0f} s"
        )
        for calls in CALLS:
            at = row[str(calls)]
            error, label = at["best"][0]
            print(
                f"  {calls} calls: plan {at['plan']:.4f}, best of {at['schedulers']} {error:.4f} "
                f"({label}), ratio {at['ratio']:.2f}",
                flush=True,
            )
            missed += [f"{name} at {calls}"] if at["ratio"] > 0.5 else []
    print("missed:", ", ".join(missed) or "none")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
