"""Statistics of our own against SciPy and NumPy."""

from functools import reduce

import numpy as np
import pytest
import torch
from cases import normal
from scipy import stats

from scorefield._internal.statistics import Moments, kolmogorov_smirnov, student


@pytest.mark.parametrize("sizes", [(12,), (1, 11), (5, 0, 7), (1,) * 12])
def test_moments_of_parts_are_those_of_the_whole_without_its_missing_values(sizes):
    x = 1e6 + normal(12, 3)
    x[[1, 5], 0] = torch.nan
    x[:, 2] = torch.nan
    found = reduce(Moments.joined, map(Moments.of, x.split(sizes)), Moments.none())
    assert found.count.tolist() == [10, 12, 0]
    known = x[:, :2].numpy()
    np.testing.assert_allclose(found.mean[:2], np.nanmean(known, 0), rtol=1e-15)
    np.testing.assert_allclose(found.variance[:2], np.nanvar(known, 0), rtol=1e-9)
    assert found.mean[2] == found.variance[2] == 0


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_quantiles_of_student_are_those_of_scipy(level):
    freedom = torch.tensor([1.0, 2.0, 3.0, 5.0, 20.0, 1000.0], dtype=torch.float64)
    expected = stats.t.ppf(0.5 + level / 2, freedom.numpy())
    np.testing.assert_allclose(student(level, freedom), expected, rtol=0.01)
    np.testing.assert_allclose(student(level, freedom[3:]), expected[3:], rtol=1e-3)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3])
def test_the_test_of_kolmogorov_and_smirnov_is_that_of_scipy(shift):
    a, b = normal(600), shift + normal(400, seed=1)
    expected = stats.ks_2samp(a.numpy(), b.numpy(), method="asymp").pvalue
    assert kolmogorov_smirnov(a, b) == pytest.approx(expected, abs=0.03)
