"""Metrics against closed forms, scipy and their own invariances."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics.pairwise import rbf_kernel

import scorefield as sf
from scorefield import Noise
from scorefield.evaluate.metrics import (
    energy_distance,
    frechet_distance,
    pairs,
    points,
    sliced,
    sliced_wasserstein,
    squared_mmd,
)

METRICS = [sliced_wasserstein, energy_distance, squared_mmd, frechet_distance]


def normal(count, *shape, seed=0):
    return Noise(seed, torch.arange(count)).draw(shape, torch.empty(0, dtype=torch.float64))[0]


def rotation(dim, seed=99):
    return torch.linalg.qr(normal(dim, dim, seed=seed)).Q


def w2_by_repetition(x, y):
    """W_2 on a line: repeat points until the counts agree, sort, match."""
    count = math.lcm(len(x), len(y))
    x, y = (np.sort(np.repeat(v, count // len(v))) for v in (x.numpy(), y.numpy()))
    return float(np.sqrt(np.mean((x - y) ** 2)))


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 20), (12, 35), (2, 3), (101, 100)])
def test_on_a_line_sliced_wasserstein_is_the_quantile_integral(n, m):
    x, y = normal(n, seed=1), 0.5 * normal(m, seed=2) + 1
    for projections in (1, 7):  # both directions of the line give the same distance
        value = sliced_wasserstein(x, y, projections=projections)
        assert value == pytest.approx(w2_by_repetition(x, y), rel=1e-12)


def test_on_a_line_squared_wasserstein_is_the_cheapest_assignment():
    x, y = normal(30, seed=3), normal(30, seed=4) ** 3
    cost = cdist(x[:, None], y[:, None], "sqeuclidean")
    cheapest = cost[linear_sum_assignment(cost)].mean()
    assert float(sliced.squared_wasserstein(x.sort()[0][None], y.sort()[0][None])) == pytest.approx(
        cheapest, rel=1e-12
    )


def test_shift_on_a_line_agrees_with_scipy():
    x = normal(50, seed=5)  # a shift moves every quantile alike, so W_1 = W_2
    truth = stats.wasserstein_distance(x, x + 0.7)
    assert sliced_wasserstein(x, x + 0.7, projections=3) == pytest.approx(truth, rel=1e-12)


def test_sliced_wasserstein_of_shifted_points_is_the_mean_squared_projection():
    shift = torch.tensor([3.0, 0.0, 4.0, 0.0])
    x = normal(20, 4, seed=6)
    values = [sliced_wasserstein(x, x + shift, projections=500, seed=s) ** 2 for s in range(20)]
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(20)
    assert abs(mean - 25 / 4) < 4 * error
    assert error < 0.1


def test_sliced_wasserstein_of_gaussians():
    dim, count, projections = 5, 4000, 2048
    shift = torch.linspace(0.5, 1.5, dim)
    x, y = normal(count, dim, seed=7), normal(count, dim, seed=8) + shift
    value = sliced_wasserstein(x, y, projections=projections)
    truth = float(shift.norm()) / math.sqrt(dim)
    # relative errors of the squared distance: of the mean cosine squared, and of the two means
    slicing = math.sqrt(2 * (dim - 1) / (dim + 2) / projections)
    sampling = 2 * math.sqrt(2 / count) / truth
    assert abs(value**2 / truth**2 - 1) < 4 * math.hypot(slicing, sampling) < 0.2


def test_sliced_wasserstein_of_scaled_gaussians():
    # W_2(N(0, 1), N(0, s^2)) = |s - 1| along every direction
    x, y = normal(20_000, 3, seed=9), 2 * normal(15_000, 3, seed=10)
    assert sliced_wasserstein(x, y, projections=64) == pytest.approx(1.0, abs=0.03)


def test_sliced_wasserstein_is_the_same_for_a_seed_and_in_any_chunks(monkeypatch):
    x, y = normal(60, 3, seed=11), normal(41, 3, seed=12)
    value = sliced_wasserstein(x, y, projections=50, seed=1)
    assert value == sliced_wasserstein(x, y, projections=50, seed=1)
    assert value != sliced_wasserstein(x, y, projections=50, seed=2)
    monkeypatch.setattr(points, "BLOCK", 300)
    assert sliced_wasserstein(x, y, projections=50, seed=1) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("n", "m", "dim"), [(30, 30, 1), (25, 40, 3), (2, 2, 2), (30, 21, 50)])
def test_energy_distance_is_its_formula(n, m, dim):
    x, y = normal(n, dim, seed=13), 1.5 * normal(m, dim, seed=14) + 0.3
    truth = 2 * cdist(x, y).mean() - pdist(x).mean() - pdist(y).mean()
    assert energy_distance(x, y) == pytest.approx(truth, rel=1e-7)


def test_energy_distance_is_scipys_squared_without_its_bias():
    x, y = normal(60, seed=15), normal(45, seed=16) + 1
    bias = pdist(x[:, None]).mean() / 60 + pdist(y[:, None]).mean() / 45
    biased = energy_distance(x, y) + bias
    assert biased == pytest.approx(stats.energy_distance(x, y) ** 2, rel=1e-9)


def test_energy_distance_of_one_law_averages_zero():
    pairs = range(200)
    values = [energy_distance(normal(15, 2, seed=k), normal(25, 2, seed=1000 + k)) for k in pairs]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    assert min(values) < 0
    bias = math.sqrt(math.pi) * (1 / 15 + 1 / 25)  # of the biased estimate: E|X - X'| = sqrt(pi)
    assert error < bias / 10  # so that the test would see it


def test_energy_distance_of_two_gaussians_on_a_line():
    # E|N(m, 2)| is a folded normal's mean
    def folded(m):
        return 2 / math.sqrt(math.pi) * math.exp(-(m**2) / 4) + m * math.erf(m / 2)

    truth = 2 * folded(0.8) - 2 * folded(0.0)
    values = [
        energy_distance(normal(400, seed=k), normal(400, seed=500 + k) + 0.8) for k in range(60)
    ]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - truth) < 4 * error < 0.1 * truth


def test_energy_distance_is_the_same_in_any_chunks(monkeypatch):
    x, y = normal(50, 3, seed=17), normal(33, 3, seed=18)
    value = energy_distance(x, y)
    monkeypatch.setattr(points, "BLOCK", 100)
    assert energy_distance(x, y) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_symmetric_and_blind_to_order_shift_and_scale(metric):
    x, y = normal(40, 3, seed=19), 0.5 * normal(31, 3, seed=20) + 1
    value = metric(x, y)
    if metric is not squared_mmd:  # whose kernel is that of the second sample
        assert metric(y, x) == pytest.approx(value, rel=1e-9)
    assert metric(x.flip(0), y[torch.randperm(31)]) == pytest.approx(value, rel=1e-9)
    assert metric(x + 100, y + 100) == pytest.approx(value, rel=1e-9)
    degree = {squared_mmd: 0, frechet_distance: 2}.get(metric, 1)
    assert metric(-3 * x, -3 * y) == pytest.approx(3**degree * value, rel=1e-9)


def test_energy_distance_does_not_see_a_rotation_and_sliced_hardly():
    x, y = normal(40, 3, seed=21), 0.5 * normal(31, 3, seed=22) + 1
    turned = x @ rotation(3), y @ rotation(3)
    assert energy_distance(*turned) == pytest.approx(energy_distance(x, y), rel=1e-9)
    many = [sliced_wasserstein(*pair, projections=20_000) for pair in ((x, y), turned)]
    assert many[0] == pytest.approx(many[1], rel=0.02)


def test_the_same_points_are_no_distance_apart():
    x = normal(30, 2, seed=23)
    assert sliced_wasserstein(x, x) == 0.0
    assert sliced_wasserstein(x, x.repeat(3, 1)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_any_shape_and_type_of_point(metric):
    x, y = normal(9, 2, 3, 2, seed=24), normal(7, 2, 3, 2, seed=25)
    value = metric(x, y)
    assert isinstance(value, float)
    assert metric(x.flatten(1), y.flatten(1)) == value
    assert metric(x.float(), y.float()) == pytest.approx(value, rel=1e-4)
    assert metric(x.requires_grad_(), y) == value
    whole = torch.arange(12).reshape(6, 2)
    assert metric(whole, whole + 5) == metric(whole.double(), whole.double() + 5)
    truth = whole % 5 > 2
    assert metric(truth, ~truth) == metric(truth.double(), (~truth).double())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.ones(4, 2), torch.ones(4, 3), r"x has points of shape \(2,\) and y of \(3,\)"),
        (torch.ones(4, 2), torch.ones(1, 2), r"y has shape \(1, 2\): must be \(N, \.\.\.\), with"),
        (torch.ones(()), torch.ones(3), r"x has shape \(\): must be"),
        (torch.ones(4, 0), torch.ones(4, 0), r"x has shape \(4, 0\): must be"),
        (torch.ones(4), torch.tensor([1.0, math.nan, math.inf]), "y has 2 of 3 values that are no"),
        (torch.ones(4, dtype=torch.complex64), torch.ones(4), "x is complex: give torch.view_as_r"),
    ],
)
def test_refuses_what_has_no_distance(metric, x, y, message):
    with pytest.raises(ValueError, match=message):
        metric(x, y)


def test_refuses_no_projections():
    with pytest.raises(ValueError, match="projections=0: must be a whole number, at least 1"):
        sliced_wasserstein(torch.ones(3), torch.ones(3), projections=0)


def test_point_clouds_keep_float64_and_flatten():
    x, y = points.point_clouds(torch.ones(3, 2, 2), torch.ones(5, 2, 2))
    assert (x.dtype, y.dtype) == (torch.float64, torch.float64)
    assert (tuple(x.shape), tuple(y.shape)) == ((3, 4), (5, 4))


def test_point_clouds_keep_differences_that_single_precision_has_about_its_origin():
    x, y = normal(9, 40, seed=31).float() + 1000, normal(7, 40, seed=32).float() + 1000
    wide = points.point_clouds(x, y)
    gaps = wide[0][:, None] - wide[1], x.double()[:, None] - y.double()
    assert (gaps[0] - gaps[1]).abs().max() < 1e-12


@pytest.mark.parametrize("dim", [3, 40])
def test_distances_are_scipys_in_any_chunks(dim, monkeypatch):
    monkeypatch.setattr(points, "BLOCK", 70)
    x, y = normal(31, dim, seed=33), normal(20, dim, seed=34)
    blocks = list(points.distance_blocks(x, y))
    assert len(blocks) == 11
    assert torch.cat([block for _, block in blocks]).numpy() == pytest.approx(cdist(x, y), rel=1e-7)


@pytest.mark.parametrize("bandwidths", [(1.3,), (0.5, 2.0, 7.0)])
@pytest.mark.parametrize(("n", "m", "dim"), [(30, 30, 1), (25, 40, 3), (2, 2, 2), (30, 21, 50)])
def test_squared_mmd_is_its_formula_in_scikit_learns_kernels(n, m, dim, bandwidths):
    x, y = normal(n, dim, seed=41), 1.5 * normal(m, dim, seed=42) + 0.3

    def mean(a, b, different):
        total = sum(rbf_kernel(a, b, gamma=1 / (2 * h * h)) for h in bandwidths) / len(bandwidths)
        if different:
            return (total.sum() - np.trace(total)) / (len(a) * (len(a) - 1))
        return total.mean()

    truth = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert squared_mmd(x, y, bandwidths=bandwidths) == pytest.approx(truth, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_squared_mmd_of_two_gaussians_averages_its_closed_form(shift):
    dim, h, repeats = 3, 1.5, 80
    # differences are N(shift, 2 I), and Gaussians convolve
    narrow = (h**2 / (h**2 + 2)) ** (dim / 2)
    truth = 2 * narrow * (1 - math.exp(-dim * shift**2 / (2 * (h**2 + 2))))
    values = [
        squared_mmd(normal(60, dim, seed=k), normal(90, dim, seed=500 + k) + shift, bandwidths=(h,))
        for k in range(repeats)
    ]
    error = np.std(values, ddof=1) / math.sqrt(repeats)
    assert abs(np.mean(values) - truth) < 4 * error
    bias = (1 - narrow) * (1 / 60 + 1 / 90)  # of the estimate from all pairs
    assert error < bias / 3  # so that the test would see it


def test_the_bandwidth_is_the_median_distance_of_the_second_sample():
    x, y = normal(30, 2, seed=43), normal(11, 2, seed=44)  # of 55 pairs, one is in the middle
    median = float(np.median(pdist(y)))
    assert squared_mmd(x, y) == squared_mmd(x, y, bandwidths=(pairs.median_distance(y),))
    assert pairs.median_distance(y) == pytest.approx(median, rel=1e-12)
    many = normal(5000, 3, seed=45)
    assert pairs.median_distance(many) == pytest.approx(
        float(np.median(pdist(many[::5]))), rel=1e-5
    )
    with pytest.raises(ValueError, match="have a median distance of 0: give bandwidths"):
        squared_mmd(x, torch.zeros(4, 2))


@pytest.mark.parametrize("bandwidths", [(), (1.0, -1.0), (math.nan,), (math.inf,)])
def test_squared_mmd_refuses_bandwidths_that_are_none(bandwidths):
    with pytest.raises(ValueError, match=r"bandwidths=\(.*\): must be positive numbers"):
        squared_mmd(torch.ones(3), torch.ones(3), bandwidths=bandwidths)


def frechet_by_scipy(x, y):
    """The formula as it is written, with scipy's root of the product."""
    (m_x, c_x), (m_y, c_y) = ((v.mean(0), np.cov(v, rowvar=False)) for v in (x.numpy(), y.numpy()))
    return ((m_x - m_y) ** 2).sum() + np.trace(c_x + c_y - 2 * linalg.sqrtm(c_x @ c_y).real)


@pytest.mark.parametrize(("n", "m", "dim"), [(20, 35, 2), (90, 60, 12), (300, 200, 50)])
def test_frechet_distance_is_its_formula_with_scipys_root(n, m, dim):
    x = normal(n, dim, seed=51) @ normal(dim, dim, seed=52)
    y = normal(m, dim, seed=53) @ normal(dim, dim, seed=54) + 2
    assert frechet_distance(x, y) == pytest.approx(frechet_by_scipy(x, y), rel=1e-8)


def test_frechet_distance_on_a_line_is_that_of_means_and_deviations():
    x, y = normal(20, seed=55), 3 * normal(31, seed=56) + 1
    truth = float((x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2)
    assert frechet_distance(x, y) == pytest.approx(truth, rel=1e-12)


def test_frechet_distance_of_singular_covariances_is_that_in_their_subspace():
    x, y = normal(5, 4, seed=57), 2 * normal(9, 4, seed=58) + 1  # and fewer points than dimensions
    plane = rotation(60)[:4]
    assert frechet_distance(x @ plane, y @ plane) == pytest.approx(frechet_distance(x, y), rel=1e-9)
    across = rotation(60)[4:8]  # where no part of one covariance is in the other
    apart = x.var(0).sum() + y.var(0).sum() + x.mean(0).square().sum() + y.mean(0).square().sum()
    assert frechet_distance(x @ plane, y @ across) == pytest.approx(float(apart), rel=1e-9)
    assert abs(frechet_distance(x @ plane, x @ plane)) < 1e-12


def test_the_bias_of_the_frechet_distance_is_the_one_its_page_tells():
    n, m, dim, repeats = 400, 600, 5, 200
    values = [
        frechet_distance(normal(n, dim, seed=k), normal(m, dim, seed=1000 + k))
        for k in range(repeats)
    ]
    bias = (1 / n + 1 / m) * (dim + dim * (dim + 1) / 4)
    error = np.std(values, ddof=1) / math.sqrt(repeats)
    assert abs(np.mean(values) - bias) < 4 * error + 0.02 * bias  # 0.02: of the second order
    assert error < 0.05 * bias


def test_the_directions_are_not_the_noise_that_samples_of_the_same_seed_start_from():
    """A projection along a sample's own starting noise would find an outlier every time."""
    field = sf.Gaussian(sf.VP(), torch.zeros(64), torch.eye(64))
    x = sf.sample(field, 500, sf.DDIM(), sf.uniform(sf.VP(), 3), seed=0, batch_size=500)
    y = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    same, *others = (sliced_wasserstein(x, y, seed=seed) for seed in range(4))
    assert same == pytest.approx(sum(others) / 3, rel=0.1)
