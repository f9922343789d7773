"""The training loop: data order and noise are functions of (seed, epoch, item).

Also the schedules of the learning rate and of the decay of weight averages.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scorefield._internal.errors import NumericalError, UsageError
from scorefield.field import Denoiser
from scorefield.noise import PAIRS, Noise
from scorefield.training import state as states
from scorefield.training.ahead import Ahead
from scorefield.training.batches import batch, draw
from scorefield.training.couplings import Coupling, groups_of
from scorefield.training.course import steps_for
from scorefield.training.objective import Objective
from scorefield.training.steps import Drawn, Progress, QueuedStep, Tried
from scorefield.training.workers import SingleWorker, Workers

if TYPE_CHECKING:
    from scorefield.data.rows import Rows
    from scorefield.training.config import OptimConfig


def rate(step: int, steps: int, warmup: int) -> float:
    """Return the learning rate at a step, relative to its peak: warm-up, then half a cosine."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


@torch.no_grad()
def average(model: states.Average, network: nn.Module, decay: float) -> None:
    """Update averaged weights, with a decay that starts low, to forget early weights soon."""
    old, new = ([p.detach() for p in part.parameters()] for part in (model.module, network))
    n = int(model.n_averaged)  # on the CPU
    if n:
        torch._foreach_lerp_(old, new, 1 - min(decay, (1 + n) / (10 + n)))
        old, new = [], []
    old += [buffer.detach() for buffer in model.module.buffers()]
    new += [buffer.detach() for buffer in network.buffers()]
    for ours, theirs in zip(old, new, strict=True):
        ours.copy_(theirs)
    model.n_averaged += 1


Prepare = Callable[[Tensor, Noise], tuple[Tensor, Noise]]

_AUTOCAST = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_SINGLE = SingleWorker()


def fit(
    denoiser: Denoiser,
    objective: Objective,
    x: Rows,
    conditions: Mapping[str, Tensor] | None = None,
    *,
    optim: OptimConfig | None = None,
    dropout: float = 0.1,
    prepare: Prepare | None = None,
    seed: int = 0,
    among: Tensor | None = None,
    workers: Workers = _SINGLE,
    coupling: Coupling | None = None,
) -> Fit:
    """Train a denoiser in place: iterate over the result to take the steps.

    After the last step the network holds the exponential moving average of its weights.

    Args:
        x: data ``(N, ...)``: a tensor, or samples that are read by index.
        conditions: of the data, a row for each sample, by the names of the network's arguments;
            hidden from the network with probability ``dropout``, as -1 or NaN.
        prepare: a function from a batch of ``x`` and its noise to the field's input and the noise
            that is left; the default passes both on.
        among: the numbers of the samples to learn from, int64; all by default.
        workers: processes that train together, each with its share of every batch.
        coupling: of data and noise; independent by default.

    Raises:
        UsageError: a batch too small to be shared; minutes instead of steps.
    """
    if optim is None:
        from scorefield.training.config import OptimConfig

        optim = OptimConfig()
    among = torch.arange(len(x)) if among is None else among
    return Fit(
        denoiser,
        objective,
        x,
        conditions or {},
        optim,
        dropout,
        prepare,
        seed,
        among,
        workers,
        coupling,
    )


class Fit:
    """A fit in progress: an iterator over its steps, which raises before it spoils the weights.

    The next step is a function of `state` and of the arguments alone. A device other than the CPU
    is not waited for in a step: its loss is checked, and its weights join the averages, when the
    gradient of the next step is queued or when anything of this is read. The device itself leaves
    the weights as they are where a number is not finite.

    Attributes:
        step, steps: the number of steps so far, and in all.
        losses: of the last hundred steps.
        ahead: whether the next step is queued before the loss of a step is read.
        stop: the step to stop early at, or None.
        diverged: whether a loss or gradient was not finite.
        chosen: the averages that the fit ends with, if not those of the last step.

    Raises:
        NumericalError: a loss or gradient that is not finite, before the weights are touched.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        objective: Objective,
        x: Rows,
        conditions: Mapping[str, Tensor],
        optim: OptimConfig,
        dropout: float,
        prepare: Prepare | None,
        seed: int,
        among: Tensor,
        workers: Workers,
        coupling: Coupling | None = None,
    ) -> None:
        if optim.minutes:
            raise UsageError("optim.minutes is for `train`; set optim.steps for `fit`.")
        if optim.batch_size < workers.size * optim.accumulate:
            raise UsageError(
                f"optim.batch_size={optim.batch_size}: {workers.size} process(es) with "
                f"optim.accumulate={optim.accumulate} need at least "
                f"{workers.size * optim.accumulate} samples."
            )
        self.denoiser, self.objective = denoiser, objective
        self.x, self.conditions = Ahead(x), conditions
        self.optim, self.dropout, self.prepare, self.seed = optim, dropout, prepare, seed
        self.among, self.workers, self.step = among, workers, 0
        self.coupling = coupling
        self._whole: tuple[int, Drawn] | None = None  # the last batch of pairs, and its step
        self.steps = optim.steps or steps_for(len(among), x.shape[1:], optim.batch_size)
        self.stop: int | None = None
        self.chosen: list[dict[str, Tensor]] = []
        self.network = workers.own(denoiser.network)
        self.device = next(self.network.parameters()).device
        self._averages = [states.Average(workers.copy(denoiser.network)) for _ in optim.ema]
        self._averaged = denoiser.around(self._averages[0].module.eval())
        self.losses: deque[float] = deque(maxlen=100)
        self.ahead, self.diverged = self.device.type != "cpu", False
        self._queued: QueuedStep | None = None  # the last step, until `settle`
        self.joined = workers.join(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, fused=True
        )
        half = optim.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)

    @property
    def last(self) -> int:
        """The step that the fit ends with."""
        return self.steps if self.stop is None else self.stop

    @cached_property
    def learner(self) -> Denoiser:
        """The denoiser as it is called in training."""
        if not self.optim.compile:
            return self.denoiser.around(self.joined)
        compiled: Any = torch.compile(self.joined)
        return self.denoiser.around(compiled)

    def __iter__(self) -> Iterator[Progress]:
        return self

    def __next__(self) -> Progress:
        if self.step >= self.last:
            self.finish()
            raise StopIteration
        if not self.network.training:
            self.network.train()
        self.optimizer.zero_grad()
        pieces = self.optim.accumulate
        tried = []
        for piece in range(pieces):
            with self.workers.hold(self.joined) if piece < pieces - 1 else nullcontext():
                tried.append(self._try(piece))
        total = self.workers.total(torch.cat([piece.losses for piece in tried]).sum())
        self.settle()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.optim.clip)
        numbers = torch.stack([total / self.optim.batch_size, self.workers.whole(norm).to(total)])
        queued = self._queued = QueuedStep(tried, numbers)
        lr = self.optim.lr * rate(self.step, self.steps, self.optim.warmup)
        self._move(numbers, lr)
        self.step += 1
        if not self.ahead:
            self.settle()
        return Progress(self.step, lr, partial(self._read, queued))

    def _read(self, queued: QueuedStep) -> tuple[float, float]:
        if queued is self._queued:
            self.settle()
        return queued.numbers

    def settle(self) -> None:
        """Wait for the last step, check its loss, and average its weights.

        Raises:
            NumericalError: the loss or the gradient is not finite; the step is undone.
        """
        queued, self._queued = self._queued, None
        if queued is None:
            return
        loss, norm = queued.numbers
        self._check(loss, norm, queued.tried)
        queued.tried = ()
        self.losses.append(loss)
        if math.isfinite(norm):
            for model, decay in zip(self._averages, self.optim.ema, strict=True):
                average(model, self.network, decay)

    @property
    def averaged(self) -> Denoiser:
        """The denoiser with the average of the weights so far."""
        self.settle()
        return self._averaged

    def _try(self, piece: int) -> Tried:
        """Add the gradient of a piece of this process's share of the batch."""
        optim, workers = self.optim, self.workers
        part = workers.part(optim.batch_size, piece, optim.accumulate)
        drawn = (
            self._draw(part) if self.coupling is None else self._paired(self.coupling).part(part)
        )
        items, x0, t, eps, condition, z = drawn
        dtype = _AUTOCAST.get(optim.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            losses = self.objective.loss(self.learner, x0, t, eps, z, **condition)
        # the workers share the mean of their gradients
        loss = losses.sum() / (optim.batch_size / workers.size)
        torch.autograd.backward(self.scaler.scale(loss))
        return Tried(items, t, losses.detach())

    def _draw(self, part: slice) -> Drawn:
        """Return the part of the batch of this step, with independent noise."""
        optim, step = self.optim, self.step
        items, noise = self._batch(step, part)

        def following() -> Tensor:
            return self._batch(step + 1, part)[0] if step + 1 < self.last else items[:0]

        x0 = self.x.take(part.start, items, following).to(self.device, non_blocking=True)
        rows = {name: value[items] for name, value in self.conditions.items()}
        if self.prepare is not None:
            x0, noise = self.prepare(x0, noise)
        return Drawn(
            items,
            x0,
            *draw(
                self.objective, self.denoiser, x0, noise, rows, optim.low_discrepancy, self.dropout
            ),
        )

    def _batch(self, step: int, part: slice) -> tuple[Tensor, Noise]:
        """Return the numbers of samples, and the noise, of a part of the batch of a step."""
        size = self.optim.batch_size
        items, noise = batch(step, size, len(self.among), self.seed, part)
        return self.among[items], noise

    def _paired(self, coupling: Coupling) -> Drawn:
        """Return the whole batch of this step in pairs, the same in all workers and pieces."""
        if self._whole is None or self._whole[0] != self.step:
            size = self.optim.batch_size
            drawn = self._draw(slice(0, size))
            items, x0, _, z, *_ = drawn
            groups = groups_of({k: v[items] for k, v in self.conditions.items()}, size)
            _, noise = self._batch(self.step, slice(0, size))
            eps = coupling.noise(x0, z, items, groups, replace(noise, stream=PAIRS))
            drawn = drawn._replace(eps=eps, z=z if self.denoiser.bridge else None)
            self._whole = self.step, drawn
        return self._whole[1]

    def _check(self, loss: float, norm: float, tried: Sequence[Tried]) -> None:
        """Raise `NumericalError` if the loss of the last step, or its gradient, is not finite."""
        finite = math.isfinite(loss)
        if finite and (math.isfinite(norm) or self._may_scale_less()):
            return
        self.diverged = True
        self.step -= 1
        if finite:
            raise NumericalError(
                f"the gradient's norm is {norm} at step {self.step + 1}, with a loss of "
                f"{loss:g}: lower optim.lr. The weights before this step are kept."
            )
        bad = [
            (int(item), float(t))
            for items, times, each in tried
            for item, t in zip(*(v[~each.isfinite().cpu()] for v in (items, times)), strict=True)
        ]
        bad = [pair for pairs in self.workers.gathered(bad) for pair in pairs]
        times = [t for _, t in bad] or [math.nan]  # a sum of finite losses may be infinite
        raise NumericalError(
            f"the loss is {loss} at step {self.step + 1}, at t = {min(times):g} to "
            f"{max(times):g}, items {[item for item, _ in bad[:8]]}: lower optim.lr, or look at "
            "those items. The weights before this step are kept."
        )

    def _may_scale_less(self) -> bool:
        """Return whether a smaller scale may avoid an overflow, after which it is already half."""
        return self.scaler.is_enabled() and self.scaler.get_scale() >= 1

    def _move(self, numbers: Tensor, lr: float) -> None:
        """Take the optimizer's step, which the device skips if a number is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # as `GradScaler.step` does it for a fused optimizer
        self.optimizer.found_inf = (~numbers.isfinite().all()).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.scaler.update()

    def finish(self) -> None:
        """Give the denoiser's network the average of the weights."""
        self.settle()
        self.denoiser.network.load_state_dict(self.average(0))
        self.denoiser.network.eval()

    def choose(self) -> None:
        """Let the fit end with the averages of this step."""
        self.settle()
        states = (average.module.state_dict() for average in self._averages)
        self.chosen = [{name: v.clone() for name, v in state.items()} for state in states]

    def average(self, number: int) -> dict[str, Tensor]:
        """Return the whole average of the weights for one of the decays, of the chosen step."""
        self.settle()
        last = self._averages[number].module.state_dict()
        weights = self.chosen[number] if self.chosen else last
        return {name: self.workers.whole(value) for name, value in weights.items()}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that the next step depends on, besides the arguments."""
        self.settle()
        parts = states.state(self.network, self._averages, self.optimizer, self.scaler)
        for k, weights in enumerate(self.chosen):
            parts |= {f"chosen.{k}.{name}": value for name, value in weights.items()}
        # in the same order in all workers, because a divided tensor is gathered from all of them
        whole = {name: self.workers.whole(parts[name]) for name in sorted(parts)}
        return whole | {"step": torch.tensor(self.step)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a `state` of a fit with the same arguments.

        Raises:
            ValueError: the tensors are not from such a fit.
        """
        try:
            states.restore(
                tensors, self.network, self._averages, self.optimizer, self.scaler, self.workers
            )
            self._queued = None
            self.losses.clear()
            self.chosen = [self._chosen(k, tensors) for k in range(len(self._averages))]
            self.chosen = [weights for weights in self.chosen if weights]
            self.step = int(tensors["step"])
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"the state is not from this fit: {error}") from None

    def _chosen(self, number: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the chosen average in a `state`, if it has one, as this worker holds it."""
        likes, whole = (
            self._averages[number].module.state_dict(),
            states.under(f"chosen.{number}", tensors),
        )
        return {k: self.workers.share(v, likes[k]).to(likes[k].device) for k, v in whole.items()}
