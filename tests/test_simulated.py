"""Simulated cells against the closed forms of their distribution."""

import numpy as np
import pytest
import torch
from scipy import stats

from scorefield._internal.errors import UsageError
from scorefield.data import CellSimulator

SIM = CellSimulator(genes=20, types=2, drugs=2, theta=3.0, dropout=0.1, library=200.0)


@pytest.fixture(scope="module")
def cells():
    return SIM.draw(20_000, seed=3)


def test_counts_have_the_moments_and_zeros_of_their_distribution(cells):
    x, mean, keep = cells.counts.double().numpy(), cells.mean, 1 - SIM.dropout
    second = keep * (mean + mean**2 / SIM.theta + mean**2)
    zeros = SIM.dropout + keep * (SIM.theta / (SIM.theta + mean)) ** SIM.theta
    for value, expected in ((x, keep * mean), (x**2, second), (x == 0, zeros)):
        gap = (value - expected).sum(0)
        error = (value - expected).std(0) * np.sqrt(len(x))
        assert (np.abs(gap) < 4.5 * error).all()
    assert (x == np.round(x)).all()
    assert (x >= 0).all()


def test_counts_that_are_not_lost_are_negative_binomial(cells):
    """The randomised probability transform of the counts is uniform."""
    kept = cells.hidden["lost"][:, 0] >= SIM.dropout
    x, mean = cells.counts[:, 0].numpy()[kept], cells.mean[:, 0][kept]
    law = stats.nbinom(SIM.theta, SIM.theta / (SIM.theta + mean))
    below = law.cdf(x - 1)
    u = below + np.random.default_rng(0).random(len(x)) * (law.cdf(x) - below)
    assert stats.kstest(u, "uniform").pvalue > 1e-3


def test_expected_counts_sum_to_log_normal_library_sizes(cells):
    library = cells.obs["library"]
    np.testing.assert_allclose(cells.mean.sum(1), library)
    log = (np.log(library) - np.log(SIM.library)) / SIM.library_std
    assert stats.kstest(log, "norm").pvalue > 1e-3


def test_shares_of_responders_and_the_dose_curve(cells):
    parts, treated = SIM._parts, cells.obs["drug"] != "control"
    assert not cells.responds[~treated].any()
    some = (cells.obs["drug"] == "drug 2") & (cells.obs["type"] == "type 1")
    share = parts["share"][2, 0]
    assert abs(cells.responds[some].mean() - share) < 4 * np.sqrt(share * (1 - share) / some.sum())
    low, high = (SIM.under(cells, "drug 1", dose) for dose in (0.3, 1e300))
    base = SIM.under(cells, "control")
    log = [np.log(each.mean / each.mean[:, :1]) for each in (base, low, high)]
    moved = np.abs(log[2] - log[0]) > 0.1
    power, ec50 = 0.3 ** parts["slope"][1], parts["ec50"][1] ** parts["slope"][1]
    ratio = (log[1] - log[0])[moved] / (log[2] - log[0])[moved]
    np.testing.assert_allclose(ratio, power / (power + ec50), rtol=1e-5)
    assert moved[low.responds].any()
    assert not moved[~low.responds].any()


def test_a_counterfactual_keeps_the_cell(cells):
    """Under the same drug nothing changes; without response only the drug's name does."""
    drug, dose = cells.obs["drug"][5], cells.obs["dose"][5]
    same = SIM.under(cells, str(drug), float(dose))
    assert torch.equal(same.counts[5], cells.counts[5])
    base, treated = SIM.under(cells, "control"), SIM.under(cells, "drug 1", 3.0)
    silent = ~treated.responds
    assert torch.equal(treated.counts[silent], base.counts[silent])
    assert not torch.equal(treated.counts[~silent], base.counts[~silent])
    # where the expected count rises, the count of the same cell does not fall
    assert ((treated.counts - base.counts).numpy() * (treated.mean - base.mean) >= 0).all()
    with pytest.raises(UsageError, match=r"drug='drug 9': must be one of control, drug 1, drug 2"):
        SIM.under(cells, "drug 9", 1.0)
    with pytest.raises(UsageError, match=r"dose=-1.0"):
        SIM.under(cells, "drug 1", -1.0)


def test_batches_shift_genes_and_seeds_decide_all():
    plain = CellSimulator(genes=6, batch_std=0.0, programs=0, types=1)
    cells = plain.draw(50)
    base = plain.under(cells, "control")
    shares = base.mean / base.mean.sum(1, keepdims=True)
    np.testing.assert_allclose(shares, shares[:1].repeat(50, 0))
    other = CellSimulator(genes=6, batch_std=0.5, programs=0, types=1)
    split = other.under(other.draw(50), "control")
    shares = split.mean / split.mean.sum(1, keepdims=True)
    first = split.obs["batch"] == "batch 1"
    assert np.ptp(shares[first], 0).max() < 1e-12
    assert np.abs(shares[first][0] - shares[~first][0]).max() > 1e-3
    assert torch.equal(
        cells.counts, CellSimulator(genes=6, batch_std=0.0, programs=0, types=1).draw(50).counts
    )
    assert not torch.equal(cells.counts, plain.draw(50, seed=1).counts)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"genes": 1}, "genes=1"),
        ({"doses": (0.0,)}, "doses="),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"programs": -1}, "programs=-1: must be at least 0"),
        ({"library_std": -1.0}, "library_std=-1.0: must be at least 0"),
        ({"batch_std": np.nan}, "batch_std=nan"),
        ({"doses": (1.0, np.nan)}, "doses="),
        ({"theta": np.nan}, "theta and library"),
    ],
)
def test_numbers_out_of_range(settings, match):
    with pytest.raises(UsageError, match=match):
        CellSimulator(**settings)
