"""Solvers made of solvers: what each adds to its parts, and that the marginals still hold."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from cases import (
    ALL_PROCESSES,
    COVARIANCE,
    IDENTITY,
    MEAN,
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
from scorefield.evaluate.certify import affine_moments
from scorefield.solvers import Hold

every_process = pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
both_ways = pytest.mark.parametrize("up", [False, True], ids=["to data", "to noise"])
PROCESS = sf.VP(t_min=1e-3)


@dataclass(frozen=True)
class Fixed:
    """Noise that is always ``z``, to take a stochastic step apart."""

    z: torch.Tensor

    def increment(self, start, end, like):
        return self.z, self

    def normal(self, like):
        return self.z, self

    def skipped(self):
        return self


def grid(process, steps, high=20.0, low=0.3, up=False):
    """Return times from one noise level to the other, even in log-SNR."""
    ends = {"start": float(time_at(process, high)), "end": float(time_at(process, low))}
    times = sf.even_log_snr(process, steps, **ends)
    return times.flip(0) if up else times


def ratio(process, t):
    """Return ``sigma / alpha``."""
    return process.sigma(t) / process.alpha(t)


def states(field, solver, x, times, noise=None):
    """Return the states along ``times``."""
    at = sf.State(x, times[0], silent(len(x)) if noise is None else noise)
    return list(sf.integrate(field, solver, at, times))


def final(field, solver, x, times, noise=None):
    """Return ``x`` carried along ``times``."""
    return states(field, solver, x, times, noise)[-1].x


def calls_of(field, run):
    """Return the time and the point of every call of the field that ``run()`` makes."""
    seen = []
    handle = field.register_forward_hook(
        lambda _, args, found: seen.append((float(found.t), args[0]))
    )
    run()
    handle.remove()
    return seen


def law_at(process, t):
    """Return the exact mean and covariance of `gaussian` noised to ``t``."""
    alpha, sigma = process.coefficients(t)
    return alpha * MEAN, alpha**2 * COVARIANCE + sigma**2 * IDENTITY


# --- programs ------------------------------------------------------------------------------------

PLAIN = [sf.Heun(), sf.Multistep(3), sf.Multistep(5), sf.unipc(2), sf.DDIM(1.0)]


@pytest.mark.parametrize("solver", PLAIN, ids=label)
def test_a_program_of_one_solver_is_that_solver_bit_for_bit(solver):
    field, program, x = mixture(PROCESS), sf.Program((solver,)), 10 * normal(4, 2)
    times = grid(PROCESS, 7)
    assert torch.equal(final(field, program, x, times), final(field, solver, x, times))
    if solver.weak_order is None:
        back = times.flip(0)
        assert torch.equal(final(field, program, x, back), final(field, solver, x, back))
    facts = ("order", "weak_order", "calls", "history_length")
    assert [getattr(program, k) for k in facts] == [getattr(solver, k) for k in facts]


PROGRAMS = {
    "ODE": ((sf.Heun(), sf.Multistep(3), sf.DDIM()), (5.0, 1.0)),
    "multisteps": ((sf.Multistep(3), sf.Multistep(3), sf.unipc(2)), (6.0, 1.5)),
    "noisy": ((sf.DDIM(1.0), sf.Multistep(2, eta=1.0), sf.EulerMaruyama()), (4.0, 1.0)),
}


@pytest.mark.parametrize(("solvers", "levels"), PROGRAMS.values(), ids=PROGRAMS)
@both_ways
def test_a_program_is_its_parts_run_in_turn_each_with_a_memory_of_its_own(solvers, levels, up):
    """A step belongs to the segment in which its noisier end lies, whichever way it goes."""
    if up and any(solver.weak_order is not None for solver in solvers):
        solvers = (sf.RK4(), sf.EulerMaruyama(), sf.Heun())
    process, field = PROCESS, mixture(PROCESS)
    times, x = grid(process, 13, up=up), 3 * normal(4, 2)
    owner = []
    for t, s in itertools.pairwise(times):
        noisier = float(ratio(process, max(t, s)))
        owner.append(sum(noisier <= level for level in levels))
    assert set(owner) == {0, 1, 2}
    at = sf.State(x, times[0], silent(4))
    for segment in (reversed if up else list)(range(3)):
        first = owner.index(segment)
        part = times[first : first + owner.count(segment) + 1]
        at = list(sf.integrate(field, solvers[segment], at._replace(memory=None), part))[-1]
    program = sf.Program(solvers, levels)
    assert torch.equal(final(field, program, x, times), at.x)


@both_ways
def test_switching_between_equal_multisteps_starts_the_memory_afresh(up):
    field, solver = mixture(PROCESS), sf.Multistep(3, start="rising")
    times, x = grid(PROCESS, 12, up=up), 3 * normal(4, 2)
    switched = states(field, sf.Program((solver, solver), (2.0,)), x, times)
    plain = states(field, solver, x, times)
    same = [torch.equal(a.x, b.x) for a, b in zip(switched, plain, strict=True)]
    above = [float(ratio(PROCESS, t)) > 2.0 for t in times]
    switch = (above.index(True) - 1) if up else above.index(False)
    assert same[: switch + 1] == [True] * (switch + 1)
    assert not any(same[switch + 1 :])
    start = switched[switch]._replace(memory=None)
    first = sf.DDIM().advance(field, start, times[switch + 1]).x
    torch.testing.assert_close(switched[switch + 1].x, first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("solvers", "levels"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_stepped_one_by_one_is_the_program_on_the_grid(solvers, levels):
    field, times = mixture(PROCESS), grid(PROCESS, 9)
    program, x = sf.Program(solvers, levels), 10 * normal(3, 2)
    at = sf.State(x, times[0], silent(3))
    for state, s in zip(states(field, program, x, times)[1:], times[1:], strict=True):
        at = program.advance(field, at, s)
        assert torch.equal(at.x, state.x)


# --- memory --------------------------------------------------------------------------------------

REMEMBERING = [
    sf.Multistep(3),
    sf.unipc(2),
    sf.dpm_solver_pp(2),
    sf.unipc(2, published=True),
    sf.PredictorCorrector(sf.Multistep(3), sf.Langevin(0.05)),
]


@pytest.mark.parametrize("solver", REMEMBERING, ids=label)
def test_a_state_moved_to_another_time_is_stepped_as_from_a_start(solver):
    """What was learned below, and a prediction made for another time, do not count there."""
    field, times, x = mixture(PROCESS), grid(PROCESS, 8), 10 * normal(4, 2)
    at = states(field, solver, x, times[:6])[-1]
    up = times[3] + 0.01
    moved = at._replace(x=PROCESS.diffuse(at.x, at.t, up, normal(4, 2, seed=1)), t=up)
    fresh = moved._replace(memory=None)
    for _ in range(2):
        moved, fresh = (solver.advance(field, one, one.t - 0.02) for one in (moved, fresh))
        assert torch.equal(moved.x, fresh.x)


HANDED = [
    sf.Multistep(3),
    sf.unipc(2),
    sf.Program((sf.Multistep(2),)),
    sf.PredictorCorrector(sf.Multistep(3), sf.Langevin(0.05)),
    sf.Heun(),
    sf.Dopri5(),
]


@pytest.mark.parametrize("second", HANDED, ids=label)
@pytest.mark.parametrize("first", HANDED, ids=label)
def test_a_state_may_be_handed_from_one_solver_to_another(first, second):
    """Each reads its own memory only."""
    field, times, x = mixture(PROCESS), grid(PROCESS, 8), 10 * normal(4, 2)
    at = states(field, first, x, times[:5])[-1]
    onward = list(sf.integrate(field, second, at, times[4:]))[-1]
    if first == second:
        assert torch.equal(onward.x, final(field, first, x, times))
    else:
        afresh = list(sf.integrate(field, second, at._replace(memory=None), times[4:]))[-1]
        assert torch.equal(onward.x, afresh.x)


def test_an_adaptive_run_may_go_on_on_a_grid_and_a_grid_go_on_adaptively():
    field, (top, low) = mixture(PROCESS), (float(time_at(PROCESS, r)) for r in (20.0, 2.0))
    at = sf.State(10 * normal(4, 2), tensor(top)[0], silent(4))
    at = sf.prepare(field, sf.Dopri5(), sf.Adaptive(start=top, end=low))(at)
    times = sf.even_log_snr(PROCESS, 4, start=low, end=0.1)
    for solver in (sf.Multistep(3), sf.unipc(2), sf.Dopri5()):
        *_, onward = sf.integrate(field, solver, at, times)
        *_, last = sf.integrate(field, sf.Dopri5(), onward, sf.Adaptive(start=0.1, end=0.01))
        assert last.x.isfinite().all()


def test_a_move_that_rests_on_earlier_ones_refuses_a_state_without_what_they_left():
    field, times = mixture(PROCESS), grid(PROCESS, 3)
    moves = sf.Multistep(2, start="rising").moves(field, times[:-1], times[1:])
    at = moves[0](sf.State(normal(3, 2), times[0], silent(3)))
    with pytest.raises(ValueError, match="needs 1 earlier estimates and the state has 0"):
        moves[1](at._replace(memory=None))


@every_process
def test_a_step_that_starts_on_a_level_belongs_below_it_however_the_level_is_rounded(process):
    field, times = mixture(process), process.time(-tensor(8.0, 1.0, 0.2).log())
    program = sf.Program([sf.RK4(), sf.Euler()], [1.0])
    with sf.count_calls(field) as calls:
        final(field, program, normal(2, 2), times)
    assert calls.count == 5


# --- batch invariance ----------------------------------------------------------------------------
# every certified solver is in test_sample.py


def sampled(solver, n, seed=3):
    times = sf.even_log_snr(PROCESS, 6)
    return sf.sample(mixture(PROCESS), n, solver, times, seed=seed, batch_size=8)


def test_the_step_from_norms_over_the_batch_makes_a_sample_depend_on_its_neighbours():
    """Why Song's rule is there for comparison only."""
    solver = sf.PredictorCorrector(sf.DDIM(), sf.Langevin(compat=True))
    whole = sampled(solver, 11)
    alone = torch.cat([sampled(solver, [k]) for k in (8, 9, 10)])
    assert (whole[8:] - alone).abs().max() > 1e-3


# --- ancestral -----------------------------------------------------------------------------------


@every_process
@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_ancestral_ddim_has_the_mean_and_the_deviation_of_ddim_with_noise(process, eta):
    field, (t, s) = gaussian(process), grid(process, 1, 1.5, 0.8)
    x, z = process.perturb(MEAN + normal(4, 2), t, normal(4, 2, seed=1)), normal(4, 2, seed=2)
    for noise in (torch.zeros_like(z), z):
        got, expected = (
            solver.advance(field, sf.State(x, t, Fixed(noise)), s).x
            for solver in (sf.Ancestral(sf.DDIM(), eta), sf.DDIM(eta))
        )
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


@every_process
def test_an_ancestral_run_may_end_at_the_data(process):
    """Nothing is below the data: the last step is its base's."""
    field, times = mixture(process), sf.balanced(process, 6, to_data=True)
    before = sf.sample(field, 4, sf.Ancestral(sf.DDIM()), times[:-1], dtype=torch.float64)
    ended = sf.sample(field, 4, sf.Ancestral(sf.DDIM()), times, dtype=torch.float64)
    torch.testing.assert_close(ended, before, rtol=1e-9, atol=1e-9)


def test_an_ancestral_step_goes_below_its_end_and_not_below_the_process():
    field, base = mixture(sf.EDM(t_min=0.1)), sf.Heun()
    x, solver = normal(3, 2), sf.Ancestral(base)
    at, (s, last) = sf.State(x, tensor(2.0)[0], silent(3)), tensor(1.0, 0.1)
    seen = [time for time, _ in calls_of(field, lambda: solver.advance(field, at, s))]
    assert seen == pytest.approx([2.0, math.sqrt(1.0 - 1.0 * (4.0 - 1.0) / 4.0)])
    ended = solver.advance(field, at, last).x
    torch.testing.assert_close(ended, base.advance(field, at, last).x, rtol=1e-12, atol=1e-12)


# --- churn ---------------------------------------------------------------------------------------


@every_process
def test_churn_by_nothing_is_its_base_bit_for_bit(process):
    field, times, x = mixture(process), grid(process, 5, 5.0), normal(4, 2)
    churned = final(field, sf.Churn(sf.Heun(), churn=0.0, steps=5), x, times)
    assert torch.equal(churned, final(field, sf.Heun(), x, times))


@every_process
@pytest.mark.parametrize("churn", [1.0, 30.0])
def test_churn_raises_the_noise_by_its_factor_inside_the_window_only(process, churn):
    """The field is first called where the noise has come to; EDM's factor has a ceiling."""
    field, times, x = mixture(process), grid(process, 6, 10.0), normal(4, 2)
    solver = sf.Churn(sf.DDIM(), churn, 6, window=(0.7, 4.0))
    z = normal(4, 2, seed=1)
    path = states(field, solver, x, times, Fixed(z))
    seen = calls_of(field, lambda: states(field, solver, x, times, Fixed(z)))
    factor, inside = 1 + min(churn / 6, math.sqrt(2) - 1), 0
    for (called, point), at in zip(seen, path[:-1], strict=True):
        level, raised = float(ratio(process, at.t)), tensor(called)[0]
        within = 0.7 <= level <= 4.0
        inside += within
        expected = level * (factor if within else 1.0)
        assert float(ratio(process, raised)) == pytest.approx(expected, rel=1e-6)
        noised = process.diffuse(at.x, at.t, torch.maximum(raised, at.t), z)
        torch.testing.assert_close(point, noised, rtol=1e-9, atol=1e-9)
    assert 0 < inside < len(seen), "the window begins and ends inside the grid"


@every_process
def test_churn_does_not_raise_the_noise_beyond_the_process(process):
    field, top = mixture(process), tensor(process.t_max)[0]
    s, solver = time_at(process, 1.0), sf.Churn(sf.DDIM(), 10.0, 1)
    for t in (top, time_at(process, float(ratio(process, top)) / 1.1)):
        at = sf.State(normal(3, 2), t, silent(3))
        ((called, _),) = calls_of(field, lambda at=at: solver.advance(field, at, s))
        assert called == pytest.approx(process.t_max, rel=1e-6)


@every_process
def test_churn_draws_the_same_noise_for_times_of_each_sample(process):
    """Outside the window, where it adds none, a step still counts as a draw."""
    field, times, x = mixture(process), grid(process, 6, 10.0), normal(4, 2)
    solver = sf.Churn(sf.DDIM(), 5.0, 6, window=(0.7, 4.0))
    together = sf.State(x, times[0], silent(4))
    apart = together._replace(t=times[0].repeat(4))
    for s in times[1:]:
        together = solver.advance(field, together, s)
        apart = solver.advance(field, apart, s.repeat(4))
        torch.testing.assert_close(apart.x, together.x, rtol=1e-12, atol=1e-12)


def test_a_run_with_churn_is_algorithm_2_of_karras_et_al():
    process, count = sf.EDM(), 8
    field, times = mixture(process), sf.karras(process, count, start=20.0, end=0.05)
    x, churn, low, high, scale = 20 * normal(4, 2), 4.0, 0.3, 9.0, 1.05
    got = final(field, sf.Churn(sf.Heun(), churn, count, (low, high), scale), x, times, silent(4))
    noise = silent(4)
    for t, s in itertools.pairwise(times):
        gamma = min(churn / count, math.sqrt(2) - 1) if low <= t <= high else 0.0
        raised = t + gamma * t
        z, noise = noise.normal(x)
        if gamma:
            x = x + (raised**2 - t**2).sqrt() * scale * z
        slope = (x - field(x, raised).x0) / raised
        ahead = x + (s - raised) * slope
        x = x + (s - raised) * (0.5 * slope + 0.5 * (ahead - field(ahead, s).x0) / s)
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


@every_process
def test_the_scale_multiplies_the_deviation_of_churn(process):
    field, (t, s), x = mixture(process), grid(process, 1, 2.0, 1.0), normal(4, 2)
    moved = []
    for scale in (1.0, 1.3):
        solver = sf.Churn(sf.DDIM(), 0.2, 1, scale=scale)
        points = [
            calls_of(field, lambda z=z, v=solver: v.advance(field, sf.State(x, t, Fixed(z)), s))[0][
                1
            ]
            for z in (torch.zeros_like(x), torch.ones_like(x))
        ]
        moved.append(points[1] - points[0])
    torch.testing.assert_close(moved[1], 1.3 * moved[0], rtol=1e-9, atol=0)


# --- restart, and the marginals ------------------------------------------------------------------

KEEPERS = [
    sf.Churn(sf.RK4(), 6.0, 24),
    sf.Ancestral(sf.RK4()),
    sf.Ancestral(sf.RK4(), 0.5),
    sf.Restart(sf.RK4(), low=0.6, high=2.0, repeats=3, steps=8),
]


@every_process
@pytest.mark.parametrize("solver", KEEPERS, ids=label)
def test_noise_around_nearly_exact_steps_keeps_the_law(process, solver):
    field, times = gaussian(process), grid(process, 24, 4.0, 0.5)
    mean, covariance = affine_moments(field, solver, times)
    exact_mean, exact_covariance = law_at(process, times[-1])
    scale = float(exact_covariance.norm())
    assert (mean - exact_mean).norm() < 1e-3 * scale**0.5
    assert (covariance - exact_covariance).norm() < 1e-3 * scale


def test_churn_with_louder_noise_widens_the_law():
    field, times = gaussian(PROCESS), grid(PROCESS, 24, 4.0, 0.5)
    exact = law_at(PROCESS, times[-1])[1]
    for scale, sign in ((1.2, 1), (0.8, -1)):
        _, covariance = affine_moments(field, sf.Churn(sf.RK4(), 6.0, 24, scale=scale), times)
        assert sign * float((covariance - exact).trace()) > 0.02 * float(exact.trace())


@pytest.mark.parametrize("base", [sf.DDIM(), sf.Heun(), sf.Singlestep(3)], ids=label)
@pytest.mark.parametrize("low", [0.31, 0.6, 1.9])
def test_a_restart_costs_its_repeats_and_steps_once_a_run(base, low):
    field, times = mixture(PROCESS), grid(PROCESS, 10)
    solver = sf.Restart(base, low=low, high=4.0, repeats=3, steps=5)
    with sf.count_calls(field) as calls:
        final(field, solver, normal(2, 2), times)
    assert calls.count == (10 + 3 * 5) * base.calls


def test_a_restart_comes_where_a_step_ends_on_its_level_and_nowhere_else():
    field, base = mixture(PROCESS), sf.DDIM()
    times, x = grid(PROCESS, 10), normal(2, 2)
    level = float(ratio(PROCESS, times[6]))
    solver = sf.Restart(base, low=level, high=4.0, repeats=1, steps=2)
    runs = {"down to it": (times[:7], 6 + 2), "past it": (times, 10 + 2)}
    runs |= {"above it": (times[:6], 5), "from it on": (times[6:], 4)}
    for name, (stretch, expected) in runs.items():
        seen = calls_of(field, lambda u=stretch: states(field, solver, x, u))
        assert len(seen) == expected, name
    at_once = states(field, solver, x, times)
    assert torch.equal(at_once[5].x, states(field, base, x, times)[5].x)
    assert not torch.equal(at_once[6].x, states(field, base, x, times)[6].x)


def test_a_restart_begins_each_way_down_at_its_high_level():
    process = sf.EDM()
    field, times = mixture(process), tensor(3.0, 0.5, 0.2)
    solver = sf.Restart(sf.DDIM(), low=0.5, high=2.0, repeats=2, steps=2)
    seen = [time for time, _ in calls_of(field, lambda: states(field, solver, normal(2, 2), times))]
    assert seen == pytest.approx([3.0, 2.0, 1.0, 2.0, 1.0, 0.5])


# --- Langevin ------------------------------------------------------------------------------------


@every_process
def test_a_langevin_move_is_its_formula_and_keeps_the_time(process):
    field, t, r = gaussian(process), time_at(process, 1.3), 0.3
    x, z = normal(4, 2), normal(4, 2, seed=1)
    alpha, sigma = process.coefficients(t)
    delta = 2 * alpha * (r * sigma) ** 2
    out = sf.Langevin(r, 2).advance(field, sf.State(x, t, Fixed(z)), t)
    for _ in range(2):
        x = x + delta * field(x, t).score + (2 * delta).sqrt() * z
    torch.testing.assert_close(out.x, x, rtol=1e-10, atol=1e-10)
    assert torch.equal(out.t, t)


@every_process
@pytest.mark.parametrize("r", [0.16, 0.5])
def test_many_langevin_moves_settle_at_a_variance_that_is_too_wide_by_the_known_factor(process, r):
    variance = 0.7
    field, t = sf.Gaussian(process, tensor(0.0), tensor(variance)[None]), time_at(process, 0.8)
    points, z = tensor(0.0, 1.0, 0.0)[:, None], tensor(0.0, 0.0, 1.0)[:, None]
    zero, one, noise = (
        sf.Langevin(r).advance(field, sf.State(points, t, Fixed(z)), t).x[:, 0].tolist()
    )
    settled = 0.0
    for _ in range(4000):
        settled = (one - zero) ** 2 * settled + (noise - zero) ** 2
    alpha, sigma = (float(c) for c in process.coefficients(t))
    exact, delta = alpha**2 * variance + sigma**2, 2 * alpha * (r * sigma) ** 2
    assert settled == pytest.approx(exact / (1 - delta / (2 * exact)), rel=1e-9)


def test_steps_from_the_norms_of_one_sample_give_another_law_in_low_dimension():
    """In one dimension ``|z| / |score|`` has no bound: small scores throw the sample far out.

    One move from the exact law, by the midpoints of 30 x 30 equally likely cells of ``x`` and z.
    """
    field, t = sf.Gaussian(PROCESS, tensor(0.0), tensor(1.0)[None]), time_at(PROCESS, 1.0)
    std = float((PROCESS.alpha(t) ** 2 + PROCESS.sigma(t) ** 2).sqrt())
    cells = torch.special.ndtri((torch.arange(30, dtype=torch.float64) + 0.5) / 30)[:, None, None]
    far = {}
    for compat in (False, True):
        (move,) = sf.Langevin(0.5, compat=compat).moves(field, t[None], t[None])
        ends = [move(sf.State(std * x, t, Fixed(z))).x for x in cells for z in cells]
        far[compat] = float((torch.cat(ends).abs() > 3 * std).double().mean())
    assert far[False] < 0.01
    assert far[True] > 0.05


KEPT = [
    sf.DDIM(),
    sf.Multistep(2),
    sf.Multistep(2, eta=1.0),
    sf.Multistep(3, start="rising"),
    sf.Multistep(4, sf.DataPrediction(), start="rising"),
    sf.Multistep(3, corrector=True, start="rising"),
]


@pytest.mark.parametrize("predictor", KEPT, ids=label)
def test_a_predictor_keeps_its_memory_across_moves_that_hardly_move(predictor):
    field, times, x = mixture(PROCESS), grid(PROCESS, 10), 20 * normal(4, 2)
    plain = final(field, predictor, x, times)
    corrected = final(field, sf.PredictorCorrector(predictor, sf.Langevin(1e-9)), x, times)
    torch.testing.assert_close(corrected, plain, rtol=1e-6, atol=1e-6)
    if predictor.history_length:
        lost = states(field, predictor, x, times[:2])[-1]
        for s in times[2:]:
            lost = predictor.advance(field, lost._replace(memory=None), s)
        assert (lost.x - plain).abs().max() > 1e-4, "the memory matters here"


def test_annealed_langevin_holds_the_data_part_and_then_moves_at_each_level():
    field, times, x = mixture(PROCESS), grid(PROCESS, 3), 20 * normal(4, 2)
    solver, noise = sf.annealed_langevin(0.2, 3), silent(4)
    got = final(field, solver, x, times, noise)
    for t, s in itertools.pairwise(times):
        x = PROCESS.alpha(s) / PROCESS.alpha(t) * x
        delta = 2 * PROCESS.alpha(s) * (0.2 * PROCESS.sigma(s)) ** 2
        for _ in range(3):
            z, noise = noise.normal(x)
            x = x + delta * field(x, s).score + (2 * delta).sqrt() * z
    torch.testing.assert_close(got, x, rtol=1e-10, atol=1e-10)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "around",
    [
        lambda base: sf.Churn(base, 1.0, 10),
        sf.Ancestral,
        lambda base: sf.Restart(base, low=0.5, high=1.0),
    ],
    ids=["Churn", "Ancestral", "Restart"],
)
@pytest.mark.parametrize(
    ("base", "why"),
    [
        (sf.Multistep(2), "uses earlier steps"),
        (sf.unipc(2), "uses earlier steps"),
        (sf.DDIM(1.0), "adds noise itself"),
        (sf.StochasticHeun(), "adds noise itself"),
    ],
    ids=["Multistep", "UniPC", "DDIM(1)", "StochasticHeun"],
)
def test_a_base_with_memory_or_noise_is_refused_and_a_single_step_named(around, base, why):
    with pytest.raises(ValueError, match=rf"{why}; use a single step of the ODE, such as DDIM\(\)"):
        around(base)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sf.Program((sf.DDIM(), sf.Heun())), "solvers need one level fewer"),
        (lambda: sf.Program((sf.DDIM(),), (1.0,)), "solvers need one level fewer"),
        (lambda: sf.Program(()), "solvers need one level fewer"),
        (lambda: sf.Program((sf.DDIM(),) * 3, (1.0, 2.0)), "give falling values of sigma/alpha"),
        (lambda: sf.Program((sf.DDIM(),) * 3, (1.0, 1.0)), "give falling values of sigma/alpha"),
        (lambda: sf.Program((sf.DDIM(),) * 2, (0.0,)), "give falling values of sigma/alpha"),
        (lambda: sf.Program((sf.DDIM(),) * 2, (math.nan,)), "give falling values of sigma/alpha"),
        (lambda: sf.Ancestral(sf.DDIM(), 1.5), r"eta=1.5: give a number above 0, up to 1"),
        (lambda: sf.Ancestral(sf.DDIM(), -0.5), r"eta=-0.5: give a number above 0"),
        (lambda: sf.Ancestral(sf.DDIM(), math.nan), r"eta=nan: give a number above 0"),
        (lambda: sf.Churn(sf.Heun(), -1.0, 5), "needs churn >= 0"),
        (lambda: sf.Churn(sf.Heun(), math.inf, 5), "needs churn >= 0"),
        (lambda: sf.Churn(sf.Heun(), 1.0, 0), "steps=0: must be a whole number"),
        (lambda: sf.Churn(sf.Heun(), 1.0, 5, scale=0.0), "scale=0: must be a positive number"),
        (lambda: sf.Churn(sf.Heun(), 1.0, 5, (2.0, 1.0)), "give two levels with 0 <= low < high"),
        (lambda: sf.Churn(sf.Heun(), 1.0, 5, (-1.0, 1.0)), "give two levels with 0 <= low < high"),
        (lambda: sf.Restart(sf.Heun(), 0.0, 1.0), "low=0: must be a positive number"),
        (lambda: sf.Restart(sf.Heun(), 2.0, 1.0), "needs low < high"),
        (lambda: sf.Restart(sf.Heun(), 0.5, 1.0, repeats=-1), "repeats=-1: must be a whole number"),
        (lambda: sf.Restart(sf.Heun(), 0.5, 1.0, steps=0), "steps=0: must be a whole number"),
        (lambda: sf.Langevin(0.0), "snr=0: must be a positive number"),
        (lambda: sf.Langevin(math.nan), "snr=nan: must be a positive number"),
        (lambda: sf.Langevin(0.1, 0), "moves_per_step=0: must be a whole number"),
        (lambda: sf.Churn(sf.Heun(), 1.0, 5, (1.0,)), "give two levels with 0 <= low < high"),
        (lambda: sf.Restart(sf.Heun(), 0.5, 1.0, steps=10**9), "steps=10{9}: must be at most 100,"),
        (lambda: sf.Restart(sf.Heun(), 0.5, 1.0, 10**4, 10**4), "repeats . steps=10{8}: must be"),
        (lambda: sf.Langevin(0.1, 10**9), "moves_per_step=10{9}: must be at most 100,000"),
        (
            lambda: sf.Plan.decoded(
                sf.Plan(sf.annealed_langevin(0.1, 10**4), torch.linspace(0.9, 0.1, 101)).encoded()
            ),
            "calls=10{6}: must be at most 100,000",
        ),
    ],
)
def test_numbers_out_of_range_are_refused_and_the_range_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "solver",
    [
        sf.Churn(sf.Heun(), 1.0, 5),
        sf.Ancestral(sf.Heun()),
        sf.Restart(sf.Heun(), 0.5, 1.0),
        sf.ReverseDiffusion(),
        sf.dpm_solver_pp(2, sde=True),
    ],
    ids=label,
)
def test_a_step_towards_noise_is_refused_and_what_goes_there_named(solver):
    at = sf.State(normal(2, 2), tensor(0.2)[0], silent(2))
    with pytest.raises(ValueError, match=r"use a solver of the ODE, or process\.diffuse"):
        solver.advance(mixture(PROCESS), at, tensor(0.4)[0])


def test_a_langevin_move_to_another_time_is_refused_and_the_combination_named():
    at = sf.State(normal(2, 2), tensor(0.4)[0], silent(2))
    with pytest.raises(ValueError, match=r"as in PredictorCorrector\(DDIM\(\), Langevin\(\)\)"):
        sf.Langevin().advance(mixture(PROCESS), at, tensor(0.3)[0])


@pytest.mark.parametrize(
    "solver",
    [sf.Program((sf.DDIM(), sf.Heun()), (1.0,)), sf.Restart(sf.DDIM(), low=1.0, high=2.0)],
    ids=["Program", "Restart"],
)
def test_what_depends_on_a_level_refuses_times_of_each_sample_and_asks_for_a_grid(solver):
    t, s = (time_at(PROCESS, r).expand(2, 1) for r in (1.5, 0.5))
    at = sf.State(normal(2, 2), t, silent(2))
    with pytest.raises(ValueError, match="give a grid"):
        solver.advance(mixture(PROCESS), at, s)


def test_a_restart_from_beyond_the_process_is_refused_before_any_call():
    field = mixture(sf.EDM(t_max=10.0))
    solver = sf.Restart(sf.Heun(), low=0.5, high=20.0)
    with (
        sf.count_calls(field) as calls,
        pytest.raises(ValueError, match="high=20: Restart goes up to that level"),
    ):
        sf.sample(field, 2, solver, tensor(5.0, 1.0, 0.1))
    assert calls.count == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: sf.PredictorCorrector(sf.DDIM(), sf.Heun()),
            "corrector=Heun.*give one that changes x in place",
        ),
        (
            lambda: sf.PredictorCorrector(sf.DDIM, sf.Langevin()),
            "predictor=DDIM: must be an instance",
        ),
        (lambda: sf.Program((sf.Heun,)), r"solvers\[0\]=Heun: must be an instance"),
        (lambda: sf.Churn(sf.Heun, 1.0, 10), "base=Heun: must be an instance"),
        (lambda: sf.Ancestral(Hold()), "needs a base that solves the ODE"),
    ],
)
def test_what_is_no_solver_or_does_not_solve_is_refused_in_the_place_of_one(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_program_of_correctors_is_a_corrector():
    """Moves of one size above a level of noise, of another below it."""
    field, times, x = mixture(PROCESS), grid(PROCESS, 6, 4.0, 0.3), 4 * normal(4, 2)
    sizes = sf.Program((sf.Langevin(0.2), sf.Langevin(0.05)), (1.0,))
    got = final(field, sf.PredictorCorrector(sf.DDIM(), sizes), x, times)
    at = sf.State(x, times[0], silent(4))
    for s in times[1:]:
        r = 0.2 if float(ratio(PROCESS, s)) > 1 else 0.05
        at = sf.PredictorCorrector(sf.DDIM(), sf.Langevin(r)).advance(field, at, s)
    assert torch.equal(got, at.x)


def test_a_program_of_lists_is_a_program():
    assert sf.Program([sf.Heun(), sf.DDIM()], [1.0]) == sf.Program((sf.Heun(), sf.DDIM()), (1.0,))


def test_langevin_is_stable_where_alpha_is_large():
    """A step that grew with alpha would leave narrow data at a hundred times its width."""
    process = sf.LinearSDE(lambda t: 5 + 0 * t, lambda t: 1 + 0 * t, t_min=1e-3)
    narrow = 1e-4 * torch.eye(2, dtype=torch.float64)
    field = sf.Gaussian(process, torch.zeros(2), narrow)
    times = sf.uniform(process, 20)
    begin = sf.prior(field, 500, dtype=torch.float64)
    solver = sf.PredictorCorrector(sf.DDIM(), sf.Langevin())
    for at in sf.integrate(field, solver, begin, times):
        alpha, sigma = process.coefficients(at.t)
        assert float(at.x.std() / (1e-4 * alpha**2 + sigma**2).sqrt()) < 1.3
