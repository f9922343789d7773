r"""The error on held-out data at fixed noise, at several noise levels.

The error of ``x0`` at a noise level, divided by the error of the optimal denoiser for independent
Gaussian coordinates of variances ``v_i``::

    r(t) = || x0_hat - x0 ||^2 / sum_i v_i sigma^2 / (alpha^2 v_i + sigma^2)            (1)

A mean of 1 means that nothing beyond means and variances was learned; lower is better. No weighting
enters, so levels are comparable. If this error rises while the loss falls, the network memorises
the training data.

On a space it is the squared error of the score's estimate, times ``sigma^2`` and divided by the
dimension: about 1 without a score at low noise.

Between two data sets the denominator is the mean error of ``x / (alpha + sigma)``, the sample as it
is, without a translation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield._internal.errors import UsageError
from scorefield.data.rows import Rows
from scorefield.field import Bridge, Instant, ScoreField, bridge_std
from scorefield.noise import EVALUATION, PAIRS, SPLIT, Noise
from scorefield.process import Process, align, mix, wide
from scorefield.training.couplings import Coupling, groups_of
from scorefield.training.loop import Prepare

BINS = 8
_WIDEST = 5.0  # in log(sigma/alpha): beyond, data of unit variance is nearly clean or pure noise
_MOST = 256  # samples
_BATCH_SIZE = 64
_DRAWS = 4  # of noise, a level
_TABLES = 16  # noise levels of a bin, on a space


def split(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the samples to learn from, and of the held-out ones in random order.

    Raises:
        UsageError: a share that holds out no sample, or leaves fewer than two.
    """
    size = round(share * count)
    if share and not 1 <= size <= count - 2:
        raise UsageError(
            f"held_out={share:g}: of {count} samples that is {size}; hold out at least one, and "
            "leave two."
        )
    u, _ = Noise(seed, torch.arange(count), stream=SPLIT).uniform(torch.empty(0))
    order = u.argsort()
    return order[size:].sort().values, order[:size]


def bins(process: Process) -> Tensor:
    """Return the edges ``(BINS + 1,)`` of the noise levels, in ``log(sigma / alpha)``."""
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    low, high = (-process.half_log_snr(ends)).clamp(-_WIDEST, _WIDEST).tolist()
    return torch.linspace(low, high, BINS + 1, dtype=torch.float64)


@dataclass(frozen=True)
class HeldOut:
    """Samples that are not trained on, and the noise to measure a field with.

    Args:
        rows, conditions: all data, and its conditions by name.
        items: the numbers of the held-out samples, int64.
        prepare: the function from data to the field's input, as in training.
        seed: with sample and level, determines the noise.
        coupling: of data and noise, as in training; pairs are made within 64 samples.
    """

    rows: Rows
    conditions: Mapping[str, Tensor]
    items: Tensor
    prepare: Prepare | None
    seed: int
    coupling: Coupling | None = None

    @torch.no_grad()
    def errors(self, field: ScoreField) -> Tensor:
        """Return the mean of (1) over each noise level of `bins`, float64 ``(BINS,)``.

        At most 256 samples are used; their noise levels are spread evenly over a bin.

        Raises:
            ValueError: no sample is held out.
        """
        if not len(self.items):
            raise ValueError("held_out=0: no sample is held out; set it above 0.")
        total = min(len(self.items), _MOST)
        result = torch.zeros(BINS, dtype=torch.float64)
        for level in range(BINS):
            for start in range(0, total, _BATCH_SIZE):
                places = torch.arange(start, min(start + _BATCH_SIZE, total))
                result[level] += self._relative(field, level, places, total).sum().cpu() / total
        return result

    def _relative(self, field: ScoreField, level: int, places: Tensor, total: int) -> Tensor:
        """Return (1) for some of the held-out samples, by their positions."""
        errors: Tensor
        process = field.process
        items = self.items[places]
        noise = Noise(self.seed, items, step=_DRAWS * level, stream=EVALUATION)
        x0 = self.rows[items].to(_device(field))
        u, noise = noise.uniform(torch.empty(0))
        if self.prepare is not None:
            x0, noise = self.prepare(x0, noise)
        share = (places + u) / total
        if process.space is not None:  # so many tables of heat kernels
            share = ((share * _TABLES).floor() + 0.5) / _TABLES
        edges = bins(field.process)
        depth = edges[level] + (edges[level + 1] - edges[level]) * share
        t = field.process.time(-depth).clamp(field.process.t_min, field.process.t_max)
        z, _ = field.process.noise(x0, t, noise)
        eps = z
        if self.coupling is not None:
            groups = groups_of({k: v[items] for k, v in self.conditions.items()}, len(items))
            eps = self.coupling.noise(x0, z, items, groups, replace(noise, stream=PAIRS))
        condition = {k: v[items].to(x0.device) for k, v in self.conditions.items()}
        x = field.process.perturb(x0, align(t, x0), eps)
        if field.bridge:
            at = Instant.of(field.process, t, x0)
            x, field = mix((1.0, x), (bridge_std(at, field.bridge), z)), Bridge(field)
        if (space := process.space) is not None:
            gap = field(x, t, **condition).eps - process.target_noise(x0, x, t, z)
            errors = wide(space.inner(gap, gap)).cpu() / space.dim
            return errors
        estimate = field(x, t, **condition).x0
        alpha, sigma = process.coefficients(align(t, x0))
        if field.between_data:
            away = wide(x).cpu() / (alpha + sigma) - wide(x0).cpu()
            errors = wide(estimate - x0).square().flatten(1).sum(1).cpu()
            return errors / away.square().flatten(1).sum(1).mean()
        v = torch.as_tensor(field.variance).cpu().double().expand(field.shape)
        least = v * sigma**2 / (alpha**2 * v + sigma**2)
        ended = x0.isnan()  # after the end of a signal
        least = least.masked_fill(ended.cpu(), 0.0)
        difference = wide(estimate - x0).masked_fill(ended, 0.0)
        errors = difference.square().flatten(1).sum(1).cpu()
        return errors / least.flatten(1).sum(1)


def _device(field: ScoreField) -> torch.device:
    parameter = next(field.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
