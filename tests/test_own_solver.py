"""A solver of one's own: a class with one method, in all the places that take a solver."""

import math
from dataclasses import dataclass

import pytest
import torch
from cases import COVARIANCE, MEAN, gaussian, mixture, normal

import scorefield as sf
from scorefield.evaluate import certify

PROCESS = sf.VP()


@dataclass(frozen=True)
class Clipped(sf.OneStep):
    """DDIM with its estimate of the data clipped."""

    limit: float = 1.0

    def step(self, field, state, s):
        estimate = field(state.x, state.t)
        x0 = estimate.x0.clamp(-self.limit, self.limit)
        eps = (state.x - estimate.at.alpha * x0) / estimate.at.sigma
        return field.process.perturb(x0, s, eps)


@dataclass(frozen=True)
class Reverse(sf.OneStep):
    """The reverse SDE by Euler and Maruyama, on noise of its own."""

    weak_order = 1

    def step(self, field, state, s):
        f, g = field.process.drift(state.t), field.process.diffusion(state.t)
        score = field(state.x, state.t).score
        z, _ = state.noise.normal(state.x)
        drift = f * state.x - g**2 * score
        return state.x + (s - state.t) * drift + g * (state.t - s).sqrt() * z


@dataclass(frozen=True)
class Trapezoid(sf.OneStep):
    """Heun's method, with its traits as class attributes."""

    order = 2
    calls = 2

    def step(self, field, state, s):
        h = s - state.t
        first = field(state.x, state.t).velocity
        return state.x + h / 2 * (first + field(state.x + h * first, s).velocity)


WIDE, EXACT = Clipped(99.0), sf.DDIM()
COMBINATIONS = {
    "alone": lambda solver: solver,
    "Program": lambda solver: sf.Program((sf.Heun(), solver, sf.Multistep(2)), (3.0, 0.8)),
    "PredictorCorrector": lambda solver: sf.PredictorCorrector(solver, sf.Langevin(0.1)),
    "Churn": lambda solver: sf.Churn(solver, 4.0, 12),
    "Ancestral": sf.Ancestral,
    "Restart": lambda solver: sf.Restart(solver, 0.5, 1.5),
    "Reversible": sf.Reversible,
}


@pytest.mark.parametrize("combine", COMBINATIONS.values(), ids=COMBINATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_ddim_of_ones_own_is_ddim_wherever_a_solver_goes(combine, dtype):
    field, times = mixture(PROCESS), sf.balanced(PROCESS, 12)
    own, exact = (
        sf.sample(field, 6, combine(solver), times, dtype=dtype) for solver in (WIDE, EXACT)
    )
    assert own.dtype == dtype
    torch.testing.assert_close(own, exact, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_a_clipped_step_stays_within_its_limit():
    """The last step, to the data, returns the clipped estimate itself."""
    field = mixture(PROCESS)
    times = torch.cat([sf.balanced(PROCESS, 12), torch.zeros(1, dtype=torch.float64)])
    clipped, free = (sf.sample(field, 64, solver, times) for solver in (Clipped(0.5), EXACT))
    assert float(clipped.abs().max()) == 0.5 < float(free.abs().max())


@pytest.mark.parametrize("solver", [Clipped(), Reverse(), sf.Churn(Clipped(), 4.0, 12)], ids=repr)
def test_a_sample_does_not_depend_on_its_batch(solver):
    field, times = mixture(PROCESS), sf.balanced(PROCESS, 12)
    together = sf.sample(field, 9, solver, times, seed=3)
    alone = sf.sample(field, [7, 2], solver, times, seed=3)
    assert torch.equal(alone, together[[7, 2]])


def test_a_step_takes_a_time_of_each_sample():
    field, x = mixture(PROCESS), normal(3, 2, dtype=torch.float32)
    t, s = (
        torch.tensor(v, dtype=torch.float64)[:, None] for v in ([0.9, 0.5, 0.3], [0.6, 0.2, 0.2])
    )
    at = sf.State(x, t, sf.Noise(0, torch.arange(3)))
    own = WIDE.advance(field, at, s).x
    assert own.dtype == torch.float32
    torch.testing.assert_close(own, EXACT.advance(field, at, s).x, rtol=0, atol=1e-6)


def test_the_noise_of_a_step_gives_the_exact_variance_in_the_limit():
    """At a Gaussian, where the distribution at every time is known."""
    field, count = gaussian(PROCESS), 20_000
    times = sf.even_log_snr(PROCESS, 100, start=0.7, end=0.1)
    alpha, sigma = PROCESS.coefficients(times[[0, -1]])
    begin = alpha[0] ** 2 * COVARIANCE + sigma[0] ** 2 * torch.eye(2, dtype=torch.float64)
    x = alpha[0] * MEAN + normal(count, 2) @ torch.linalg.cholesky(begin).T
    state = sf.State(x, times[0], sf.Noise(1, torch.arange(count)))
    x = sf.prepare(field, Reverse(), times)(state).x
    exact = alpha[1] ** 2 * COVARIANCE + sigma[1] ** 2 * torch.eye(2, dtype=torch.float64)
    standard = (2 * exact.diagonal() ** 2 / count).sqrt()
    assert ((x.T.cov() - exact).diagonal().abs() < 4 * standard + 0.01 * exact.diagonal()).all()
    assert ((x.mean(0) - alpha[1] * MEAN).abs() < 4 * (exact.diagonal() / count).sqrt()).all()


def test_each_step_draws_noise_of_its_own():
    """Steps of no drift add up to a Gaussian of the sum of their variances."""

    class Walk(sf.OneStep):
        weak_order = 1

        def step(self, field, state, s):
            first, noise = state.noise.normal(state.x)
            second, _ = noise.normal(state.x)  # what follows a draw, given back or not
            third, _ = state.noise.normal(state.x)
            return state.x + first + second + third

    count, times = 4000, sf.uniform(PROCESS, 5)
    state = sf.State(torch.zeros(count, 2), times[0], sf.Noise(0, torch.arange(count)))
    end = sf.prepare(mixture(PROCESS), Walk(), times)(state)
    assert end.noise.step == 15
    assert float(end.x.var()) == pytest.approx(15, rel=0.06)


def test_noise_goes_on_where_an_own_step_stopped():
    field, (t, s) = mixture(PROCESS), torch.tensor([0.7, 0.5], dtype=torch.float64)
    state = sf.State(normal(2, 2), t, sf.Noise(0, torch.arange(2)))
    after = Reverse().advance(field, state, s).noise
    assert torch.equal(after.normal(state.x)[0], state.noise.skipped().normal(state.x)[0])
    quiet = Clipped().advance(field, state, s).noise
    assert torch.equal(quiet.normal(state.x)[0], state.noise.normal(state.x)[0])


@pytest.mark.parametrize("solver", [Clipped(), Reverse()], ids=repr)
def test_a_run_of_an_own_solver_is_one_graph(solver):
    times, noise = sf.balanced(PROCESS, 3), sf.Noise(0, torch.arange(4))
    run = sf.prepare(mixture(PROCESS), solver, times)
    state = sf.State(normal(4, 2, dtype=torch.float32), times[0], noise)
    compiled = torch.compile(run, fullgraph=True, backend="eager")(state).x
    torch.testing.assert_close(compiled, run(state).x, rtol=1e-4, atol=1e-4)


def test_several_calls_of_a_step_are_counted_and_its_order_is_claimed():
    field, times = mixture(PROCESS), sf.balanced(PROCESS, 12)
    with sf.count_calls(field) as calls:
        own = sf.sample(field, 4, Trapezoid(), times, dtype=torch.float64)
    assert calls.count == 12 * Trapezoid().calls + 1
    heun = sf.sample(field, 4, sf.Heun(), times, dtype=torch.float64)
    torch.testing.assert_close(own, heun, rtol=1e-9, atol=1e-9)
    assert sf.Churn(Trapezoid(), 1.0, 12).order == 2


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda f: sf.sample(f, 2, Clipped(), sf.Adaptive()), "Clipped.*no"),
        (lambda f: sf.Churn(Reverse(), 1.0, 5), "adds noise itself"),
        (lambda f: sf.sample(f, 2, Silent(), sf.uniform(PROCESS, 2)), "weak_order = 1"),
        (
            lambda f: sf.sample(f, 2, Estimates(), sf.uniform(PROCESS, 2)),
            r"Estimates.step returned",
        ),
        (
            lambda f: sf.sample(f, 2, Rows(), sf.uniform(PROCESS, 2)),
            r"Rows.step returned \(2,\): return x at s",
        ),
        (lambda f: WIDE.moves(f, *TWO)[0].transition(None), "no density"),
    ],
)
def test_a_wrong_step_or_use_is_refused_in_words_of_the_solver(run, message):
    with pytest.raises(ValueError, match=message):
        run(mixture(PROCESS))


TWO = torch.tensor([[0.7], [0.5]], dtype=torch.float64)


class Silent(sf.OneStep):
    """A step with noise that it does not declare."""

    def step(self, field, state, s):
        return state.noise.normal(state.x)[0]


class Estimates(sf.OneStep):
    """A step that returns an estimate instead of x."""

    def step(self, field, state, s):
        return field(state.x, state.t)


class Rows(sf.OneStep):
    """A step that returns a number for each sample."""

    def step(self, field, state, s):
        return state.x[:, 0]


@pytest.mark.parametrize(("solver", "order"), [(WIDE, 1), (Trapezoid(), 2)], ids=repr)
def test_an_own_solver_is_certified_for_the_order_it_claims(solver, order):
    certificate = sf.certify(solver)
    assert certificate.passed
    assert certificate.claim == order
    assert certificate.calls == solver.calls
    assert all(o == pytest.approx(order, abs=0.15) for o in certificate.observed)
    assert str(certificate).startswith(f"{solver!r} on VP passes: claimed order {order}, measured")


def test_an_own_solver_that_claims_too_much_gets_no_certificate():
    @dataclass(frozen=True)
    class Boastful(Clipped):
        order = 2

    certificate = sf.certify(Boastful(99.0), sf.Flow(), name="mine")
    assert not certificate.passed
    assert str(certificate).startswith("mine on Flow fails: claimed order 2, measured 1.0")


def test_noise_of_ones_own_is_certified_for_its_distribution():
    certificate = sf.certify(Reverse())
    assert certificate.passed
    assert certificate.observed[1] == pytest.approx(1, abs=0.25)
    assert len(certificate.p_values) == 4
    known = certify.certify(certify.SDE_SOLVERS["EulerMaruyama"])
    assert certificate.observed == pytest.approx(known.observed, abs=0.05)


def test_an_own_solver_is_found_by_its_module_and_name():
    for name, expected in (("WIDE", WIDE), ("Clipped", Clipped()), ("make", Reverse())):
        ((title, solver),) = certify.choose(f"{__name__}:{name}")[0].items()
        assert title == name
        assert solver(7) == expected


@pytest.mark.parametrize(
    ("word", "solvers", "processes"),
    [
        ("ddim", ["DDIM"], 8),
        ("UniPC(2)", ["UniPC(2)"], 8),
        ("ddim(", ["DDIM(0.5)", "DDIM(1)"], 8),
        ("edm", [*certify.ODE_SOLVERS, *certify.SDE_SOLVERS], 1),
        ("all", [*certify.ODE_SOLVERS, *certify.SDE_SOLVERS], 8),
    ],
)
def test_a_word_stands_for_solvers_and_processes(word, solvers, processes):
    chosen, names = certify.choose(word)
    assert list(chosen) == solvers
    assert len(names) == processes


def make():
    return Reverse()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (f"{__name__}:Unknown", "no attribute Unknown"),
        ("no_such_module:Name", "No module named 'no_such_module'"),
        (f"{__name__}:PROCESS", "VP"),
        ("henu", "solver='henu': an unknown name"),
    ],
)
def test_a_name_without_a_solver_is_refused(word, message):
    with pytest.raises(ValueError, match=message):
        certify.choose(word)


@pytest.mark.parametrize("value", [sf.Heun, 3, lambda steps: sf.Heun], ids=["class", "int", "rule"])
def test_only_solvers_are_certified(value):
    with pytest.raises(ValueError, match=r"solver=.*must be a"):
        sf.certify(value)


def test_the_examples_of_the_docstring_run():
    """The two classes above are its text; each line of theirs stands there."""
    lines = {line.strip() for line in sf.OneStep.__doc__.splitlines()}
    import inspect

    for solver in (Clipped, Reverse):
        body = inspect.getsource(solver.step).splitlines()
        assert {line.strip() for line in body} <= lines
    assert math.isfinite(
        float(sf.sample(mixture(PROCESS), 4, Clipped(), sf.balanced(PROCESS, 20)).sum())
    )
