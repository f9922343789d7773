r"""Plans and the schedulers of diffusers, measured on the network of a pipeline.

All start from the same noises ``z``. With the timesteps ``t`` that the pipeline sets, in its loop::

    x = z * scheduler.init_noise_sigma
    x = scheduler.step(network(scheduler.scale_model_input(x, t), t), t, x)             (1)

The error is the distance of the last ``x`` from the end of the exact path from the same noise.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers.utils import logging
from torch import Tensor

from scorefield._internal.errors import UsageError
from scorefield.field import digest
from scorefield.interop.pipeline_call import Encoder, PipelineCall, Prompts
from scorefield.interop.pipeline_field import PipelineNetwork, field
from scorefield.interop.pipeline_schedulers import usual_schedulers
from scorefield.interop.pipeline_tuning import scheduler_of
from scorefield.interop.probe import borrowed, ending
from scorefield.noise import SAMPLING
from scorefield.process import EDM, Flow, wide
from scorefield.sampling import Plan, prepare
from scorefield.tuning.frontier import Frontier, Point
from scorefield.tuning.frontier.measure import check_sizes, machine, named_plans, path_ends
from scorefield.tuning.noises import Noises, draw, mean_distance

NamedScheduler = tuple[str, Any]


def compare(
    pipeline: Any,
    prompts: Prompts = None,
    nfe: int | Sequence[int] = (6, 8),
    *,
    plans: Mapping[str, Plan | Sequence[Plan]] | None = None,
    schedulers: Mapping[str, Any] | None = None,
    best: int | None = 5,
    n: int = 32,
    seed: int = 0,
    level: float = 0.95,
    batch_size: int = 8,
    progress: Callable[[Sequence[NamedScheduler]], Iterable[NamedScheduler]] = iter,
    **settings: Any,
) -> Frontier:
    """Measure plans and the schedulers of diffusers by their error to a pipeline's exact paths.

    The points of the result are sorted by calls and error; those of schedulers have no plan. The
    pipeline sets their timesteps, so dynamic shifts are its own.

    Args:
        pipeline, prompts, batch_size, settings: those of `field`.
        nfe: network calls, one number or several. A scheduler makes as many steps as they allow.
        plans: by name; each a `Plan` of the pipeline's field or several, which form a line.
        schedulers: objects of diffusers, by name; by default DDIM, PNDM, Euler, Heun, UniPC, DEIS
            and DPM-Solver++ with their usual grids, as far as they run in the pipeline.
        best: keep the default schedulers of the smallest errors, as many for each of ``nfe``; None
            for all.
        n, seed, level: those of `scorefield.frontier`. Two samples after another have one prompt.
        progress: takes the schedulers with their names and yields them, as a progress bar does.

    Raises:
        UsageError: as `field`; a network of EDM; one of ``schedulers`` that does not run in the
            pipeline.
        ValueError: as `scorefield.frontier`; no calls; a plan that adds noise.
    """
    budgets = [nfe] if isinstance(nfe, int) else list(nfe)
    if not budgets or min(budgets) < 1 or (best is not None and best < 1):
        raise ValueError(f"nfe={nfe}, best={best}: give numbers of calls, and at least 1 of each.")
    source = field(pipeline, prompts, batch_size=batch_size, **settings)
    check_sizes(source, n, batch_size, level)
    if isinstance(source.process, EDM):
        raise UsageError(f"{type(pipeline).__name__} has a network of EDM, which is not supported.")
    tuned = named_plans(plans) if plans else []
    for name, plan in tuned:
        prepare(source, plan)
        if plan.solver.weak_order is not None:
            raise ValueError(f"plans: {name} adds noise, and does not follow the exact paths.")
    call = PipelineCall(pipeline, prompts, settings)
    conditions = {"prompt": torch.arange(len(call))}
    noises = draw(source, n, conditions, seed, batch_size, SAMPLING)
    ends, teacher = path_ends(noises)
    loop = _Loop(pipeline, call, noises, ends, level)
    with _quiet():
        points = [
            loop.point(name, scheduler_of(pipeline, plan), plan.nfe or 1, plan)
            for name, plan in tuned
        ]
        if schedulers is None:
            flow = isinstance(source.process, Flow)
            usual = usual_schedulers(pipeline.scheduler.config, flow)
            points += _best(loop, progress(list(usual.items())), budgets, best)
        else:
            every = progress(list(schedulers.items()))
            points += [loop.point(*pair, calls) for pair in every for calls in budgets]
    return Frontier(
        field=digest(source),
        process=digest(source.process),
        n=n,
        m=0,
        dim=noises.dim,
        level=level,
        seed=seed,
        batch_size=batch_size,
        machine=machine(noises.z.device),
        teacher=teacher,
        floors={},
        points=tuple(sorted(points, key=lambda point: (point.nfe, _error(point)))),
    )


class _Unfit(UsageError):
    """A scheduler that does not run in a pipeline."""


@dataclass(frozen=True)
class _Loop:
    """The loop (1) of a pipeline, from the same noises for every scheduler.

    Attributes:
        ends: of the exact paths, ``(n, d)``.
    """

    pipeline: Any
    call: PipelineCall
    noises: Noises
    ends: Tensor
    level: float

    @torch.no_grad()
    def point(self, name: str, scheduler: Any, nfe: int, plan: Plan | None = None) -> Point:
        """Measure a scheduler, in as many steps as fit ``nfe`` calls.

        Raises:
            _Unfit: it does not run in the pipeline, or not to finite samples.
        """
        scheduler = copy.deepcopy(scheduler)
        with _reasons(name, self.call.kind):
            self._set_timesteps(scheduler, nfe, own=plan is not None)
        began = time.perf_counter()
        x = self._samples(name, scheduler)
        milliseconds = 1e3 * (time.perf_counter() - began) / len(x)
        if not bool(x.isfinite().all()):
            raise _Unfit(f"schedulers: {name} makes samples that are not finite.")
        error = mean_distance(wide(x).flatten(1), self.ends, self.level)
        return Point(name, plan, len(scheduler.timesteps), milliseconds, error, {}, {})

    def _set_timesteps(self, scheduler: Any, nfe: int, own: bool) -> None:
        """Let the pipeline set the timesteps: the scheduler's own, or at most ``nfe``."""
        parts = {"scheduler": scheduler}
        if hasattr(self.pipeline, "encode_prompt"):
            parts["encode_prompt"] = self.encoder
        for steps in range(nfe, 0, -1):
            with ending(scheduler), borrowed(self.pipeline, **parts):
                self.call.function(self.pipeline, **self.call.arguments([0], steps))
            if own or len(scheduler.timesteps) <= nfe:
                return
        raise ValueError(f"needs more than {nfe} calls")

    def _samples(self, name: str, scheduler: Any) -> Tensor:
        modules, prompt = self.noises.field.modules(), self.noises.conditions["prompt"]
        network = next(part for part in modules if isinstance(part, PipelineNetwork))
        scaled = getattr(scheduler, "scale_model_input", lambda x, t: x)  # flows have none
        x: Tensor = self.noises.z * getattr(scheduler, "init_noise_sigma", 1.0)
        for t in scheduler.timesteps:
            with _reasons(name, self.call.kind):
                entering = scaled(x, t)
            output = network(entering, t.expand(len(x)), prompt=prompt)
            with _reasons(name, self.call.kind):
                x = scheduler.step(output, t, x, return_dict=False)[0]
        return x

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the pipeline, for its first prompt."""
        return Encoder(self.pipeline)


def _best(
    loop: _Loop, usual: Iterable[NamedScheduler], budgets: Sequence[int], best: int | None
) -> list[Point]:
    """Measure schedulers as far as they run, and return the best for each number of calls."""
    by_calls: dict[int, list[Point]] = {calls: [] for calls in budgets}
    for name, scheduler in usual:
        for calls, points in by_calls.items():
            with suppress(_Unfit):
                points.append(loop.point(name, scheduler, calls))
    return [point for points in by_calls.values() for point in sorted(points, key=_error)[:best]]


def _error(point: Point) -> float:
    return math.inf if point.error is None else point.error.value


@contextmanager
def _reasons(name: str, kind: str) -> Iterator[None]:
    """Give the reason of a scheduler that does not run, which may raise anything."""
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise _Unfit(
            f"schedulers: {name} does not run in {kind}: {type(error).__name__}: {reason}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what diffusers and our schedulers say about settings of others."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
