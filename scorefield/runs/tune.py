"""Plans tuned to a run, kept in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scorefield.data.config import EXAMPLES
from scorefield.data.rows import digest as digest_rows
from scorefield.sampling import Plan
from scorefield.tuning.tuner import Tuner

if TYPE_CHECKING:
    from scorefield.runs.run import Run


class RunTuner:
    """Tunes plans to a run, for all of its classes in turn.

    In a run folder each plan is written as soon as it is fitted, and an interrupted search resumes.
    The run itself keeps the plans of a run with conditions, since the folder's serve all.

    Args:
        run: the run, with its guidance.
        conditions, noises, seed, batch_size: those of `scorefield.Tuner`.

    Raises:
        UsageError, ValueError: as `scorefield.Tuner`.
    """

    def __init__(
        self,
        run: Run,
        *,
        conditions: Mapping[str, Tensor] | None = None,
        noises: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> None:
        classes, train = run.config.data.classes, run.config.train
        # -1 is the absence of a class, if the network learned it and guidance does not use it
        first = -1 if train.dropout and run.guidance == 1 else 0
        if conditions is None:
            conditions = {k: v[:: len(v) // EXAMPLES] for k, v in run.examples.items()}
            if classes is not None:
                conditions = {classes.key: torch.arange(first, classes.count)}
        self.run, field = run, run.conditional
        self.tuner = Tuner(
            field, noises=noises, conditions=conditions, seed=seed, batch_size=batch_size
        )
        self.facts = {
            **self.tuner.facts,
            "bound": run.bound,
            "conditions": {k: digest_rows(v) for k, v in conditions.items()},
        }

    def tune(
        self,
        nfe: int,
        *,
        rounds: int | None = None,
        tries: int | None = None,
        polish: int | None = None,
        shorter: Plan | None = None,
        progress: Callable[[float], None] = lambda error: None,
    ) -> Plan:
        """Fit the plan of ``nfe`` network calls, and store it with the run.

        A plan of several calls at once is stored in a run folder alone.

        Args:
            rounds, tries, polish, shorter, progress: those of `scorefield.Tuner.tune`.

        Raises:
            ValueError, NumericalError: as `scorefield.Tuner.tune`.
            StorageError: no room on the disk.
        """
        folder = None if self.run.bound else self.run.folder
        guidance = self.run.guidance
        tried = None if folder is None else folder.tried(nfe, guidance, self.facts, rounds)
        plan = self.tuner.tune(
            nfe,
            rounds=rounds,
            tries=tries,
            polish=polish,
            shorter=shorter,
            tried=tried,
            progress=progress,
        )
        if folder is not None and tried is not None:
            folder.save_plan(plan, guidance, nfe=nfe, rounds=rounds)
            tried.remove()
        elif rounds in (None, nfe):
            self.run.tuned[guidance, nfe, self.run.bound] = plan
        return plan
