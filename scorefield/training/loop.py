"""The training loop: data order and noise are functions of (seed, epoch, item)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from scorefield.config import OptimConfig
from scorefield.data.rows import Rows
from scorefield.denoiser import Denoiser
from scorefield.errors import NumericalError
from scorefield.noise import OFFSET, ORDER, TRAINING, Noise
from scorefield.training.objective import Objective

Prepare = Callable[[Tensor, Noise], tuple[Tensor, Noise]]

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Progress:
    """One finished step: how many are done, and the step's mean loss."""

    step: int
    loss: float


def fit(
    denoiser: Denoiser,
    objective: Objective,
    x: Rows,
    y: Tensor | None = None,
    *,
    optim: OptimConfig | None = None,
    dropout: float = 0.1,
    prepare: Prepare | None = None,
    seed: int = 0,
) -> Fit:
    """Train a denoiser in place: iterate over the steps of what is returned.

    After the last step the network holds the exponential moving average of its weights.

    Args:
        x: data ``(N, ...)``, a tensor or read as it is asked for.
        y: classes ``(N,)``, or None; hidden from the network as often as ``dropout`` says.
        prepare: from a batch of ``x`` and noise of its own to what the field sees, and the noise
            after; ``x`` is that already unless given.
    """
    optim = OptimConfig() if optim is None else optim
    return Fit(denoiser, objective, x, y, optim, dropout, prepare, seed)


class Fit:
    """A fit in progress: an iterator over its steps, which raises before it spoils the weights.

    What comes next is a function of `state` and of the arguments alone.

    Attributes:
        step: how many steps are done.
        averaged: the denoiser with the average of the weights so far.

    Raises:
        NumericalError: a loss or gradient that is not finite, before the weights are touched.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        objective: Objective,
        x: Rows,
        y: Tensor | None,
        optim: OptimConfig,
        dropout: float,
        prepare: Prepare | None,
        seed: int,
    ) -> None:
        self.denoiser, self.objective, self.x, self.y = denoiser, objective, x, y
        self.optim, self.dropout, self.prepare, self.seed = optim, dropout, prepare, seed
        self.network = denoiser.network
        self.device = next(self.network.parameters()).device
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, fused=True
        )
        self.average = AveragedModel(self.network, multi_avg_fn=_Average(optim.ema))
        self.averaged = denoiser.around(self.average.module.eval())

    def __iter__(self) -> Iterator[Progress]:
        return self

    def __next__(self) -> Progress:
        step, optim, network = self.step, self.optim, self.network
        if step >= optim.steps:
            network.load_state_dict(self.average.module.state_dict())
            network.eval()
            raise StopIteration
        network.train()
        items, noise = batch(step, optim.batch, len(self.x), self.seed)
        x0 = self.x[items].to(self.device)
        y = None if self.y is None else self.y[items].to(self.device)
        if self.prepare is not None:
            x0, noise = self.prepare(x0, noise)
        t, eps, condition = _draw(self.objective, self.denoiser, x0, noise, y, optim, self.dropout)
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=optim.precision == "bfloat16"
        ):
            losses = self.objective.loss(self.denoiser, x0, t, eps, **condition)
        loss = losses.mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            bad = ~losses.isfinite()
            culprits = items[bad.cpu()][:8].tolist()
            raise NumericalError(
                f"the loss is {value} at step {step + 1}, at t = {t[bad].min():g} to "
                f"{t[bad].max():g}, items {culprits}: lower optim.lr, or look at those "
                "items. The weights before this step are kept."
            )
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = float(torch.nn.utils.clip_grad_norm_(network.parameters(), optim.clip))
        if not math.isfinite(norm):
            raise NumericalError(
                f"the gradient's norm is {norm} at step {step + 1}, with a loss of {value:g}: "
                "lower optim.lr. The weights before this step are kept."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = optim.lr * _rate(step, optim)
        self.optimizer.step()
        self.average.update_parameters(network)
        self.step = step + 1
        return Progress(self.step, value)

    def state(self) -> dict[str, Tensor]:
        """Return all that the next step depends on besides the arguments."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for k, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{k}.{name}": value for name, value in moments.items()}
        return tensors | {"step": torch.tensor(self.step)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `state` of a fit with the same arguments.

        Raises:
            ValueError: the tensors are not those of such a fit.
        """

        def under(prefix: str) -> dict[str, Tensor]:
            start = len(prefix) + 1
            return {k[start:]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}

        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in under("optimizer").items():
            number, name = key.split(".")
            moments.setdefault(int(number), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        try:
            self.network.load_state_dict(under("network"))
            self.average.load_state_dict(under("average"))
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            self.step = int(tensors["step"])
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"the state is not this fit's: {error}") from None


def batch(step: int, size: int, count: int, seed: int) -> tuple[Tensor, Noise]:
    """Return the items ``(size,)`` of a step and the noise keyed by their places in all epochs.

    Every epoch visits each of the ``count`` items once, in an order of its own.
    """
    places = torch.arange(step * size, (step + 1) * size)
    epochs, within = places // count, places % count
    items = torch.empty_like(places)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        here = epochs == epoch
        items[here] = _order(epoch, count, seed)[within[here]]
    return items, Noise(seed, places, stream=TRAINING)


@lru_cache(maxsize=2)
def _order(epoch: int, count: int, seed: int) -> Tensor:
    u, _ = Noise(seed, torch.arange(count), epoch, ORDER).uniform(torch.empty(0))
    return u.argsort()


def _draw(
    objective: Objective,
    denoiser: Denoiser,
    x0: Tensor,
    noise: Noise,
    y: Tensor | None,
    optim: OptimConfig,
    dropout: float,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the times ``(B,)``, the noise and the condition of a step."""
    u, noise = noise.uniform(x0)
    if optim.low_discrepancy:
        # an additive recurrence over the places fills (0, 1) evenly, whatever the batch
        offset, _ = Noise(noise.seed, torch.zeros(1, dtype=torch.int64), stream=OFFSET).uniform(x0)
        u = (offset + noise.ids.to(u) * _GOLDEN) % 1
        u = u.clamp(1e-12, 1 - 1e-12)
    eps, noise = noise.normal(x0)
    t = objective.times(denoiser.process, u)
    if y is None:
        return t, eps, {}
    hidden, _ = noise.uniform(x0)
    return t, eps, {"y": torch.where(hidden < dropout, -1, y)}


def _rate(step: int, optim: OptimConfig) -> float:
    """Return the learning rate at a step, relative to its peak: warm-up, then half a cosine."""
    rise = min(1.0, (step + 1) / max(1, optim.warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / optim.steps)))


class _Average:
    """Averages with a decay that starts low, so that early weights are forgotten."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, kept: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count)
        decay = min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(list(kept), list(new), 1 - decay)
