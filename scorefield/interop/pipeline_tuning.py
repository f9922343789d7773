"""Plans tuned to a pipeline of diffusers, and saved as its scheduler."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch

from scorefield._internal.atomic_files import publish
from scorefield._internal.errors import CheckpointError
from scorefield._internal.json_values import decode
from scorefield.field import digest
from scorefield.interop.pipeline_call import PipelineCall, Prompts, numbers
from scorefield.interop.pipeline_field import field
from scorefield.process import Process
from scorefield.sampling import Plan, plan_kinds
from scorefield.tuning.tried import Tried
from scorefield.tuning.tuner import Tuner, longest_below

_PURE = 1e4  # the noise level of a first call that takes noise alone for its state


class PipelineTuner:
    """Tunes plans to a pipeline of diffusers, for all of its prompts in turn.

    With a folder, each plan is saved as a scheduler in ``folder/nfe-8`` and so on, and an
    interrupted search resumes.

    Args:
        pipeline, prompts, batch_size, settings: those of `scorefield.interop.diffusers.field`.
        noises, seed: those of `scorefield.Tuner`.
        folder: for the schedulers, and for the searches in progress.

    Raises:
        UsageError, ValueError: as `scorefield.interop.diffusers.field` and `scorefield.Tuner`.
    """

    def __init__(
        self,
        pipeline: Any,
        prompts: Prompts = None,
        *,
        noises: int | None = None,
        seed: int = 0,
        batch_size: int = 8,
        folder: str | Path | None = None,
        **settings: Any,
    ) -> None:
        self.pipeline = pipeline
        self.field = field(pipeline, prompts, batch_size=batch_size, **settings)
        call = PipelineCall(pipeline, prompts, settings)
        self.tuner = Tuner(
            self.field,
            noises=noises,
            conditions={"prompt": torch.arange(len(call))},
            seed=seed,
            batch_size=batch_size,
            first=_first(self.field.process),
        )
        self.folder = None if folder is None else Path(folder)
        self.facts = {**self.tuner.facts, "prompts": digest(numbers(call.rows))}

    def path(self, nfe: int) -> Path | None:
        """Return the folder of the scheduler of ``nfe`` calls, whether it exists or not."""
        return None if self.folder is None else self.folder / f"nfe-{nfe}"

    def plan(self, nfe: int) -> Plan | None:
        """Return the plan of the folder's scheduler, if there is one.

        Raises:
            CheckpointError: it was tuned for another field, or is not a plan.
        """
        path = self.path(nfe)
        if path is None or not path.exists():
            return None
        from scorefield.interop.scheduler import SolverScheduler

        try:
            plan = scheduled_plan(SolverScheduler.from_pretrained(path))
            plan.check(self.field)
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{path}: {str(error).splitlines()[0]}") from None
        return plan

    def tune(
        self,
        nfe: int,
        *,
        tries: int | None = None,
        polish: int | None = None,
        shorter: Plan | None = None,
        progress: Callable[[float], None] = lambda error: None,
    ) -> Plan:
        """Fit the plan of ``nfe`` evaluations, and save it in the folder.

        Args:
            tries, polish, shorter, progress: those of `scorefield.Tuner.tune`.

        Raises:
            ValueError, NumericalError: as `scorefield.Tuner.tune`.
        """
        path, tried = self.path(nfe), None
        if path is not None:
            tried = Tried(path.with_name(f".{path.name}.tried"), {"nfe": nfe, **self.facts})
        try:
            plan = self.tuner.tune(
                nfe, tries=tries, polish=polish, shorter=shorter, tried=tried, progress=progress
            )
        finally:
            free = getattr(self.pipeline, "maybe_free_model_hooks", None)
            if free is not None:
                free()  # moves offloaded networks back
        if path is not None and tried is not None:
            self._save(plan, path)
            tried.remove()
        return plan

    def _save(self, plan: Plan, path: Path) -> None:
        """Save a plan as a scheduler, as a whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as name:
            whole = Path(name) / path.name
            scheduler_of(self.pipeline, plan).save_pretrained(whole)
            if path.is_dir():  # its other files stay
                for file in whole.iterdir():
                    publish(file, path / file.name)
            else:
                publish(whole, path)


def _first(process: Process) -> float | None:
    """Return the noise level of a plan's first call, or None if it may be any.

    Pipelines start with noise of the last time. In a flow that is not the noise of other times.
    """
    times = torch.tensor([(process.t_min + process.t_max) / 2, process.t_max], dtype=torch.float64)
    middle, last = process.prior(t=times).std.tolist()
    pure = float(process.alpha(times[1])) == 0
    return _PURE if pure and not math.isclose(middle, last, rel_tol=1e-3) else None


def scheduler_of(pipeline: Any, plan: Plan) -> Any:
    """Return the scheduler of a pipeline with a plan."""
    from scorefield.interop.scheduler import SolverScheduler

    return SolverScheduler.from_config(pipeline.scheduler.config, solver=plan)


def scheduled_plan(scheduler: Any) -> Plan:
    """Return the plan of a scheduler.

    Raises:
        ValueError: it has none.
    """
    stored = getattr(scheduler, "config", {}).get("solver")
    plan = decode(dict(stored), plan_kinds()) if isinstance(stored, Mapping) else None
    if not isinstance(plan, Plan):
        raise ValueError(f"scheduler={type(scheduler).__name__}: has no plan; give one.")
    return plan


@overload
def tune(pipeline: Any, prompts: Prompts = ..., nfe: int = ..., **options: Any) -> Plan: ...


@overload
def tune(pipeline: Any, prompts: Prompts, nfe: Sequence[int], **options: Any) -> list[Plan]: ...


def tune(
    pipeline: Any,
    prompts: Prompts = None,
    nfe: int | Sequence[int] = 8,
    *,
    folder: str | Path | None = None,
    noises: int | None = None,
    tries: int | None = None,
    polish: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    report: Callable[[str], None] = print,
    **settings: Any,
) -> Plan | list[Plan]:
    """Fit a plan of ``nfe`` evaluations to a pipeline of diffusers, or one for each of several.

    The pipeline does not change. To use a plan, set ``pipeline.scheduler =
    SolverScheduler.from_config(pipeline.scheduler.config, solver=plan)``. A plan serves every
    prompt, and is best for prompts like these.

    Args:
        pipeline, prompts, batch_size, settings: those of `field`.
        nfe: the number of steps of the pipeline.
        folder: save each plan there, as a scheduler in ``folder/nfe-8`` and so on. An interrupted
            search resumes, and plans that exist are returned.
        noises, seed: those of `scorefield.Tuner`.
        tries, polish: those of `scorefield.Tuner.tune`.
        report: called with the cost of each plan before its search starts.

    Raises:
        UsageError, ValueError, NumericalError: as `field`, `scorefield.Tuner` and its ``tune``.
        CheckpointError: a plan in the folder that was tuned for another field.
    """
    tuner = PipelineTuner(
        pipeline,
        prompts,
        noises=noises,
        seed=seed,
        batch_size=batch_size,
        folder=folder,
        **settings,
    )
    every = [nfe] if isinstance(nfe, int) else list(nfe)
    stored = {calls: tuner.plan(calls) for calls in every}
    plans = {calls: plan for calls, plan in stored.items() if plan is not None}
    for calls in sorted(set(every) - set(plans)):
        settings = {"tries": tries, "polish": polish, "shorter": longest_below(plans, calls)}
        report(f"{calls} calls: {tuner.tuner.cost(calls, **settings)}")
        plans[calls] = tuner.tune(calls, **settings)
    return plans[nfe] if isinstance(nfe, int) else [plans[calls] for calls in every]


def check_plan(
    pipeline: Any, prompts: Prompts = None, plan: Plan | None = None, **settings: Any
) -> None:
    """Reject a plan that was not tuned to a pipeline with these settings.

    Args:
        pipeline, prompts, settings: those of `field`; any prompts will do.
        plan: by default that of the pipeline's scheduler.

    Raises:
        ValueError: the pipeline has other weights or settings, such as another guidance; with the
            digests of both.
        UsageError: as `field`.
    """
    plan = scheduled_plan(pipeline.scheduler) if plan is None else plan
    plan.check(field(pipeline, prompts, **settings))
