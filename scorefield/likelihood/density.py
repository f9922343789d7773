r"""Likelihoods: the density of data under a score field, with what is uncertain in it.

With ``y = x / alpha``, ``r = sigma / alpha`` and ``eps = E[eps | x]``, the probability-flow ODE of
every process is ``dy/dr = eps``, the score of ``y`` is ``-eps / r``, and the density ``q`` of ``y``
obeys ``dq/dr + div(q eps) = 0``. So along *any* path ``y(r)`` from the data to the prior::

    log q(y_0, r_0) = log q(y_1, r_1) + int [Q + eps . (dy/dr - eps)] dlog r        (1)
    Q = sigma tr(d eps / d x) = d - tr(d E[x_0 | x] / d y)                          (2)

The second term of (1) vanishes on the ODE's own path, where this is the change of variables of
continuous flows. On the path that a solver leaves behind, which is only near, it is the first order
of what the solver's error does. It is told as an error, not added: a learned score is not the
gradient of a density, and near the data, where it is least so, the term would do more harm than the
error it takes away.

What is Gaussian is done in closed form. For data of covariance eigenvalues ``e_k``, ``Q`` is near
``sum_k r^2 / (e_k + r^2)``, which is taken out of the integral and integrated exactly, and the law
at ``r_1`` is near ``N(mean, covariance + r_1^2)``, from which `Moments` starts. The rest vanishes
like a power at both ends; in ``w = log(1 + (r / c)^2)^(1/6)`` it is smooth, and the integral is a
trapezoid sum over equally spaced nodes, corrected at the ends by differences (Gregory's rule).

``tr`` is exact, by one product with the Jacobian per coordinate, or the mean over probes ``v`` of
``v . (d eps / d x) v`` with random signs. Every node draws its own probes: the sum is linear in
them, so it stays unbiased, and their errors average out along the path.

Reference: Chen et al. (2018), arXiv:1806.07366; Grathwohl et al. (2019), arXiv:1810.01367
(probes); Song et al. (2021), arXiv:2011.13456, appendix D.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor

from scorefield.errors import NumericalError
from scorefield.field import Estimate, Instant, ScoreField
from scorefield.grid import balanced, check_positive, growth, time_near
from scorefield.noise import PROBES, Noise
from scorefield.process import Prior
from scorefield.sampling import prepare
from scorefield.solvers import AnglePrediction, Exact, Growth, Multistep, State
from scorefield.tiles import as_ids, check_evaluating, tiles

DEFAULT_CALLS = 40
_FEWEST, _MOST = 8, 2**10
_POWER = 6.0  # of the nodes' spacing
_TOP = 200.0  # the noise at the prior's end, in the data's deviations
_EXACT = 128  # coordinates up to which the trace is exact unless told otherwise
_PROBES = 8
_PROBE_BITS = 14  # probes of one node
_GREGORY = (-1 / 12, -1 / 24, -19 / 720, -3 / 160)


@dataclass(frozen=True)
class Moments:
    """A Gaussian that stands for the data where noise dominates it.

    Attributes:
        mean: ``(d,)``.
        eigenvalues: of the covariance, ``(d,)``, not negative and not all 0.
        basis: its eigenvectors as columns, ``(d, d)``; None for the axes themselves.
    """

    mean: Tensor
    eigenvalues: Tensor
    basis: Tensor | None = None

    @classmethod
    def of(cls, data: Tensor, *, diagonal: bool = False) -> Moments:
        """Return the moments of data ``(N, ...)``: full, or of each coordinate alone."""
        flat = data.double().flatten(1)
        mean = flat.mean(0)
        if diagonal:
            return cls(mean, flat.var(0, correction=0))
        eigenvalues, basis = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
        return cls(mean, eigenvalues.clamp(min=0), basis)

    @classmethod
    def of_field(cls, field: ScoreField) -> Moments:
        """Return the mean and the variances that a field has of its data."""
        return cls(*(_flat(value, field) for value in (field.mean, field.variance)))

    @classmethod
    def standard(cls, field: ScoreField) -> Moments:
        """Return zero mean and unit variance: what most samplers start from."""
        return cls(*(_flat(value, field) for value in (0.0, 1.0)))

    def log_prob(self, y: Tensor, r: float) -> Tensor:
        """Return the log-density of ``y`` ``(B, d)`` under this Gaussian with ``r^2`` added."""
        along = self._along(y)
        return Prior(torch.zeros_like(along), (self.eigenvalues + r**2).sqrt()).log_prob(along)

    def eps(self, y: Tensor, r: float) -> Tensor:
        """Return ``E[eps | y]`` under it, along the basis."""
        return r * self._along(y) / (self.eigenvalues + r**2)

    def along(self, vectors: Tensor) -> Tensor:
        """Return vectors ``(B, d)`` in the basis."""
        return vectors if self.basis is None else vectors @ self.basis.to(vectors)

    def _along(self, y: Tensor) -> Tensor:
        return self.along(y - self.mean)

    def to(self, device: torch.device) -> Moments:
        """Return it in float64 on a device."""
        basis = None if self.basis is None else self.basis.to(device, torch.float64)
        mean, eigenvalues = (v.to(device, torch.float64) for v in (self.mean, self.eigenvalues))
        return Moments(mean, eigenvalues, basis)


@dataclass(frozen=True)
class Likelihood:
    """Log-densities in nats, and a budget of their errors; float64 tensors ``(B,)``.

    Attributes:
        value: the log-density of ``x`` with the process's lowest noise on it.
        stderr: the standard error of ``value`` from the probes; 0 for an exact trace.
        solver_error: an estimate of what the steps cost: two rules that differ in order, and the
            second term of (1). Too large by far where the score is not the gradient of a density.
        truncation: an estimate of what the noise left at ``t_min`` changes: add it for the density
            of the data itself, where that is smooth at this scale.
        prior_mismatch: an estimate of what it costs that the law at the other end is not the
            prior's Gaussian: add it for the density of a field that is exact.
        nfe: calls of the field for each sample.
        products: products with its Jacobian for each sample.
        probes: how many the value is a mean of; 0 for an exact trace.
    """

    value: Tensor
    stderr: Tensor
    solver_error: Tensor
    truncation: Tensor
    prior_mismatch: Tensor
    nfe: Tensor
    products: Tensor
    probes: Tensor

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the ends of Student's confidence interval for what the probes leave open.

        Raises:
            ValueError: ``level`` outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level = {level:g}: give a number between 0 and 1, such as 0.95.")
        half = _student(level, (self.probes - 1).clamp(min=1)) * self.stderr
        return self.value - half, self.value + half

    def bits_per_dim(self, dim: int) -> Tensor:
        """Return ``-value / (d log 2)`` of samples with ``d`` coordinates."""
        return -self.value / (dim * math.log(2))


def log_prob(
    field: ScoreField,
    x: Tensor,
    *,
    nfe: int = DEFAULT_CALLS,
    probes: int | None = None,
    stderr: float | None = None,
    max_probes: int = 4096,
    prior: Moments | Literal["moments", "standard"] = "moments",
    ids: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    tile: int = 64,
) -> Likelihood:
    """Return the log-density of each sample of ``x`` ``(B, *field.shape)``, in the field's units.

    The value of a sample depends on the sample, its id, ``seed`` and the settings, not on the
    others: at one ``tile`` it is the same to the last bit alone and in any batch.

    Args:
        nfe: calls of the field for each sample, at least 8.
        probes: for the trace, 2 or more; 0 for an exact trace. Unless given, exact up to 128
            coordinates and 8 probes beyond.
        stderr: instead of probes: double them until each sample's standard error is within this,
            at ``nfe`` more calls every time; exact where that costs no more products.
        max_probes: how far ``stderr`` may go.
        prior: the law at the noisiest end: the data's moments, as the field or a `Moments` has
            them; or "standard", for data of zero mean and unit variance.
        ids: which samples these are, as the probes' key; ``0 .. B-1`` unless given.
        tile: the batch that the field sees; with the nodes and ``d`` it makes up the memory.

    Raises:
        ValueError: settings out of range, a shape that is not the field's, a value that is not
            finite, a network in training.
        NumericalError: ``stderr`` is not met with ``max_probes``; a log-density is not finite.
    """
    rows = _check(field, x, nfe, probes, stderr, max_probes, ids, tile)
    dim = math.prod(field.shape)
    exact = probes == 0 or (probes is None and stderr is None and dim <= _EXACT)
    count = _PROBES if probes is None else probes
    moments = _moments(field, prior).to(x.device)
    nodes = _Nodes(field, nfe, moments, x.device)
    out = x.new_zeros(len(fields(Likelihood)), len(x), dtype=torch.float64)
    for places, at, slots in tiles(rows, tile):
        batch = x[places[0]].double().repeat(tile, *[1] * len(field.shape))
        batch[at] = x[places].double()
        noise = Noise(seed, slots.to(x.device), stream=PROBES)
        most = max_probes if stderr is not None else count
        goal = math.inf if stderr is None else stderr
        out[:, places] = _solve(field, nodes, moments, batch, noise, at, exact, count, goal, most)
    found = Likelihood(*out)
    if stderr is not None and not bool((found.stderr <= stderr).all()):
        worst = int(found.stderr.argmax())
        raise NumericalError(
            f"stderr = {stderr:g} is not met with {max_probes} probes: sample {rows[worst]} has "
            f"{float(found.stderr[worst]):.2g}. Give a larger stderr or max_probes, or probes=0."
        )
    if not bool(found.value.isfinite().all()):
        bad = [rows[k] for k in (~found.value.isfinite()).nonzero().flatten().tolist()]
        raise NumericalError(f"the log-density of samples {bad[:5]} is not finite.")
    return found


class _Nodes:
    """The grid of (1), equally spaced in ``w``, with what depends on it alone.

    Attributes:
        times: rising, ``(N,)``.
        r, m: ``sigma / alpha`` and ``sqrt(c^2 + r^2)`` there, ``(N, 1, 1)``.
        dlog: the change of ``log r`` from node to node, ``(N,)``.
        weights, lower: of a sum over the nodes, ``(N,)``, and those of a rule of lower order.
        derivative: by the number of the node, ``(N, N)``.
    """

    def __init__(self, field: ScoreField, nfe: int, moments: Moments, device: torch.device) -> None:
        process = field.process
        self.c = c = float(moments.eigenvalues.mean().sqrt())
        check_positive(data_std=c)
        top = time_near(process, _TOP * c)
        times = balanced(process, nfe - 1, start=top, end=process.t_min, data_std=c, power=_POWER)
        self.times = times.flip(0)
        alpha, sigma = process.coefficients(self.times)
        r = sigma / alpha
        w = growth(r.log() - math.log(c)) ** (1 / _POWER)
        step = (w[-1] - w[0]) / (nfe - 1)
        dlog = step * _POWER * w ** (_POWER - 1) * (c**2 + r**2) / (2 * r**2)
        self.alpha = alpha.to(device).reshape(-1, 1, 1)
        self.r = r.to(device).reshape(-1, 1, 1)
        self.m = (c**2 + self.r**2).sqrt()
        self.dlog = dlog.to(device)
        self.weights, self.lower = (_sum(nfe, terms).to(device) for terms in (4, 2))
        self.derivative = _slope(nfe, 6).to(device)

    def ends(self) -> tuple[float, float]:
        return float(self.r[0]), float(self.r[-1])


class _Traced(ScoreField):
    """A field that keeps what it was asked and what it said, with the traces."""

    def __init__(self, base: ScoreField, noise: Noise, count: int, exact: bool) -> None:
        super().__init__(base.process, base.shape, base.mean, base.variance)
        self.base = base
        self.draw = noise, count, exact
        self.seen: list[tuple[Instant, Tensor, Tensor]] = []
        self.traces: list[Tensor] = []

    def _prepare(self, t: Tensor) -> Sequence[Instant]:
        return self.base.instants(t)

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        instant: Instant = at.own
        noise, count, exact = self.draw
        vectors = _vectors(x, noise, len(self.seen), 0, count, exact)
        eps, trace = _trace(self.base, x, instant, vectors, exact)
        self.seen.append((instant, x, eps))
        self.traces.append(trace)
        return Estimate.from_eps(at, x, eps)


def _vectors(
    x: Tensor, noise: Noise, node: int, first: int, count: int, exact: bool
) -> Iterator[Tensor]:
    """Yield the unit vectors, or the probes ``first ... count - 1`` of a node, like ``x``."""
    if exact:
        flat = x.new_zeros(len(x), x[0].numel())
        for k in range(flat.shape[1]):
            flat[:, k] = 1
            yield flat.reshape(x.shape).clone()
            flat[:, k] = 0
        return
    for k in range(first, count):
        yield noise.signs(x, place=(node << _PROBE_BITS) + k)


def _trace(
    field: ScoreField, x: Tensor, at: Instant, vectors: Iterator[Tensor], exact: bool
) -> tuple[Tensor, Tensor]:
    """Return ``eps`` ``(B, ...)`` and (2) by each probe, or exactly, ``(K or 1, B)``."""
    with torch.inference_mode(False), torch.enable_grad():
        seen = x.clone().requires_grad_()
        eps = field(seen, at).eps
        found = []
        for v in vectors:
            pulled = torch.autograd.grad(eps, seen, v, retain_graph=True)[0]
            found.append((pulled * v).flatten(1).sum(1))
    traces = at.sigma * torch.stack(found)
    return eps.detach(), traces.sum(0, keepdim=True) if exact else traces


def _solve(
    field: ScoreField,
    nodes: _Nodes,
    moments: Moments,
    x: Tensor,
    noise: Noise,
    rows: Sequence[int],
    exact: bool,
    count: int,
    goal: float,
    most: int,
) -> Tensor:
    """Return the fields of `Likelihood`, stacked, for the given rows of a batch."""
    c, dim = nodes.c, x[0].numel()
    traced = _Traced(field, noise, count, exact)
    solver = Multistep(
        4, AnglePrediction(c), Exact(Growth(c, 1.5 / _POWER)), start="rising", corrector=True
    )
    begin = State(x * float(nodes.alpha[0]), nodes.times[0], noise)
    with torch.no_grad():
        end = prepare(traced, solver, nodes.times)(begin)
        traced(end.x, end.t)
    path = _Path(nodes, moments, traced.seen)
    traces, calls = torch.stack(traced.traces), len(nodes.times)
    products = len(nodes.times) * (dim if exact else count)
    out = path.result(traces, exact, calls, products)
    while not exact and count < most and bool((out[1, rows] > goal).any()):
        first, count = count, min(2 * count, most)
        exact = count >= dim
        more = []
        for node, (instant, at, _) in enumerate(traced.seen):
            vectors = _vectors(at, noise, node, first, count, exact)
            more.append(_trace(field, at, instant, vectors, exact)[1])
        new = torch.stack(more)
        traces = new if exact else torch.cat([traces, new], 1)
        calls += len(nodes.times)
        products += len(nodes.times) * (dim if exact else count - first)
        out = torch.where(out[1] > goal, path.result(traces, exact, calls, products), out)
    return out[:, rows]


class _Path:
    """The path that a solver left: everything in (1) but the traces."""

    def __init__(
        self, nodes: _Nodes, moments: Moments, seen: Sequence[tuple[Instant, Tensor, Tensor]]
    ) -> None:
        self.nodes = nodes
        r, m, dlog = nodes.r, nodes.m, nodes.dlog[:, None, None]
        y = torch.stack([x.flatten(1) for _, x, _ in seen]) / nodes.alpha
        eps = torch.stack([eps.flatten(1) for _, _, eps in seen])
        z = y / m
        slope = (eps - r / m**2 * y) / m * (r * dlog)
        # m (D z - slope) is what the path's dy is beside the ODE's
        beside = (nodes.derivative @ z.flatten(1)).reshape(z.shape) - slope
        self.beside = (nodes.weights[:, None] * (eps * beside * m / r).sum(2)).sum(0)
        first, last = nodes.ends()
        e = moments.eigenvalues
        self.ends = moments.log_prob(y[-1], last)
        self.ends = self.ends + 0.5 * torch.log((e + last**2) / (e + first**2)).sum()
        self.gaussian = (r[:, 0] ** 2 / (e + r[:, 0] ** 2)).sum(1)
        self.first = (eps[0] ** 2).sum(1)
        beyond = []
        for k in (-2, -1):
            ours = moments.eps(y[k], float(r[k]))
            beyond.append((ours * (moments.along(eps[k]) - ours)).sum(1))
        # falls like 1 / r where the prior's mean is not the data's, and like 1 / r^2 where it is
        fall = (beyond[0] / beyond[1]).abs().log() / float((r[-1] / r[-2]).log())
        self.beyond = beyond[1] / fall.nan_to_num(2.0).clamp(1, 2)

    def result(self, traces: Tensor, exact: bool, nfe: int, products: int) -> Tensor:
        """Return the fields of `Likelihood` stacked, ``(8, B)``, from traces ``(N, K, B)``."""
        nodes, count = self.nodes, traces.shape[1]
        rest = traces - self.gaussian[:, None, None]
        totals, lower = (
            ((weights * nodes.dlog)[:, None, None] * rest).sum(0)
            for weights in (nodes.weights, nodes.lower)
        )
        spread = totals.std(0) / math.sqrt(count) if count > 1 else torch.zeros_like(self.ends)
        mean = traces.mean(1)
        whole = torch.ones_like(self.ends)
        return torch.stack(
            [
                self.ends + totals.mean(0),
                spread,
                (totals - lower).mean(0).abs() + self.beside.abs(),
                0.5 * (mean[0] - self.first),
                0.5 * (mean[-1] - self.gaussian[-1]) - self.beyond,
                nfe * whole,
                products * whole,
                (0 if exact else count) * whole,
            ]
        )


def _sum(count: int, terms: int) -> Tensor:
    """Return Gregory's weights of ``count`` nodes, corrected by differences up to ``terms``."""
    weights = torch.ones(count, dtype=torch.float64)
    weights[0] = weights[-1] = 0.5
    for k, coefficient in enumerate(_GREGORY[:terms], 1):
        for j in range(k + 1):
            change = coefficient * (-1) ** j * math.comb(k, j)
            weights[j] += change
            weights[-1 - j] += change
    return weights


def _slope(count: int, width: int) -> Tensor:
    """Return the derivative at each node of the polynomial through ``width + 1`` nodes near it."""
    matrix = torch.zeros(count, count, dtype=torch.float64)
    for k in range(count):
        first = min(max(k - width // 2, 0), count - 1 - width)
        places = torch.arange(first, first + width + 1, dtype=torch.float64) - k
        powers = places ** torch.arange(width + 1, dtype=torch.float64)[:, None]
        unit = torch.eye(width + 1, dtype=torch.float64)[1]
        matrix[k, first : first + width + 1] = torch.linalg.solve(powers, unit)
    return matrix


def _flat(value: float | Tensor, field: ScoreField) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).expand(field.shape).flatten()


def _moments(field: ScoreField, prior: Moments | str) -> Moments:
    if isinstance(prior, Moments):
        dim = math.prod(field.shape)
        if prior.mean.shape != (dim,) or prior.eigenvalues.shape != (dim,):
            raise ValueError(
                f"prior has a mean of shape {tuple(prior.mean.shape)}: samples of shape "
                f"{field.shape} have {dim} coordinates. Use Moments.of(data)."
            )
        return prior
    if prior not in ("moments", "standard"):
        raise ValueError(f"prior = {prior!r}: give 'moments', 'standard' or Moments.of(data).")
    return Moments.of_field(field) if prior == "moments" else Moments.standard(field)


def _check(
    field: ScoreField,
    x: Tensor,
    nfe: int,
    probes: int | None,
    stderr: float | None,
    max_probes: int,
    ids: Sequence[int] | Tensor | None,
    tile: int,
) -> list[int]:
    """Return the ids, or refuse what does not fit."""
    if x.shape[1:] != field.shape or not x.is_floating_point() or x.ndim < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and type {x.dtype}: this field takes batches of samples "
            f"of shape {field.shape}, in a floating type."
        )
    bad = (~x.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"x is not finite in samples {bad[:5]}.")
    if not isinstance(nfe, Integral) or not _FEWEST <= nfe < _MOST:
        raise ValueError(f"nfe = {nfe!r}: give a number of calls from {_FEWEST} to {_MOST - 1}.")
    if probes is not None and stderr is not None:
        raise ValueError(f"probes = {probes} and stderr = {stderr:g}: leave one of them out.")
    if probes is not None and (
        not isinstance(probes, Integral) or probes == 1 or not 0 <= probes < 2**_PROBE_BITS
    ):
        raise ValueError(
            f"probes = {probes!r}: give 0 for an exact trace, or 2 to {2**_PROBE_BITS - 1}, of "
            "which a standard error can be told."
        )
    if stderr is not None:
        check_positive(stderr=stderr)
    if not isinstance(max_probes, Integral) or not _PROBES <= max_probes < 2**_PROBE_BITS:
        raise ValueError(f"max_probes = {max_probes!r}: give {_PROBES} to {2**_PROBE_BITS - 1}.")
    rows = as_ids(len(x) if ids is None else ids, tile)
    if len(rows) != len(x):
        raise ValueError(f"{len(rows)} ids for {len(x)} samples: give one for each.")
    check_evaluating(field)
    return rows


def _student(level: float, freedom: Tensor) -> Tensor:
    """Return the quantile of Student's t for a two-sided interval, by Fisher's expansion."""
    z, n = NormalDist().inv_cdf(0.5 + level / 2), freedom
    one, two = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    three = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + one / n + two / n**2 + three / n**3
