"""Metrics of nearest neighbours against scikit-learn, and their laws for samples of one law."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from scorefield import Noise
from scorefield.evaluate.metrics import C2ST, PRDC, c2st, points, prdc
from scorefield.evaluate.metrics.base import split_halves


def normal(count, *shape, seed=0):
    return Noise(seed, torch.arange(count)).draw(shape, torch.empty(0, dtype=torch.float64))[0]


def prdc_by_scikit_learn(x, y, k):
    """The definitions, with every ball and every distance written out."""
    x_radius, y_radius = (
        NearestNeighbors(n_neighbors=k + 1).fit(v).kneighbors(v)[0][:, k] for v in (x, y)
    )
    distances = np.linalg.norm(x[:, None] - y[None], axis=2)
    in_y, in_x = distances <= y_radius, distances <= x_radius[:, None]
    return {
        "precision": in_y.any(1).mean(),
        "recall": in_x.any(0).mean(),
        "density": in_y.sum() / (k * len(x)),
        "coverage": in_y.any(0).mean(),
    }


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(("n", "m", "dim"), [(60, 60, 2), (50, 80, 3), (80, 33, 40)])
def test_prdc_is_its_definition_with_scikit_learns_neighbours(n, m, dim, k):
    x, y = normal(n, dim, seed=1) + 0.6, normal(m, dim, seed=2)
    found = prdc(x, y, k=k)
    assert found == pytest.approx(prdc_by_scikit_learn(x.numpy(), y.numpy(), k), rel=1e-12)
    assert any(0.05 < value < 0.95 for value in found.values())


def test_half_of_the_modes_is_precise_and_recalls_and_covers_their_share():
    near, far = normal(40, 3, seed=3), normal(60, 3, seed=4) + 1000
    found = prdc(near, torch.cat([near, far]))
    assert (found["precision"], found["recall"], found["coverage"]) == (1.0, 0.4, 0.4)
    found = prdc(torch.cat([near, far]), near)
    assert (found["precision"], found["recall"], found["coverage"]) == (0.4, 1.0, 1.0)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (30, 60)])
def test_density_averages_one_and_coverage_its_closed_form_for_samples_of_one_law(n, m):
    k, repeats = 5, 120
    coverage = 1 - math.prod((m - 1 - i) / (n + m - 1 - i) for i in range(k))
    found = [prdc(normal(n, 3, seed=s), normal(m, 3, seed=1000 + s), k=k) for s in range(repeats)]
    for name, truth in (("density", 1.0), ("coverage", coverage)):
        values = [each[name] for each in found]
        error = np.std(values, ddof=1) / math.sqrt(repeats)
        assert abs(np.mean(values) - truth) < 4 * error < 0.05


def c2st_by_scikit_learn(split, k):
    """Every fold classified by the others, and each sample's share of right answers averaged."""
    points, group = np.concatenate([split.x, split.y]), torch.cat([split.x_group, split.y_group])
    is_x, group = np.arange(len(points)) < len(split.x), group.numpy()
    right = np.empty(len(points))
    for fold in np.unique(group):
        train, test = group != fold, group == fold
        near = KNeighborsClassifier(k).fit(points[train], is_x[train])
        share = near.predict_proba(points[test])[:, 1]
        said_x = share > is_x[train].mean()
        right[test] = np.where(np.isclose(share, is_x[train].mean()), 0.5, said_x == is_x[test])
    return (right[is_x].mean() + right[~is_x].mean()) / 2


@pytest.mark.parametrize(("n", "m", "dim", "k"), [(64, 64, 2, 7), (48, 96, 3, 6), (70, 55, 40, 1)])
def test_c2st_is_cross_validation_with_scikit_learns_neighbours(n, m, dim, k):
    x, y = normal(n, dim, seed=5), 1.2 * normal(m, dim, seed=6) + 0.3
    truth = c2st_by_scikit_learn(split_halves(x, y, seed=3), k)
    assert c2st(x, y, k=k, seed=3).value == pytest.approx(truth, rel=1e-12)
    assert 0.45 < truth < 0.95


@pytest.mark.parametrize(("n", "m"), [(48, 48), (40, 130)])
def test_c2st_averages_one_half_for_samples_of_one_law(n, m):
    found = [c2st(normal(n, 2, seed=s), normal(m, 2, seed=1000 + s)) for s in range(80)]
    values = [each.value for each in found]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - 0.5) < 4 * error < 0.03
    missed = sum(not each.low <= 0.5 <= each.high for each in found)
    assert missed / len(found) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / len(found))


def test_c2st_tells_apart_what_is_apart():
    x = normal(64, 3, seed=7)
    found = c2st(x, x.flip(1) + 1000)
    assert (found.value, found.stderr) == (1.0, 0.0)
    assert c2st(x, normal(64, 3, seed=8) + 1).low > 0.6


@pytest.mark.parametrize("metric", [PRDC(), C2ST()])
def test_neighbours_are_the_same_in_any_chunks(metric, monkeypatch):
    x, y = normal(70, 40, seed=9), normal(64, 40, seed=10) + 0.2
    value = metric.values(split_halves(x, y, seed=0))
    monkeypatch.setattr(points, "BLOCK", 300)
    assert torch.equal(metric.values(split_halves(x, y, seed=0)), value)


def test_neighbours_refuse_what_they_have_too_few_points_for():
    x, y = normal(64, 2), normal(5, 2)
    for k, message in (
        (0, "k=0: must be a whole number, at least 1"),
        (5, "k=5: must be at most 4"),
    ):
        with pytest.raises(ValueError, match=message):
            prdc(x, y, k=k)
    with pytest.raises(ValueError, match="a sample has 5 points: a standard error needs 32"):
        c2st(x, y)
    with pytest.raises(ValueError, match="k=57: must be at most 56"):  # 7 folds of 8
        c2st(x, x, k=57)
    with pytest.raises(ValueError, match="level=95: must be between 0 and 1"):
        c2st(x, x, level=95)
