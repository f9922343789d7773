"""Solvers against exact fields: order on the ODE, law on the SDE, formulas of one step.

The order tests run between ``sigma / alpha = 40`` and ``0.3``, the same stretch of noise on every
process, so one reference serves all: scipy's DOP853 on ``d(x/alpha) / d(sigma/alpha) = eps``.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import pytest
import scipy.integrate
import torch
from cases import (
    ALL_PROCESSES,
    ALL_SOLVERS,
    COVARIANCE,
    IDENTITY,
    MEAN,
    ODE_SOLVERS,
    PREDICTIONS,
    PROCESS_IDS,
    gaussian,
    label,
    mixture,
    normal,
    silent,
    tensor,
    time_at,
)

import scorefield as sf
from scorefield._internal.errors import NumericalError
from scorefield.evaluate.certify import affine_moments
from scorefield.solvers import RungeKutta

HIGH, LOW = 40.0, 0.3
every_process = pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
every_ode_solver = pytest.mark.parametrize(
    "solver", [solver for solver in ODE_SOLVERS if solver.order < 5], ids=label
)
both_ways = pytest.mark.parametrize("up", [False, True], ids=["to data", "to noise"])


@dataclass(frozen=True)
class Fixed:
    """Noise that is always ``z``, to take a stochastic step apart."""

    z: torch.Tensor

    def increment(self, start, end, like):
        return self.z, self

    def normal(self, like):
        return self.z, self


def final(field, solver, x, times, noise=None):
    """Return ``x`` carried along ``times``."""
    at = sf.State(x, times[0], silent(len(x)) if noise is None else noise)
    for state in sf.integrate(field, solver, at, times):
        at = state
    return at.x


@functools.cache
def grid(process, steps, up, high=HIGH, low=LOW):
    """Return times from one noise level to the other, even in log-SNR, in either direction."""
    ends = {"start": float(time_at(process, high)), "end": float(time_at(process, low))}
    times = sf.even_log_snr(process, steps, **ends)
    return times.flip(0) if up else times


@functools.cache
def reference(up):
    """Return starting points ``x / alpha`` of `mixture` and where the exact ODE carries them."""
    first, last = (LOW, HIGH) if up else (HIGH, LOW)
    edm = mixture(sf.EDM(t_min=LOW / 2, t_max=2 * HIGH))
    data = edm.data(normal(6, 2, seed=2), torch.linspace(0.05, 0.95, 6).double())
    start = data + first * normal(6, 2, seed=1)

    def rate(log_ratio, x):
        ratio = math.exp(log_ratio)
        return ratio * edm(torch.from_numpy(x).reshape(6, 2), ratio).eps.numpy().ravel()

    span = math.log(first), math.log(last)
    found = scipy.integrate.solve_ivp(
        rate, span, start.numpy().ravel(), method="DOP853", rtol=1e-12, atol=1e-12
    )
    return start, torch.from_numpy(found.y[:, -1]).reshape(6, 2)


def error(field, solver, steps, up):
    """Return the mean distance of a solver's end points from the exact ones, in ``x / alpha``."""
    start, exact = reference(up)
    process, times = field.process, grid(field.process, steps, up)
    x = final(field, solver, process.alpha(times[0]) * start, times)
    return float((x / process.alpha(times[-1]) - exact).norm(dim=1).mean())


@every_ode_solver
@both_ways
def test_an_ode_solver_converges_at_the_order_it_claims(solver, up):
    """On a field whose axes do not part; every process and solver is in the certificates."""
    steps, field = 64 if solver.order == 3 else 32, mixture(sf.VP())
    coarse, fine = (error(field, solver, n, up) for n in (steps, 2 * steps))
    assert math.log2(coarse / fine) == pytest.approx(solver.order, abs=0.15)
    assert fine < 0.2 * float(reference(up)[1].norm(dim=1).mean())


@every_process
@pytest.mark.parametrize("solver", [sf.RK4(), sf.Multistep(3, sf.AnglePrediction())], ids=label)
@both_ways
def test_the_probability_flow_carries_a_gaussian_by_its_exact_map(process, solver, up):
    """Offsets from the mean stretch like the standard deviation along each principal axis."""
    times = grid(process, 120 // solver.calls, up, high=10.0)
    alpha, sigma = process.coefficients(times[[0, -1]])
    eigenvalues, basis = torch.linalg.eigh(COVARIANCE)
    std = (alpha[:, None] ** 2 * eigenvalues + sigma[:, None] ** 2).sqrt()
    x = alpha[0] * MEAN + normal(5, 2) @ (basis * std[0]).T
    stretched = (x - alpha[0] * MEAN) @ basis / std[0] * std[1]
    expected = alpha[1] * MEAN + stretched @ basis.T
    got = final(gaussian(process), solver, x, times)
    assert (got - expected).norm() < 2e-5 * expected.norm()


def expected_of_one_step(solver, field, x, t, s, z):
    """Return what one step must give, written out by hand."""
    process, h, now = field.process, s - t, field(x, t)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = process.coefficients(t), process.coefficients(s)

    def slope(y, time):
        score = field(y, time).score
        return process.drift(time) * y - 0.5 * process.diffusion(time) ** 2 * score

    ddim = alpha_s * now.x0 + sigma_s / sigma_t * (x - alpha_t * now.x0)
    if solver == sf.Euler():
        return x + h * slope(x, t)
    if solver == sf.Heun():
        return x + h / 2 * (slope(x, t) + slope(x + h * slope(x, t), s))
    if solver == sf.RK4():
        k1 = slope(x, t)
        k2 = slope(x + h / 2 * k1, t + h / 2)
        k3 = slope(x + h / 2 * k2, t + h / 2)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x + h * k3, s))
    if isinstance(solver, RungeKutta):
        slopes = []
        for row, node in zip(solver.tableau.a, solver.tableau.c, strict=True):
            y = x + h * sum((w * k for w, k in zip(row, slopes, strict=True)), torch.zeros_like(x))
            slopes.append(slope(y, t + node * h))
        return x + h * sum(w * k for w, k in zip(solver.tableau.b, slopes, strict=True))
    if isinstance(solver, sf.EulerMaruyama):
        f, g, eta = process.drift(t), process.diffusion(t), solver.eta
        drift = f * x - 0.5 * (1 + eta**2) * g**2 * now.score
        return x + h * drift + eta * g * (-h).sqrt() * z
    if isinstance(solver, sf.DDIM | sf.DDPM):
        rest = 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2
        std = getattr(solver, "eta", 1.0) * sigma_s * rest.sqrt()
        eps = (x - alpha_t * now.x0) / sigma_t
        mean = alpha_s * now.x0 + (sigma_s**2 - std**2).sqrt() * eps
        if solver == sf.DDPM("forward"):
            kernel = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
            std = (kernel * (alpha_s**2 + sigma_s**2) / (alpha_t**2 + sigma_t**2)).sqrt()
        return mean + std * z
    if solver.order < 3:
        return ddim
    # the start-up of order 3: a second look, at the step's end
    ahead = field(ddim, s)
    low, high = process.half_log_snr(t), process.half_log_snr(s)
    gap = high - low
    if solver.prediction == sf.DataPrediction():
        weight = ((gap - 1) * high.exp() + low.exp()) / gap
        return ddim + sigma_s * weight * (ahead.x0 - now.x0)
    if solver.prediction == sf.NoisePrediction():
        weight = -((-low).exp() - (1 + gap) * (-high).exp()) / gap
        return ddim + alpha_s * weight * (ahead.eps - now.eps)
    turned = torch.atan2(sigma_s, alpha_s) - torch.atan2(sigma_t, alpha_t)
    change = alpha_s * (ahead.eps - now.eps) - sigma_s * (ahead.x0 - now.x0)
    return ddim + turned / 2 * change


@every_process
@pytest.mark.parametrize("solver", ALL_SOLVERS, ids=label)
def test_one_step_is_the_formula_written_out_by_hand(process, solver):
    field, (t, s) = gaussian(process), grid(process, 1, False, high=1.5, low=0.8)
    x, z = process.perturb(MEAN + normal(4, 2), t, normal(4, 2, seed=1)), normal(4, 2, seed=2)
    got = solver.advance(field, sf.State(x, t, Fixed(z)), s).x
    expected = expected_of_one_step(solver, field, x, t, s, z)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


@every_process
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=label)
def test_multistep_of_order_one_is_ddim(process, prediction):
    field, times = mixture(process), grid(process, 8, False)
    x = process.alpha(times[0]) * reference(False)[0]
    multistep = final(field, sf.Multistep(1, prediction), x, times)
    ddim = final(field, sf.DDIM(eta=0.0), x, times)
    torch.testing.assert_close(multistep, ddim, rtol=1e-12, atol=1e-12)


@every_process
@both_ways
def test_ddim_is_euler_on_the_scaled_state_against_the_noise_to_signal_ratio(process, up):
    """The exponential Euler method: ``x/alpha`` moves along ``eps`` by ``sigma/alpha``."""
    field, times = mixture(process), grid(process, 8, up)
    x = process.alpha(times[0]) * reference(up)[0]
    got, scaled = final(field, sf.DDIM(eta=0.0), x, times), x / process.alpha(times[0])
    for t, s in itertools.pairwise(times):
        ratio_t, ratio_s = (process.sigma(u) / process.alpha(u) for u in (t, s))
        scaled = scaled + (ratio_s - ratio_t) * field(process.alpha(t) * scaled, t).eps
    expected = process.alpha(times[-1]) * scaled
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def law_of_scheme(field, solver, times, mean, covariance):
    """Carry a mean and covariance through a solver that is linear in state and noise.

    On a Gaussian field a step is ``x -> A x + b + C z``; stepping zero and the unit vectors, once
    without noise and once with unit noise, reads off ``A``, ``b`` and ``C``.
    """
    zero = torch.zeros(2, 2, dtype=torch.float64)
    x, z = torch.cat([zero[:1], IDENTITY, zero]), torch.cat([zero[:1], zero, IDENTITY])
    for t, s in itertools.pairwise(times):
        out = solver.advance(field, sf.State(x, t, Fixed(z)), s).x
        shift, linear, noise = out[0], (out[1:3] - out[0]).T, (out[3:] - out[0]).T
        mean = linear @ mean + shift
        covariance = linear @ covariance @ linear.T + noise @ noise.T
    return mean, covariance


def law_at(process, t):
    """Return the exact mean and covariance of `gaussian` noised to ``t``."""
    alpha, sigma = process.coefficients(t)
    return alpha * MEAN, alpha**2 * COVARIANCE + sigma**2 * IDENTITY


def eta_of_time(process):
    """Return an eta that is the ODE where noise dominates and more than the SDE near data."""
    return lambda t: 1.5 * process.alpha(t) / (process.alpha(t) + process.sigma(t))


SCHEMES = {
    "EulerMaruyama(1) to data": (lambda p: sf.EulerMaruyama(1.0), False),
    "EulerMaruyama(0.5) to data": (lambda p: sf.EulerMaruyama(0.5), False),
    "EulerMaruyama(eta of t) to data": (lambda p: sf.EulerMaruyama(eta_of_time(p)), False),
    "EulerMaruyama(1) to noise": (lambda p: sf.EulerMaruyama(1.0), True),
    "EulerMaruyama(0.5) to noise": (lambda p: sf.EulerMaruyama(0.5), True),
    "DDIM(1)": (lambda p: sf.DDIM(eta=1.0), False),
    "DDIM(0.5)": (lambda p: sf.DDIM(eta=0.5), False),
    "DDPM(forward)": (lambda p: sf.DDPM("forward"), False),
}


@every_process
@pytest.mark.parametrize(("make", "up"), SCHEMES.values(), ids=SCHEMES)
def test_the_law_of_a_stochastic_solver_converges_at_weak_order_one(process, make, up):
    """Mean and covariance of a Gaussian, carried exactly: no sampling error hides the order."""
    field, solver, errors = gaussian(process), make(process), []
    count = {sf.LinearSDE: 24, sf.VE: 96}.get(type(process), 48)
    for steps in (count, 2 * count):
        times = grid(process, steps, up, high=8.0)
        mean, covariance = law_of_scheme(field, solver, times, *law_at(process, times[0]))
        exact_mean, exact_covariance = law_at(process, times[-1])
        gaps = (mean - exact_mean).norm(), (covariance - exact_covariance).norm()
        errors.append([float(gap) for gap in gaps])
    scale = float(law_at(process, times[-1])[1].norm())
    for coarse, fine in zip(*errors, strict=True):
        exact_already = fine < 1e-10 * scale
        assert exact_already or math.log2(coarse / fine) == pytest.approx(1, abs=0.15)
        assert fine < 0.2 * scale


@pytest.mark.parametrize(
    "solver",
    [
        sf.EulerMaruyama(eta=1.0),
        sf.EulerMaruyama(eta=0.5),
        sf.EulerMaruyama(eta_of_time(sf.VP())),
        sf.DDIM(eta=1.0),
        sf.DDIM(eta=0.5),
        sf.DDPM("forward"),
    ],
    ids=["EM 1", "EM 0.5", "EM of t", "DDIM 1", "DDIM 0.5", "DDPM forward"],
)
def test_stochastic_samples_of_a_gaussian_have_its_moments_within_four_standard_errors(solver):
    process, count = sf.VP(), 6000
    field, times = gaussian(process), grid(process, 150, False, high=100.0, low=0.05)
    mean, covariance = law_at(process, times[0])
    x = mean + normal(count, 2, seed=11) @ torch.linalg.cholesky(covariance).T
    x = final(field, solver, x, times, sf.Noise(5, torch.arange(count)))
    mean, covariance = law_at(process, times[-1])
    variances = covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 4 * (variances / count).sqrt()).all()
    standard = ((variances[:, None] * variances[None] + covariance**2) / count).sqrt()
    assert ((x.T.cov() - covariance).abs() < 4 * standard).all()


def test_the_ancestral_step_has_the_posterior_variance_and_not_beta():
    """DDPM's ``beta-tilde``; for a skipped step ``beta`` stands for ``1 - abar_t / abar_s``."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)
    field = gaussian(sf.Tabulated(alpha_bar))
    for t, s in ((3, 2), (500, 499), (999, 998), (800, 300)):
        spread = 1 - alpha_bar[t] / alpha_bar[s]
        posterior = (1 - alpha_bar[s]) / (1 - alpha_bar[t]) * spread
        x = normal(1, 2)
        stds = []
        for eta in (1.0, 0.3):
            quiet, loud = (
                sf.DDIM(eta).advance(field, sf.State(x, tensor(t)[0], Fixed(z)), tensor(s)[0]).x
                for z in (torch.zeros_like(x), torch.ones_like(x))
            )
            stds.append((loud - quiet).mean())
        torch.testing.assert_close(stds[0] ** 2, posterior, rtol=1e-9, atol=0)
        torch.testing.assert_close(stds[1], 0.3 * stds[0], rtol=1e-9, atol=0)
    assert (1 - alpha_bar[2]) / (1 - alpha_bar[3]) * beta[3] < 0.9 * beta[3]


def test_ddpm_has_the_mean_of_ddim_with_the_posterior_variance_or_beta():
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    field = gaussian(sf.Tabulated((1 - beta).cumprod(0)))
    for t in (3, 500, 999):
        x, z = normal(1, 2), normal(1, 2, seed=1)
        quiet, loud = (sf.State(x, tensor(t)[0], Fixed(n)) for n in (torch.zeros_like(z), z))
        s = tensor(t - 1)[0]
        small, large = sf.DDPM("posterior"), sf.DDPM("forward")
        assert torch.equal(
            small.advance(field, loud, s).x, sf.DDIM(eta=1.0).advance(field, loud, s).x
        )
        mean = large.advance(field, quiet, s).x
        assert torch.equal(mean, small.advance(field, quiet, s).x)
        added = large.advance(field, loud, s).x - mean
        torch.testing.assert_close(added, beta[t].sqrt() * z, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match='give "posterior" or "forward"'):
        sf.DDPM("beta")


@every_process
def test_ddpm_with_the_forward_variance_is_exact_in_one_step_on_data_of_unit_variance(process):
    field = sf.Gaussian(process, torch.zeros(2).double(), IDENTITY)
    t, s = grid(process, 1, False, high=8.0, low=0.5)
    size_t, size_s = (torch.hypot(*process.coefficients(u)) for u in (t, s))
    zero, covariance = torch.zeros(2).double(), size_t**2 * IDENTITY
    mean, covariance = law_of_scheme(field, sf.DDPM("forward"), (t, s), zero, covariance)
    torch.testing.assert_close(mean, zero)
    torch.testing.assert_close(covariance, size_s**2 * IDENTITY, rtol=1e-9, atol=1e-12)


def test_the_ode_and_the_sde_take_different_paths_to_the_same_law():
    """By the distance of Cramér and von Mises to the exact law, at most 0.02 in 99 of 100 cases."""
    process, count = sf.VP(), 2000
    weights, means, variances = tensor(0.3, 0.7), tensor(-1.2, 0.9), tensor(0.1, 0.3)
    field = sf.Mixture(process, weights, means.reshape(2, 1), variances.reshape(2, 1, 1))
    times = grid(process, 100, False, high=100.0, low=0.02)
    alpha, sigma = process.coefficients(times[-1])

    def distance(x):
        z = (x.sort(0).values - alpha * means) / (alpha**2 * variances + sigma**2).sqrt()
        ranks = (torch.arange(count) + 0.5) / count
        return float((torch.special.ndtr(z) @ weights - ranks).square().mean().sqrt())

    start, noise = normal(count, 1, seed=1), sf.Noise(0, torch.arange(count))
    ode = final(field, sf.Heun(), start, times)
    sde = final(field, sf.EulerMaruyama(1.0), start, times, noise)
    assert distance(ode) < 0.02
    assert distance(sde) < 0.02
    paired = float((ode - sde).square().mean().sqrt())
    assert paired > 1, "from equal starts the paths end apart"


@pytest.mark.parametrize("solver", ALL_SOLVERS, ids=label)
def test_samples_may_stand_at_times_of_their_own(solver):
    process = sf.VP()
    field, x, z = mixture(process), normal(3, 2), normal(3, 2, seed=1)
    t, s = tensor(0.9, 0.6, 0.3).reshape(3, 1), tensor(0.5, 0.5, 0.1).reshape(3, 1)
    together = solver.advance(field, sf.State(x, t, Fixed(z)), s).x
    for k in range(3):
        row = slice(k, k + 1)
        alone = solver.advance(field, sf.State(x[row], t[k, 0], Fixed(z[row])), s[k, 0]).x
        torch.testing.assert_close(together[row], alone, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=label)
def test_a_move_of_x_between_steps_keeps_the_history_and_the_order(order, prediction):
    """Here the move is to a copy: the solver cannot know it, and looks again."""
    field, solver, errors = mixture(sf.EDM(t_max=100.0)), sf.Multistep(order, prediction), []
    for steps in (64, 128):
        times = grid(field.process, steps, False)
        at = sf.State(reference(False)[0], times[0], silent(6))
        for s in times[1:]:
            at = solver.advance(field, at._replace(x=at.x.clone()), s)
        errors.append(float((at.x - reference(False)[1]).norm(dim=1).mean()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("solver", [sf.DDIM(), sf.Euler(), sf.Multistep(3, sf.AnglePrediction())])
def test_rectified_flow_starts_from_pure_noise_without_special_cases(solver):
    process = sf.Flow(t_max=1.0)
    field, errors = mixture(process), []
    start = reference(False)[0] / HIGH
    exact = final(field, sf.RK4(), start, sf.uniform(process, 200, end=0.2))
    for steps in (64, 128):
        x = final(field, solver, start, sf.uniform(process, steps, end=0.2))
        errors.append(float((x - exact).norm(dim=1).mean()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(solver.order, abs=0.15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sf.Multistep(6), "Multistep has the orders 1 to 5"),
        (lambda: sf.Multistep(0), "Multistep has the orders 1 to 5"),
        (lambda: sf.DDIM(1.5), r"eta=1.5: give a number from 0 \(ODE\) to 1"),
        (lambda: sf.DDIM(math.nan), "eta=nan"),
        (lambda: sf.EulerMaruyama(-1.0), "eta=-1: give 0"),
        (lambda: sf.StochasticHeun(math.inf), "eta=inf: give 0"),
        (lambda: sf.Multistep(2.0), "order=2.0: Multistep has the orders 1 to 5"),
        (lambda: sf.Multistep(eta=math.inf), "eta=inf"),
        (
            lambda: sf.Multistep(eta=lambda t: t),
            "only EulerMaruyama and StochasticHeun take a fun",
        ),
        (lambda: sf.Power(0.0), "rho=0: must be a positive number"),
        (lambda: sf.Growth(power=-1.0), "power=-1: must be a positive number"),
        (lambda: sf.Published("bh3"), 'family=.bh3.: give "dpm", "bh1" or "bh2"'),
        (lambda: sf.unipc(variant="bh1"), "variant='bh1': has no effect on exact weights"),
    ],
)
def test_a_solver_with_an_impossible_setting_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_step_that_a_solver_cannot_take_is_refused_with_what_to_use():
    flow, x = gaussian(sf.Flow(t_max=1.0)), normal(3, 2)
    end, middle = tensor(1.0, 0.5)
    with pytest.raises(ValueError, match="an infinite diffusion at t=1"):
        sf.EulerMaruyama(1.0).advance(flow, sf.State(x, end, silent(3)), middle)
    with pytest.raises(ValueError, match=r"goes towards data, not from t=0.5 to s=1"):
        sf.DDIM(eta=1.0).advance(flow, sf.State(x, middle, silent(3)), end)
    table = sf.balanced(sf.VP(), 4, to_data=True)
    for solver in (sf.dpm_solver_pp(2), sf.dpm_solver_pp(2, published=True), sf.unipc(2)):
        with pytest.raises(ValueError, match="meets alpha = 0 or sigma = 0 at t=0"):
            sf.prepare(gaussian(sf.VP()), solver, table)
    with pytest.raises(ValueError, match="eta=-1 at some time: give values >= 0"):
        sf.EulerMaruyama(lambda t: -torch.ones_like(t)).advance(
            flow, sf.State(x, middle, silent(3)), tensor(0.4)[0]
        )
    published = sf.Multistep(2, sf.AnglePrediction(), sf.Published("dpm"), start="rising")
    with pytest.raises(ValueError, match="the published recurrences interpolate in log-SNR"):
        sf.prepare(flow, published, tensor(0.6, 0.5, 0.4))
    with pytest.raises(
        ValueError, match="use AnglePrediction in its own angle, or start the grid later"
    ):
        sf.Multistep(3, sf.DataPrediction()).advance(flow, sf.State(x, end, silent(3)), middle)


def test_a_step_outside_the_process_is_refused_and_a_step_to_the_data_is_not():
    field = mixture(sf.EDM())
    at = sf.State(normal(3, 2), tensor(1.0)[0], silent(3))
    for s in (500.0, -5.0, 1e-3):
        with pytest.raises(ValueError, match=rf"s={s}: outside \[0.002, 80.0\]"):
            sf.DDIM().advance(field, at, tensor(s)[0])
    torch.testing.assert_close(sf.DDIM().advance(field, at, tensor(0.0)[0]).x, field(at.x, 1.0).x0)
    with pytest.raises(ValueError, match=r"a call of the field at t = 0.0, outside"):
        sf.Heun().advance(field, at, tensor(0.0)[0])


@pytest.mark.parametrize("solver", [sf.Heun(), sf.Multistep(3), sf.DDIM(1.0)], ids=label)
def test_times_of_a_step_may_be_numbers_whole_or_single_precision(solver):
    """None of them changes the type in which coefficients are formed."""
    table = sf.Tabulated((1 - torch.linspace(1e-4, 0.02, 100, dtype=torch.float64)).cumprod(0))
    field, x, z = mixture(table), normal(2, 2), Fixed(normal(2, 2, seed=1))
    exact = solver.advance(field, sf.State(x, tensor(64.0)[0], z), tensor(32.0)[0])
    for t, s in ((64.0, 32.0), (64, 32), (torch.tensor(64), torch.tensor(32.0))):
        got = solver.advance(field, sf.State(x, t, z), s)
        assert torch.equal(got.x, exact.x)
        assert got.t.dtype == torch.float64
    each = torch.tensor([64.0, 64.0])
    got = solver.advance(field, sf.State(x, each, z), each / 2)
    torch.testing.assert_close(got.x, exact.x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "solver",
    [sf.Euler(), sf.RK4(), sf.DDIM(), sf.Multistep(3), sf.Program((sf.Heun(),))],
    ids=label,
)
def test_an_error_is_not_made_up_by_a_solver_that_estimates_none(solver):
    at = sf.State(normal(3, 2), tensor(0.5)[0], silent(3))
    with pytest.raises(ValueError, match="has no error estimate"):
        solver.advance(mixture(sf.VP()), at, tensor(0.4)[0], error=True)


class Misjudged(sf.Gaussian):
    """A Gaussian's field that takes five per cent too much for noise while there is much of it."""

    def estimate(self, x, at, **condition):
        found = super().estimate(x, at, **condition)
        if at.sigma > 2.0 * at.alpha:
            return sf.Estimate.from_eps(x, at, 1.05 * found.eps)
        return found


def test_noise_forgives_the_score_its_earlier_errors():
    """The ODE carries an error made at high noise to the end; the more noise, the less is left."""
    process, left = sf.VP(), []
    field, times = Misjudged(process, MEAN, COVARIANCE), grid(process, 60, False, 30.0, 0.05)
    exact = law_at(process, times[-1])[1]
    for eta in (0.0, 0.5, 1.0):
        solver = sf.Multistep(2, sf.DataPrediction(), eta=eta)
        left.append(float((affine_moments(field, solver, times)[1] - exact).norm() / exact.norm()))
    assert left[0] > 0.1
    assert left[1] < 0.6 * left[0]
    assert left[2] < 0.1 * left[0]


def test_euler_heun_and_predictor_corrector_compared_at_equal_calls():
    """Heun beats Euler, by more the more calls there are. A corrector mends a coarse predictor, but
    with an exact score the same calls are better spent on finer steps.

    The law of a run on a Gaussian is carried exactly, and compared with the exact one.
    """
    process = sf.VP()
    field, ode = mixture(process), {}
    for calls in (32, 128):
        ode[calls] = (
            error(field, sf.Euler(), calls, False),
            error(field, sf.Heun(), calls // 2, False),
        )
    assert ode[32][1] < 0.5 * ode[32][0]
    assert ode[128][1] < 0.2 * ode[128][0]
    gauss, times = gaussian(process), grid(process, 12, False, 30.0, 0.3)
    exact = law_at(process, times[-1])[1]
    off = {}
    corrected = sf.PredictorCorrector(sf.EulerMaruyama(), sf.Langevin(0.2, 4))
    for name, solver, steps in (
        ("coarse", sf.EulerMaruyama(), 12),
        ("corrected", corrected, 12),
        ("fine", sf.EulerMaruyama(), 60),
    ):
        times = grid(process, steps, False, 30.0, 0.3)
        with sf.count_calls(gauss) as calls:
            sf.prepare(gauss, solver, times)(sf.State(normal(1, 2), times[0], silent(1)))
        assert calls.count == (12 if name == "coarse" else 60)
        off[name] = float((affine_moments(gauss, solver, times)[1] - exact).norm() / exact.norm())
    assert off["corrected"] < 0.7 * off["coarse"]
    assert off["fine"] < 0.5 * off["corrected"]


def test_annealed_langevin_climbs_down_the_noise_ladder_of_smld():
    """At each rung, moves of ``x + step / 2 score + sqrt(step) z`` with NCSN's step."""
    process, low = sf.VE(), 0.05
    field, epsilon = gaussian(process), 2e-4
    sigmas = torch.tensor([3.0, 0.9, 0.3, low], dtype=torch.float64)
    times = process.time(-sigmas.log())
    x, z = MEAN + 3 * normal(4, 2), normal(4, 2, seed=1)
    r = math.sqrt(epsilon) / (2 * low)
    run = sf.prepare(field, sf.annealed_langevin(r, moves_per_step=3), times)
    got, expected = run(sf.State(x, times[0], Fixed(z))).x, x
    for sigma, t in zip(sigmas[1:], times[1:], strict=True):
        step = epsilon * sigma**2 / low**2
        for _ in range(3):
            expected = expected + step / 2 * field(expected, t).score + step.sqrt() * z
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_a_field_that_is_not_finite_is_named_with_its_time_samples_and_solver():
    class Broken(sf.Gaussian):
        def estimate(self, x, at, **condition):
            found = super().estimate(x, at, **condition)
            if at.sigma >= 0.5:
                return found
            eps = found.eps.clone()
            eps[2] = math.nan
            return sf.Estimate.from_eps(x, at, eps)

    field = Broken(sf.VP(), MEAN, COVARIANCE)
    times = grid(field.process, 8, False)
    with pytest.raises(NumericalError) as error:
        sf.sample(field, [8, 9, 10, 11], sf.Heun(), times, batch_size=4)
    first = next(t for t in times if field.process.sigma(t) < 0.5)
    for part in ("not finite", f"{float(first):g}", "[10]", "Heun()"):
        assert part in str(error.value)
    assert error.value.exit_code == 5


# --- preparation ---------------------------------------------------------------------------------


class PlainAttribute(sf.VP):
    """A process whose attribute is not a field of a dataclass, so two of them compare equal."""

    def __init__(self, power):
        object.__setattr__(self, "power", power)
        super().__init__()

    def alpha(self, t):
        return super().alpha(t) ** self.power

    def sigma(self, t):
        return (1 - self.alpha(t) ** 2).sqrt()


def test_coefficients_are_computed_once_for_a_solver_a_process_and_a_grid(monkeypatch):
    rule, counted = sf.Multistep.rule, []

    def counting(self, *arguments):
        counted.append(None)
        return rule(self, *arguments)

    monkeypatch.setattr(sf.Multistep, "rule", counting)
    solver, process = sf.Multistep(2, eta=0.123), sf.VP(t_min=0.0123)
    x, times = normal(4, 2), sf.even_log_snr(process, 5)
    at = sf.State(x, times[0], sf.Noise(0, torch.arange(4)))

    def end(process, times):
        return sf.prepare(gaussian(process), solver, times)(at._replace(t=times[0])).x

    with torch.inference_mode():
        first = end(process, times)
    once = len(counted)
    assert torch.equal(end(sf.VP(t_min=0.0123), times.clone()), first)
    assert len(counted) == once > 0
    x.requires_grad_()
    assert torch.autograd.grad(end(process, times).sum(), x)[0].isfinite().all()
    other = end(sf.VP(t_min=0.0123, beta_max=17.0), times)
    assert len(counted) == 2 * once
    assert not torch.equal(other, first)
    one, two = (end(PlainAttribute(power), times) for power in (1, 2))
    assert not torch.allclose(one, two)
