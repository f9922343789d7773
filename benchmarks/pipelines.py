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

Every scheduler of diffusers with its settings runs in the pipeline's own loop, from noises and for
prompts that had no part in the tuning. The error is the distance of the latents to the end of the
exact path from the same noise, divided by the root of the dimension. The best scheduler is chosen
with knowledge of the answer.

Writes results/pipelines.json beside this file, and exits with 1 if a plan of 6 or 8 calls leaves
more than half of the best scheduler's error.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from machine import facts
from torch import Tensor

import scorefield as sf
from scorefield.tuning.noises import Noises, distances
from scorefield.tuning.teacher import ends

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import tiny_pipelines  # noqa: E402

PIPELINES = ("sd", "sdxl", "sd3", "flux", "pixart", "dit", "ltx", "stable_audio")
TEXTS = ["a fox", "two dogs", "zebra!", "snow", "the old sea", "42"]
CLASSES = [1, 7, 30, 200, 555, 900]
TUNED, HELD_OUT = [0, 1, 2, 3], [4, 5]  # of the prompts
CALLS = (6, 8)
NOISES, TRIES, COUNT, BATCH = 16, 40, 32, 32
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
        process, place = field.process, torch.arange(BATCH) % (len(self.prompts) + 1)
        centres = torch.randn(len(self.prompts) + 1, MODES, *field.shape)
        times = torch.rand(STEPS) * (process.t_max - process.t_min) + process.t_min
        optimizer = torch.optim.Adam(self.network.parameters(), 3e-3)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        losses = []
        for at, alpha, sigma in zip(
            field.instants(times), *process.coefficients(times), strict=True
        ):
            mode = torch.randint(MODES, (BATCH,))
            of = torch.where(place < len(self.prompts), place, torch.randint(6, (BATCH,)))
            x0 = centres[of, mode] + SPREAD * torch.randn(BATCH, *field.shape)
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

    def run(self, scheduler: Any, steps: int, z: Tensor, prompts: list[Any]) -> tuple[Tensor, int]:
        """Return the latents of the pipeline's own loop, and the calls of the network."""
        last: list[Tensor] = []
        step, calls = scheduler.step, [0]

        def record(*args: Any, **kwargs: Any) -> Any:
            last[:] = [(result := step(*args, **kwargs))[0]]
            return result

        def count(*_: Any) -> None:
            calls[0] += 1

        scheduler.step = record
        owner, self.pipeline.scheduler = self.pipeline.scheduler, scheduler
        handle = self.network.register_forward_hook(count)
        options = {"num_inference_steps": steps, **self.call}
        if self.key == "class_labels":
            module = sys.modules[type(self.pipeline).__module__]
            draw, module.randn_tensor = module.randn_tensor, lambda **_: z
        else:
            options |= {"latents": z, "output_type": "latent"}
        if "negative_prompt" in options:
            options["negative_prompt"] = [options["negative_prompt"]] * len(z)
        try:
            self.pipeline(**{self.key: prompts}, **options)
        finally:
            handle.remove()
            self.pipeline.scheduler = owner
            if self.key == "class_labels":
                module.randn_tensor = draw
        return last[0][: len(z)], calls[0]


def tables() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the name, the class and the settings of each scheduler on a table."""
    spaced = [{"timestep_spacing": kind} for kind in ("leading", "linspace", "trailing")]
    sigmas = [{f"use_{kind}_sigmas": True} for kind in ("karras", "exponential", "beta")]
    for grid in spaced:
        yield "DDIM", "DDIMScheduler", grid | {"clip_sample": False}
        yield "PNDM", "PNDMScheduler", grid | {"skip_prk_steps": True}
    for grid in [*spaced, *sigmas]:
        yield "Euler", "EulerDiscreteScheduler", grid
        yield "Heun", "HeunDiscreteScheduler", grid
        yield "UniPC 2", "UniPCMultistepScheduler", grid
        yield "UniPC 3", "UniPCMultistepScheduler", grid | {"solver_order": 3}
        yield "DEIS 2", "DEISMultistepScheduler", grid
        yield "DEIS 3", "DEISMultistepScheduler", grid | {"solver_order": 3}
    for grid in [*spaced, *sigmas]:
        for order in (2, 3):
            more = grid | {"solver_order": order}
            yield f"DPM++ {order}M", "DPMSolverMultistepScheduler", more
            yield f"DPM++ {order}S", "DPMSolverSinglestepScheduler", more


def flows() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the name, the class and the settings of each scheduler on a flow."""
    for shift in (None, 0.5, 1.0, 2.0, 3.0, 5.0):
        fixed = {} if shift is None else {"use_dynamic_shifting": False, "shift": shift}
        yield "Euler", "FlowMatchEulerDiscreteScheduler", fixed
        flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        if shift is None:
            for kind in ("karras", "exponential", "beta"):
                yield "Euler", "FlowMatchEulerDiscreteScheduler", {f"use_{kind}_sigmas": True}
        else:
            yield "Heun", "FlowMatchHeunDiscreteScheduler", {"shift": shift}
            flow |= {"use_dynamic_shifting": False, "flow_shift": shift}
        for order in (2, 3):
            more = flow | {"solver_order": order}
            yield f"DPM++ {order}M", "DPMSolverMultistepScheduler", more
            yield f"DPM++ {order}S", "DPMSolverSinglestepScheduler", more
            yield f"UniPC {order}", "UniPCMultistepScheduler", more
            yield f"DEIS {order}", "DEISMultistepScheduler", more


def peers(case: Case, z: Tensor, prompts: list[Any], end: Tensor) -> dict[int, dict[str, float]]:
    """Return the mean error of each scheduler that runs, by calls."""
    config = dict(case.pipeline.scheduler.config)
    flow = type(case.pipeline.scheduler).__name__.startswith("FlowMatch")
    errors: dict[int, dict[str, float]] = {calls: {} for calls in CALLS}
    for name, kind, settings in flows() if flow else tables():
        label = f"{name} {' '.join(f'{k}={v}' for k, v in settings.items())}".strip()
        for calls in CALLS:
            # a scheduler of several calls a step gets as many steps as the calls allow
            for steps in range(calls, 0, -1):
                try:
                    made = getattr(diffusers, kind).from_config(config, **settings)
                    x, count = case.run(made, steps, z, prompts)
                except Exception:  # many do not run in every pipeline
                    break
                if count <= calls:
                    errors[calls][label] = float(distances(x.flatten(1).double(), end).mean())
                    break
    return errors


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

    prompts = [case.prompts[HELD_OUT[k % 2]] for k in range(COUNT)]
    field = case.field([case.prompts[k] for k in HELD_OUT])
    z = torch.randn(COUNT, *field.shape, generator=torch.Generator().manual_seed(99))
    where = {"prompt": torch.arange(COUNT) % 2}
    noises = Noises(field, z, where, BATCH)
    end, coarse = ends(noises, 200), ends(noises, 100)
    with torch.no_grad():
        errors = peers(case, z, prompts, end)
    result: dict[str, Any] = {
        "pipeline": type(case.pipeline).__name__,
        "shape": list(field.shape),
        "loss": loss,
        "train_seconds": trained,
        "tune_seconds": seconds,
        "size": float(end.square().mean().sqrt()),
        "reference": float(distances(coarse, end).mean()),
    }
    for calls, plan in zip(CALLS, plans, strict=True):
        config = case.pipeline.scheduler.config
        made = sf.interop.scheduler.SolverScheduler.from_config(config, solver=plan)
        x, count = case.run(made, calls, z, prompts)
        assert count == calls
        error = float(distances(x.flatten(1).double(), end).mean())
        best = sorted((value, label) for label, value in errors[calls].items())
        result[str(calls)] = {
            "plan": error,
            "said": plan.tuning.error,
            "default": plan.tuning.default,
            "best": best[:3],
            "schedulers": len(best),
            "ratio": error / best[0][0],
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
            f"{name:13s} {row['shape']!s:14s} size {row['size']:.2f}, reference "
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
