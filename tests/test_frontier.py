"""The measured frontier: errors, intervals and choices against exact paths and exact laws."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from cases import normal
from PIL import Image
from torch import nn

import scorefield as sf
from scorefield.evaluate.metrics import C2ST, EnergyDistance, FrechetDistance, Measurement, compare
from scorefield.networks import MLP
from scorefield.report import frontier_chart
from scorefield.sampling import Plan
from scorefield.tuning.frontier import Frontier, Point, frontier, measure

PROCESS = sf.VP(t_min=1e-8)
VARIANCE = 0.3


def bump(dim=1):
    return sf.Gaussian(PROCESS, torch.zeros(dim), VARIANCE * torch.eye(dim))


def two():
    means = torch.tensor([[-1.0], [0.8]]).double()
    return sf.Mixture(PROCESS, torch.tensor([1.0, 2.0]), means, torch.full((2, 1, 1), 0.05))


def ddim(field, steps):
    return Plan(sf.DDIM(), sf.balanced(field.process, steps, data_std=field.data_std))


def gain(plan):
    """The number by which DDIM multiplies a standard normal start, on `bump`, by its formula."""
    alpha, sigma = (c.tolist() for c in PROCESS.coefficients(plan.times))
    x = math.sqrt(alpha[0] ** 2 * VARIANCE + sigma[0] ** 2)
    for k, (a, s) in enumerate(zip(alpha, sigma, strict=True)):
        x0, eps = (c * x / (a**2 * VARIANCE + s**2) for c in (a * VARIANCE, s))
        x = x0 if k + 1 == len(alpha) else alpha[k + 1] * x0 + sigma[k + 1] * eps
    return x


def quantile(field, share):
    """Return where one-dimensional data has these shares below, by bisection."""
    low, high = torch.full_like(share, -9.0), torch.full_like(share, 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = cdf(field, middle, 1.0, 0.0) < share
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


def cdf(field, x, alpha, sigma):
    std = (alpha**2 * field.covariances[:, 0, 0] + sigma**2).sqrt()
    return torch.special.ndtr((x[:, None] - alpha * field.means[:, 0]) / std) @ field.weights


@pytest.fixture
def quick(monkeypatch):
    """Paths of few steps, where what is measured is far above what that costs."""
    monkeypatch.setattr(measure, "NODES", 48)


# errors


@pytest.mark.parametrize("dim", [1, 5])
def test_the_error_of_a_linear_path_is_that_of_its_formula(dim):
    """Noise z ends at gain z and its path at root(v) z, so the error is a mean of lengths of z."""
    field, seed, n = bump(dim), 3, 40
    plan = ddim(field, 6)
    found = frontier(field, {"ddim": plan}, n=n, seed=seed, batch_size=16)
    z = sf.Noise(seed, torch.arange(n)).draw((dim,), torch.empty(0))[0].double()
    off = abs(gain(plan) - math.sqrt(VARIANCE)) * z.norm(dim=1) / math.sqrt(dim)
    error = found.points[0].error
    assert error.value == pytest.approx(float(off.mean()), rel=1e-3)
    assert error.stderr == pytest.approx(float(off.std()) / math.sqrt(n), rel=1e-3)
    assert error.low < error.value - error.stderr < error.value + error.stderr < error.high
    assert found.teacher < 1e-2 * error.value


def test_errors_are_distances_from_the_exact_paths_of_a_mixture():
    """In one dimension the flow keeps the share of the law that lies below."""
    field, seed, n = two(), 1, 200
    plans = {"default": sf.default_plan(field, 6), "heun": Plan(sf.Heun(), sf.karras(PROCESS, 9))}
    found = frontier(field, plans, n=n, seed=seed)
    z = sf.Noise(seed, torch.arange(n)).draw((1,), torch.empty(0))[0].double()
    last = torch.tensor(PROCESS.t_max).double()
    alpha, sigma = PROCESS.coefficients(last)
    start = PROCESS.prior(field.mean, field.variance, last).draw(z)[:, 0]
    end = quantile(field, cdf(field, start, alpha, sigma))
    for point in found.points:
        gaps = (sf.sample(field, n, point.plan, seed=seed)[:, 0].double() - end).abs()
        assert point.error.value == pytest.approx(float(gaps.mean()), abs=2 * found.teacher + 1e-5)
        assert point.error.value > 20 * found.teacher


def test_intervals_of_skewed_distances_are_as_sure_on_both_sides():
    """Of the exponential law, whose mean is 1 and whose skewness is 2; Student's are not."""
    draws = -uniform(4000, 64).log()
    student = draws.mean(1) + 1.998 * draws.std(1) / 8
    assert int((student < 1).sum()) > 160
    found = [Measurement.of_mean(values, 0.95) for values in draws]
    assert 70 <= sum(e.high < 1 for e in found) <= 135, "of 100 in the mean"
    assert 70 <= sum(e.low > 1 for e in found) <= 135
    mirrored = [Measurement.of_mean(2 - values, 0.95) for values in draws[:20]]
    for one, other in zip(found, mirrored, strict=False):
        assert other.low == pytest.approx(2 - one.high)
    assert Measurement.of_mean(torch.full((9,), 0.5), 0.95) == Measurement(0.5, 0.0, 0.5, 0.5)


def test_an_interval_allows_for_values_that_are_too_rare_to_be_found():
    """Of the law with the tail 1 / x, from 1 to 1000: half its mean is of one value in 32."""
    most, p = 1000.0, uniform(500, 256).double()
    draws = 1 / (1 - p * (1 - 1 / most))
    mean = math.log(most) / (1 - 1 / most)
    plain = [Measurement.of_mean(values, 0.95) for values in draws]
    bounded = [Measurement.of_mean(values, 0.95, largest=most) for values in draws]
    low, high = (sum(e.high < mean for e in found) for found in (bounded, plain))
    assert low <= 12 < 30 < high, "of 13 in the mean"
    assert sum(e.low > mean for e in bounded) <= 12
    assert all(b.low <= p.low and b.high >= p.high for b, p in zip(bounded, plain, strict=True))


def uniform(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_intervals_hold_the_exact_error_and_picks_are_sure(quick):
    """E|z| is root(2 / pi). A tolerance that is the plan's very error is met by half of all means.

    The upper bound is within it once in 40.
    """
    field, plan = bump(), ddim(bump(), 4)
    exact = abs(gain(plan) - math.sqrt(VARIANCE)) * math.sqrt(2 / math.pi)
    held = below = sure = 0
    for seed in range(100):
        found = frontier(field, {"ddim": plan}, n=64, seed=seed)
        error = found.points[0].error
        held += error.low <= exact <= error.high
        below += error.value <= exact
        sure += picks(found, exact)
        assert picks(found, 2 * exact)
    assert held >= 88, "of 95 in the mean"
    assert 30 <= below <= 70
    assert sure <= 8, "of 2.5 in the mean"


def picks(found, tolerance):
    try:
        return found.within(tolerance) is found.points[0]
    except ValueError:
        return False


def test_the_cheapest_plan_that_is_sure_is_picked(quick):
    field = bump(4)
    plans = [ddim(field, steps) for steps in (24, 3, 12, 6)]
    chi = math.sqrt(2) * math.gamma(2.5) / math.gamma(2) / 2
    exact = [abs(gain(plan) - math.sqrt(VARIANCE)) * chi for plan in plans]
    found = frontier(field, {"ddim": plans}, n=256)
    for plan, error in zip(plans, exact, strict=True):
        assert found.within(1.3 * error).plan is plan
    with pytest.raises(
        ValueError,
        match=r"no plan has an error surely below it. The nearest, ddim of 25 calls, has at most",
    ):
        found.within(0.9 * exact[0])


# costs


def test_every_call_is_counted_the_last_one_too(quick):
    field = two()
    heun = Plan(sf.Heun(), sf.balanced(PROCESS, 4))
    adaptive = Plan(sf.Dopri5(), sf.Adaptive(1e-2, 1e-2))
    found = frontier(field, {"heun": heun, "dopri5": adaptive}, n=40, batch_size=16)
    assert found.points[0].nfe == 9, "four steps of two, and the denoiser"
    with sf.count_calls(field) as calls:
        for ids in (range(16), range(16, 32), range(32, 40)):
            sf.sample(field, ids, adaptive, batch_size=16)
    assert found.points[1].nfe == calls.count / 3


def test_the_time_is_the_median_of_the_batches_that_follow_the_first(monkeypatch):
    seconds = [99.0, 0.4, 0.1, 0.3, 7.0]
    moments = itertools.accumulate(x for duration in seconds for x in (1.0, duration))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(moments))
    noisy = Plan(sf.EulerMaruyama(), sf.balanced(PROCESS, 2))
    found = frontier(bump(), {"sde": noisy}, n=80, batch_size=16)
    assert found.points[0].milliseconds == pytest.approx(1e3 * 0.35 / 16)


# distances


def drawn(field, count, seed):
    u = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return field.data(normal(count, *field.shape, seed=seed), u).float()


def test_an_exact_plan_has_the_floor_and_a_poor_one_is_above(quick):
    field = bump(3)
    plans = {"default": sf.default_plan(field, 20), "ddim": ddim(field, 1),
             "sde": Plan(sf.EulerMaruyama(eta=1.0), sf.balanced(PROCESS, 60))}  # fmt: skip
    real, other = drawn(field, 400, 1), drawn(field, 400, 2)
    found = frontier(field, plans, real=real, other=other, n=300, seed=4)
    good, poor, sde = found.points
    assert poor.excesses["sliced_wasserstein"].low > 0
    for name in ("sliced_wasserstein", "energy_distance", "c2st_accuracy"):
        assert good.excesses[name].low < 0 < good.excesses[name].high
        assert sde.excesses[name].low < 0 < sde.excesses[name].high
    assert (good.stochastic, poor.stochastic, sde.stochastic) == (False, False, True)
    assert sde.error is None
    told = compare(sf.sample(field, 300, plans["sde"], seed=4), real, other=other,
                   metrics=measure.METRICS, seed=4)  # fmt: skip
    assert (sde.values, sde.excesses, found.floors) == (told.values, told.excesses, told.floors)
    assert (found.n, found.m, found.dim) == (300, 400, 3)


def test_metrics_see_the_features_of_all_samples(quick):
    field, plan = bump(3), ddim(bump(3), 4)
    real, other = drawn(field, 64, 1), drawn(field, 64, 2)
    metrics = (FrechetDistance(),)
    found = frontier(field, {"ddim": plan}, real=real, other=other, n=64, metrics=metrics,
                     features=lambda x: x[:, :2] ** 2)  # fmt: skip
    x = sf.sample(field, 64, plan)
    told = compare(x[:, :2] ** 2, real[:, :2] ** 2, other=other[:, :2] ** 2, metrics=metrics)
    assert found.points[0].values == told.values
    assert found.floors == told.floors


# choosing


def estimate(value, half=0.1):
    return Measurement(value, half / 2, value - half, value + half)


def point(name, nfe, milliseconds, error=None, value=None):
    solver = sf.DDIM() if error else sf.EulerMaruyama(eta=1.0)
    values = {} if value is None else {"energy_distance": estimate(value)}
    error = None if error is None else estimate(error)
    return Point(name, Plan(solver, sf.uniform(PROCESS, 2)), nfe, milliseconds, error, values, {})


def made(*points, teacher=1e-3):
    return Frontier("f" * 64, "p" * 64, 64, 0, 1, 0.95, 0, 64, "here", teacher, {}, points)


def test_the_best_plan_for_a_time_is_the_one_of_least_error():
    slow, fast, mid, noisy = (point("slow", 9, 5, 0.2), point("fast", 3, 1, 0.9),
                              point("mid", 6, 2, 0.4), point("noisy", 3, 1, None, 0.1))  # fmt: skip
    found = made(slow, fast, mid, noisy)
    assert found.for_time(5) is slow
    assert found.for_time(4.9) is mid
    assert found.for_time(1) is fast
    with pytest.raises(ValueError, match=r"0\.9: .* fastest, fast of 3 calls, takes 1 ms"):
        found.for_time(0.9)


def test_where_no_plan_follows_a_path_the_first_metric_tells():
    good, poor = point("good", 9, 2, None, 0.1), point("poor", 3, 1, None, 0.7)
    found = made(poor, good, teacher=None)
    assert found.for_time(2) is good
    assert found.for_time(1) is poor
    with pytest.raises(ValueError, match="no plan was measured against exact paths"):
        found.within(1.0)
    with pytest.raises(ValueError, match="no plan has an error or a metric"):
        made(point("bare", 1, 1), teacher=None).for_time(1)


def test_of_plans_with_as_many_calls_the_fastest_is_taken():
    one, two = point("one", 4, 2, 0.2), point("two", 4, 1, 0.3)
    assert made(one, two).within(0.402) is two
    assert made(one, two).within(0.4005) is one, "the paths themselves are known to 0.001"
    assert made(one, two).within(0.35) is one
    with pytest.raises(ValueError, match=r"above the error of the exact paths, 0\.001"):
        made(one).within(1e-4)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_tolerance_or_time_is_refused(bad):
    found = made(point("one", 4, 2, 0.2))
    for choose in (found.within, found.for_time):
        with pytest.raises(ValueError, match="must be a positive number"):
            choose(bad)


# files


def denoiser(seed=0):
    torch.manual_seed(seed)
    return sf.Denoiser(MLP(2, width=8, depth=1), sf.VP(), sf.V(), shape=(2,)).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    field, path = denoiser(), tmp_path_factory.mktemp("frontier") / "frontier.json"
    plans = {"default": [sf.default_plan(field, k) for k in (3, 6)],
             "dopri5": Plan(sf.Dopri5(), sf.Adaptive(0.1, 0.1)),
             "pc": Plan(sf.PredictorCorrector(sf.ReverseDiffusion(), sf.Langevin()),
                        sf.balanced(field.process, 3))}  # fmt: skip
    real, other = normal(40, 2, seed=1), normal(40, 2, seed=2)
    found = frontier(field, plans, real=real, other=other, n=32, metrics=[EnergyDistance()])
    found.save(path)
    return field, found, path


def test_a_frontier_comes_back_bit_for_bit(saved, tmp_path):
    field, found, path = saved
    back = Frontier.load(path)
    back.check(field)
    facts = [f.name for f in dataclasses.fields(Frontier) if f.name != "points"]
    assert all(getattr(back, name) == getattr(found, name) for name in facts)
    for one, other in zip(back.points, found.points, strict=True):
        assert (one.name, one.nfe, one.milliseconds) == (other.name, other.nfe, other.milliseconds)
        assert (one.error, one.values, one.excesses) == (other.error, other.values, other.excesses)
        assert one.plan.solver == other.plan.solver
        assert torch.equal(sf.sample(field, 3, one.plan), sf.sample(field, 3, other.plan))
    back.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_frontier_is_printed_as_a_table(saved):
    _, found, _ = saved
    heading, *rows, floor, note = str(found).splitlines()
    assert heading.split() == ["plan", "NFE", "ms", "error", "energy", "distance"]
    assert {len(row) for row in (*rows, floor)} == {len(heading)}
    assert len(rows) == len(found.points)
    for row, point in zip(rows, found.points, strict=True):
        energy = point.values["energy_distance"]
        assert row.startswith(f"{point.name} ")
        assert f" {point.error or '-'}  " in row
        value, _, half = row.split()[-3:]
        assert float(value) == pytest.approx(energy.value, abs=10.0 ** (2 - len(half)))
        assert float(half) == pytest.approx((energy.high - energy.low) / 2, rel=0.06)
    assert floor.startswith("data itself ")
    assert note.startswith("32 samples of each from the same noises, against 40 items")


def test_the_plans_in_it_are_those_that_plans_are_saved_as(saved, tmp_path):
    _, found, path = saved
    for held, one in zip(json.loads(path.read_text())["points"], found.points, strict=True):
        one.plan.save(tmp_path / "plan.json")
        whole = {"scorefield-plan": 1, **held["plan"]}
        assert whole == json.loads((tmp_path / "plan.json").read_text())
        assert held["solver"] == repr(one.plan.solver)
        assert held["stochastic"] == (one.name == "pc")


def test_another_field_is_refused_with_both_digests(saved):
    found = saved[1]
    with pytest.raises(ValueError, match=f"{found.field[:12]}.*other weights"):
        found.check(denoiser(1))
    found.check(denoiser().condition_on(y=1))
    with pytest.raises(ValueError, match="the plans were measured on the process"):
        found.check(denoiser().under(sf.Flow(t_min=0.01, t_max=0.99)))


def broken(change):
    def make(held):
        change(held)
        return json.dumps(held)

    return make


@pytest.mark.parametrize(
    "text",
    [
        lambda held: "",
        lambda held: "[]",
        lambda held: "{}",
        lambda held: '{"scorefield-frontier": 1}',
        lambda held: "[" * 100_000,
        lambda held: json.dumps(held)[:-9],
        broken(lambda held: held.update({"scorefield-frontier": 2})),
        broken(lambda held: held.update(more=1)),
        broken(lambda held: held.pop("batch_size")),
        broken(lambda held: held.update(n="64")),
        broken(lambda held: held.update(n=True)),
        broken(lambda held: held.update(field=3)),
        broken(lambda held: held.update(process=None)),
        broken(lambda held: held.update(teacher=math.nan)),
        broken(lambda held: held["points"][0].update(nfe=None)),
        broken(lambda held: held["points"][0].pop("error")),
        broken(lambda held: held["points"][0]["error"].update(high=math.inf)),
        broken(lambda held: held["points"][0]["error"].pop("low")),
        broken(lambda held: held["points"][0]["values"].update(energy_distance=1.0)),
        broken(lambda held: held["points"][0]["plan"].update(kind="os.system")),
        broken(lambda held: held["points"][0]["plan"].update(solver={"kind": "Adaptive"})),
        broken(lambda held: held["points"][0]["plan"].update(times=1)),
        broken(lambda held: held["points"][0].update(plan={"kind": "Heun"})),
    ],
)
def test_a_file_that_holds_no_frontier_is_refused(saved, tmp_path, text):
    path = tmp_path / "frontier.json"
    path.write_text(text(json.loads(saved[2].read_text())))
    with pytest.raises(ValueError, match=r"frontier\.json does not hold a frontier: .*") as refused:
        Frontier.load(path)
    assert "\n" not in str(refused.value)


def test_a_file_without_bounds_is_not_read(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("scorefield._internal.json_values.LARGEST", 100)
    with pytest.raises(ValueError, match="at most 100 bytes are read"):
        Frontier.load(saved[2])


# pictures


def test_the_picture_shows_what_was_measured_with_its_intervals(saved, tmp_path):
    result = saved[1]
    figure = frontier_chart(result)
    assert [chart.y.label for chart in figure.charts] == [
        "Error to the exact path, per coordinate",
        "Energy distance to data",
    ]
    for chart, of_point in (
        (figure.charts[0], lambda p: p.error),
        (figure.charts[1], lambda p: p.values["energy_distance"]),
    ):
        points = {(p.name, p.nfe): of_point(p) for p in result.points if of_point(p)}
        drawn = {
            (series.name, x): (y, *ends)
            for series in chart.series
            for (x, y), ends in zip(series.points, series.intervals, strict=True)
        }
        assert drawn == {key: (m.value, m.low, m.high) for key, m in points.items()}
    floor = result.floors["energy_distance"]
    assert (figure.charts[1].band.low, figure.charts[1].band.high) == (floor.low, floor.high)
    figure.save(tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as picture:
        picture.load()


# refusals


class Asked(sf.Gaussian):
    def estimate(self, x, at, **condition):
        raise AssertionError("the field was called")


HEUN = Plan(sf.Heun(), sf.balanced(PROCESS, 2))


@pytest.mark.parametrize(
    ("plans", "options", "message"),
    [
        ({}, {}, "plans={}: pass plans"),
        ({"heun": []}, {}, "plans={}: pass plans"),
        ({"heun": sf.Heun()}, {}, "plans: heun holds"),
        ({"heun": [HEUN, Plan(sf.Heun(), sf.uniform(sf.EDM(), 3))]}, {}, "outside the process's"),
        ({"heun": Plan(sf.DDIM(), sf.Adaptive())}, {}, "Adaptive needs an error estimate"),
        ({"heun": HEUN}, {"n": 1}, "n=1: must be at least 2"),
        ({"heun": HEUN}, {"batch_size": 0}, "batch_size=0"),
        ({"heun": HEUN}, {"level": 1.0}, "level=1"),
        ({"heun": HEUN}, {"n": 16, "real": torch.zeros(40, 2)}, "n=16: must be at least 32"),
        ({"heun": HEUN}, {"n": 40, "real": torch.zeros(40, 3)}, r"real: has shape \(40, 3\)"),
        ({"heun": HEUN}, {"n": 40, "real": torch.zeros(9, 2)}, r"real: has shape \(9, 2\)"),
        (
            {"heun": HEUN},
            {"n": 41, "real": torch.zeros(40, 2), "other": torch.zeros(40, 2)},
            r"other: has shape \(40, 2\), but needs 41 or more",
        ),
        ({"heun": HEUN}, {"other": torch.zeros(512, 2)}, "other: has no effect without real"),
        ({"heun": HEUN}, {"metrics": []}, r"metrics=\(\)"),
        ({"heun": HEUN}, {"metrics": [C2ST(), C2ST(3)]}, "c2st_accuracy twice"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_call(plans, options, message):
    field = Asked(PROCESS, torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match=message):
        frontier(field, plans, **options)


def test_a_network_in_training_is_refused():
    net = nn.Sequential(nn.Dropout(), MLP(2, width=8, depth=1))
    field = sf.Denoiser(net, sf.VP(), sf.V(), shape=(2,))
    with pytest.raises(ValueError, match="is in training"):
        frontier(field, {"heun": HEUN})
