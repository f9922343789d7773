"""The certificates: every solver on every process, and that a wrong solver gets none."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from cases import normal

import scorefield as sf
from scorefield._internal.statistics import kolmogorov_smirnov
from scorefield.evaluate import certify
from scorefield.evaluate.certify import ODE_SOLVERS, PROCESSES, SDE_SOLVERS
from scorefield.solvers import LinearSolver, Row, Rule, RungeKutta, Tableau


def by_turns(solvers):
    """Return each solver on a process of its own, and on every fourth where all tests run.

    `scorefield certify all` has every solver on every process.
    """
    names = list(PROCESSES)
    return [
        pytest.param(solver, names[(k + n) % len(names)], marks=pytest.mark.exhaustive if n else ())
        for k, solver in enumerate(solvers)
        for n in range(0, len(names), 4)
    ]


@pytest.mark.parametrize(("solver", "process"), by_turns(ODE_SOLVERS))
def test_a_solver_of_the_ode_converges_at_the_order_it_claims_both_ways(solver, process):
    certificate = certify.certify(ODE_SOLVERS[solver], PROCESSES[process]())
    assert certificate.passed, certificate


@pytest.mark.parametrize(("solver", "process"), by_turns(SDE_SOLVERS))
def test_the_law_of_a_solver_of_the_sde_converges_at_the_weak_order_it_claims(solver, process):
    claim = SDE_SOLVERS[solver](1).weak_order
    for seen in certify.measure_weak_orders(SDE_SOLVERS[solver], PROCESSES[process]()):
        assert seen == math.inf or seen == pytest.approx(claim, abs=0.25)


@pytest.mark.parametrize("solver", ["Tsit5", "Multistep(3, data)"])
def test_orders_hold_with_one_noise_level_per_coordinate(solver):
    process = certify.EVERY_PROCESS["PerCoordinate"]()
    for up in (False, True):
        order = certify.measure_order(ODE_SOLVERS[solver], process, to_noise=up)
        assert order == pytest.approx(ODE_SOLVERS[solver](1).order, abs=0.15)


@pytest.mark.parametrize("solver", ["Ancestral(DDIM)", "Churn(Heun)"])
def test_distributions_hold_with_one_noise_level_per_coordinate(solver):
    process = certify.EVERY_PROCESS["PerCoordinate"]()
    assert certify.p_value(SDE_SOLVERS[solver], process, "gaussian", 1) > certify.LEVEL


def test_the_solvers_that_need_one_noise_level_are_known():
    process = certify.EVERY_PROCESS["PerCoordinate"]()
    rejected = [name for name, make in ODE_SOLVERS.items() if not certify.takes(make, process)]
    # those that start by the classical method in the noise angle
    assert "Multistep(4, data)" in rejected
    assert all(name.startswith(("Multistep(", "UniPC(", "DEIS(")) for name in rejected)
    assert all(ODE_SOLVERS[name](1).order >= 3 for name in rejected)
    assert all(certify.takes(make, process) for make in SDE_SOLVERS.values())


# every solver on VP, and rules of three kinds on the others; `scorefield certify all` has the rest
LAWS = [(solver, "VP") for solver in SDE_SOLVERS] + [
    pytest.param(solver, process, marks=pytest.mark.exhaustive)
    for solver in ("EulerMaruyama", "SDE-DPM-Solver++(2M)", "Ancestral(DDIM)")
    for process in PROCESSES
    if process != "VP"
]


@pytest.mark.parametrize("steps", [20, 1])
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
@pytest.mark.parametrize(("solver", "process"), LAWS)
def test_samples_of_the_sde_pass_for_samples_of_the_exact_law(solver, process, kind, steps):
    assert certify.p_value(SDE_SOLVERS[solver], PROCESSES[process](), kind, steps) > certify.LEVEL


@dataclass(frozen=True)
class WrongWeights(RungeKutta):
    """Heun's method with one weight off."""

    tableau: ClassVar[Tableau] = Tableau(2, ((), (1.0,)), (0.45, 0.55), (0.0, 1.0))


def test_a_wrong_weight_costs_the_certificate():
    certificate = sf.certify(WrongWeights())
    assert not certificate.passed
    assert certificate.observed[0] == pytest.approx(1, abs=0.1)


@dataclass(frozen=True)
class TooLoud(LinearSolver):
    """DDPM's step with noise that is too large by a factor."""

    weak_order = 1
    factor: float = 1.2

    def rule(self, t, s, past, error):
        rule = sf.DDPM().rule(t, s, past, error)
        return Rule(rule.calls, Row(0.0, rule.end.means, self.factor * rule.end.z), noisy=True)


def test_noise_that_is_too_loud_costs_the_certificate():
    certificate = sf.certify(TooLoud())
    assert not certificate.passed
    assert certificate.observed[1] < 0.5, "the covariance does not converge"
    assert min(certificate.p_values) < 1e-6, "and the samples show it"


def test_the_sensitivity_is_how_far_a_network_that_is_off_moves_samples():
    """Against samples of a field with random smooth errors, not by linear response."""
    spread = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
    exact = sf.Gaussian(sf.VP(), torch.zeros(4), spread.square().diag())
    times = sf.uniform(sf.VP(), 9, end=0.1)

    def moved(solver):
        plan = sf.Plan(solver, times)
        clean, squares = sf.sample(exact, 64, plan, dtype=torch.float64), []
        for seed in range(12):
            off = sf.Inexact(exact, 1e-3, seed=seed)
            squares.append((sf.sample(off, 64, plan, dtype=torch.float64) - clean).square().mean())
        return torch.stack(squares).mean().sqrt()

    peer = moved(sf.dpm_solver_pp(2, published=True))
    in_the_angle = sf.Exact(lambda process, log_ratio: log_ratio.exp().atan())
    sensitive = sf.Multistep(3, quadrature=in_the_angle)
    for solver in (sf.DDIM(), sensitive):
        want = certify.measure_sensitivity(lambda steps, solver=solver: solver)
        assert moved(solver) / peer == pytest.approx(want, rel=0.35)
    assert certify.measure_sensitivity(lambda steps: sensitive) > 5
    for order in (1, 2, 3, 4, 5):
        assert certify.measure_sensitivity(lambda steps, n=order: sf.Multistep(n)) < 2


def test_the_exact_ends_lie_on_one_path_of_the_probability_flow():
    """Against a fine solve, which knows nothing of quantiles."""
    process = sf.EDM()
    times = sf.even_log_snr(process, 400, start=6.0, end=0.5)
    begin, end = certify.exact_ends(process, times[[0, -1]])
    at = sf.State(begin, times[0], sf.Noise(0, torch.arange(len(begin))))
    got = sf.prepare(certify.product(process), sf.RK4(), times)(at).x
    torch.testing.assert_close(got, end, rtol=1e-9, atol=1e-9)


def test_the_affine_law_is_that_of_many_samples():
    """Mean and covariance carried exactly, against 20,000 samples of the same solver."""
    process, count = sf.VP(), 20_000
    field = sf.Gaussian(process, torch.tensor([0.8, -0.5]), torch.tensor([[0.9, 0.4], [0.4, 0.5]]))
    times = sf.even_log_snr(process, 5, start=0.6, end=0.2)
    solver = sf.PredictorCorrector(sf.EulerMaruyama(), sf.Langevin(0.4, 2))
    mean, covariance = certify.affine_moments(field, solver, times)
    start = process.prior(field.mean, 0.0, times[0]).mean
    alpha, sigma = process.coefficients(times[0])
    spread = alpha**2 * field.covariances[0] + sigma**2 * torch.eye(2, dtype=torch.float64)
    x = start + normal(count, 2) @ torch.linalg.cholesky(spread).T
    at = sf.State(x, times[0], sf.Noise(4, torch.arange(count)))
    x = sf.prepare(field, solver, times)(at).x
    variances = covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 4 * (variances / count).sqrt()).all()
    standard = ((variances[:, None] * variances + covariance**2) / count).sqrt()
    assert ((x.T.cov() - covariance).abs() < 4 * standard).all()


def test_the_two_sample_test_has_the_level_it_claims_and_sees_a_shift():
    p = [
        kolmogorov_smirnov(normal(400, seed=2 * k), normal(400, seed=2 * k + 1)) for k in range(400)
    ]
    assert sum(value < 0.05 for value in p) / len(p) == pytest.approx(0.05, abs=0.035)
    shifted = normal(20_000, seed=1) + 0.05
    assert kolmogorov_smirnov(normal(20_000), shifted) < 1e-3


def test_the_certificates_in_the_docs_are_of_every_solver_and_process_and_all_passed():
    page = (Path(__file__).parents[1] / "docs" / "certificates.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert lines[:2] == certify.header(list(PROCESSES))
    assert [line.split(" | ")[0][2:] for line in lines[2:]] == [*ODE_SOLVERS, *SDE_SOLVERS]
    assert "FAIL" not in page
    for text in lines[2:]:
        name, claim, calls, sensitivity, *cells = text.strip("| ").split(" | ")
        assert len(cells) == len(PROCESSES)
        make = {**ODE_SOLVERS, **SDE_SOLVERS}[name]
        order = make(1).order if name in ODE_SOLVERS else make(1).weak_order
        assert int(claim.split()[0].rstrip(",")) == order
        assert float(calls) == pytest.approx(certify.calls_per_step(make, sf.VP()), rel=1e-3)
        assert float(sensitivity) > 0
        tolerance = 0.15 if name in ODE_SOLVERS else 0.25
        for cell in cells:
            for seen in cell.split(",")[0].split():
                assert seen == "exact" or abs(float(seen) - order) <= tolerance + 0.005
