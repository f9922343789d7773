"""Comparisons: intervals that hold what they say, the floor, and what is refused."""

import dataclasses
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import scorefield as sf
from scorefield import Noise
from scorefield.evaluate.metrics import (
    C2ST,
    MMD,
    PRDC,
    EnergyDistance,
    FrechetDistance,
    SlicedWasserstein,
    SplitMetric,
    compare,
    energy_distance,
    frechet_distance,
    points,
    prdc,
    sliced_wasserstein,
    squared_mmd,
)
from scorefield.evaluate.metrics.base import split_halves

EVERY = (
    SlicedWasserstein(projections=16),
    EnergyDistance(),
    MMD(),
    FrechetDistance(),
    C2ST(),
    PRDC(),
)


def normal(count, *shape, seed=0):
    return Noise(seed, torch.arange(count)).draw(shape, torch.empty(0, dtype=torch.float64))[0]


@dataclass(frozen=True)
class MeanGap(SplitMetric):
    """The difference of two means, of which everything is known."""

    names: ClassVar[tuple[str, ...]] = ("mean_gap",)

    def values(self, split):
        x, y = (
            (kept.to(v) @ v[:, 0]) / kept.sum(1)
            for v, kept in ((split.x, split.x_mask), (split.y, split.y_mask))
        )
        return (x - y)[None]


class OwnGap(sf.Metric):
    """The same as an own metric: nothing but `value`."""

    def value(self, x, y):
        return float(x[:, 0].mean() - y[:, 0].mean())


class OwnMoments(sf.Metric):
    """An own metric of two numbers."""

    names = ("first", "second")

    def value(self, x, y):
        return torch.stack([((x**k).mean() - (y**k).mean()).abs() for k in (1, 2)])


def test_an_own_metric_has_the_interval_of_a_built_in_one():
    x, y = normal(96, 1, seed=1) ** 3, normal(160, 1, seed=2)
    built_in = compare(x, y, other=normal(99, 1, seed=3), metrics=[MeanGap()])
    own = compare(x, y, other=normal(99, 1, seed=3), metrics=[OwnGap(), OwnMoments()])
    assert list(own.values) == ["OwnGap", "first", "second"]
    for part in ("values", "floors", "excesses"):
        found, exact = getattr(own, part)["OwnGap"], getattr(built_in, part)["mean_gap"]
        assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(exact), abs=1e-12)
    assert own.values["first"].value == pytest.approx(
        abs(built_in.values["mean_gap"].value), abs=1e-12
    )


def test_the_numbers_of_an_own_metric_need_a_name_each():
    class Unnamed(OwnMoments):
        names = ("first",)

    with pytest.raises(ValueError, match="names \\['first'\\], and 2 numbers"):
        compare(normal(40, 2), normal(40, 2), metrics=[Unnamed()])


def test_halves_are_two_halves_and_orthogonal_to_each_other():
    split = split_halves(normal(64, 2), normal(80, 2), seed=0)
    whole, halves, others = split.keep[0], split.keep[1:16], split.keep[16:]
    assert bool((whole == 1).all())
    assert torch.equal(halves + others, torch.ones(15, 16).double())
    assert torch.equal((halves - others) @ (halves - others).T, 16 * torch.eye(15).double())
    assert split.x_mask.sum(1).tolist() == [64] + 30 * [32]
    assert split.x_group.bincount().tolist() == 16 * [4]
    assert split.y_group.bincount().tolist() == 16 * [5]


def test_the_standard_error_of_a_difference_of_means_is_that_of_its_groups():
    x, y = normal(96, 1, seed=1) ** 3, normal(160, 1, seed=2)
    split = split_halves(x, y, seed=4)
    gaps = [float(x[split.x_group == j].mean() - y[split.y_group == j].mean()) for j in range(16)]
    found = compare(x, y, metrics=[MeanGap()], seed=4).values["mean_gap"]
    assert found.value == pytest.approx(float(x.mean() - y.mean()), rel=1e-12)
    assert found.stderr == pytest.approx(np.std(gaps, ddof=1) / 4, rel=1e-12)
    assert found.high - found.low == pytest.approx(2 * 2.131449546 * found.stderr, rel=1e-4)


@pytest.mark.parametrize(
    ("metric", "alone"),
    [
        (SlicedWasserstein(16), lambda x, y: sliced_wasserstein(x, y, projections=16)),
        (EnergyDistance(), energy_distance),
        (MMD((1.5,)), lambda x, y: squared_mmd(x, y, bandwidths=(1.5,))),
        (FrechetDistance(), frechet_distance),
        (PRDC(k=3), lambda x, y: list(prdc(x, y, k=3).values())),
    ],
    ids=lambda v: type(v).__name__,
)
def test_the_value_of_a_half_is_that_of_its_points_alone(metric, alone):
    x, y = normal(50, 3, seed=5), 1.2 * normal(67, 3, seed=6) + 0.4
    split = split_halves(x, y, seed=0)
    values = metric.values(split)
    for row in (0, 3, 22):
        truth = alone(x[split.x_mask[row]], y[split.y_mask[row]])
        assert values[:, row].tolist() == pytest.approx(np.atleast_1d(truth).tolist(), rel=1e-7)


NAMES = [name for metric in EVERY for name in metric.names]
# squared distances lose their linear part where the laws are one, and intervals widen by sqrt(2)
WIDER = {"energy_distance": 2**0.5, "squared_mmd": 2**0.5, "frechet_distance": 2**0.5}


@pytest.mark.slow
def test_the_excess_of_one_law_is_zero_within_intervals_of_the_right_width():
    repeats = 80
    same_law = [
        compare(
            normal(64, 3, seed=s),
            normal(80, 3, seed=1000 + s),
            other=normal(64, 3, seed=2000 + s),
            metrics=EVERY,
        ).excesses
        for s in range(repeats)
    ]
    for name in NAMES:
        found = [each[name] for each in same_law]
        values = np.array([each.value for each in found])
        assert abs(values.mean()) < 4 * values.std(ddof=1) / math.sqrt(repeats), name
        missed = np.mean([not each.low <= 0 <= each.high for each in found])
        assert missed < 0.05 + 4 * math.sqrt(0.05 * 0.95 / repeats), name
        width = math.sqrt(np.mean([each.stderr**2 for each in found])) / values.std(ddof=1)
        assert 0.75 < width / WIDER.get(name, 1) < 1.35, name


def test_intervals_hold_closed_forms_of_two_gaussians():
    shift, repeats = 1.0, 120

    def folded(m):  # E|N(m, 2)|
        return 2 / math.sqrt(math.pi) * math.exp(-(m**2) / 4) + m * math.erf(m / 2)

    truths = {
        "energy_distance": 2 * folded(shift) - 2 * folded(0.0),
        "squared_mmd": 2 / math.sqrt(3) * (1 - math.exp(-(shift**2) / 6)),
        "mean_gap": -shift,
    }
    found = [
        compare(
            normal(64, 1, seed=s),
            normal(80, 1, seed=1000 + s) + shift,
            metrics=(EnergyDistance(), MMD((1.0,)), MeanGap()),
        ).values
        for s in range(repeats)
    ]
    for name, truth in truths.items():
        missed = np.mean([not each[name].low <= truth <= each[name].high for each in found])
        assert missed < 0.05 + 4 * math.sqrt(0.05 * 0.95 / repeats)
        spread = np.std([each[name].value for each in found], ddof=1)
        width = math.sqrt(np.mean([each[name].stderr ** 2 for each in found])) / spread
        assert 0.75 < width < 1.35


def test_every_metric_sees_a_shift_beyond_its_floor():
    x, y = normal(128, 2, seed=7) + 3, normal(128, 2, seed=8)
    found = compare(x, y, other=normal(128, 2, seed=9), metrics=EVERY).excesses
    lower = {"precision", "recall", "density", "coverage"}
    for name, excess in found.items():
        assert excess.high < 0 if name in lower else excess.low > 0, name


def test_the_floor_is_the_comparison_of_the_other_real_data():
    x, y, z = normal(40, 3, seed=10) + 1, normal(50, 3, seed=11), normal(40, 3, seed=12)
    found = compare(x, y, other=z, metrics=EVERY)
    assert found.values == compare(x, y, metrics=EVERY).values
    assert found.floors == compare(z, y, metrics=EVERY).values
    for name, excess in found.excesses.items():
        assert excess.value == pytest.approx(
            found.values[name].value - found.floors[name].value, abs=1e-15
        )
    assert all(e.value == e.stderr == 0 for e in compare(z, y, other=z).excesses.values())
    assert compare(x, y).excesses == compare(x, y).floors == {}


def test_the_floor_is_of_as_many_points_chosen_by_the_seed():
    x, y = normal(40, 2, seed=13), normal(50, 2, seed=14)
    plenty = torch.cat([normal(60, 2, seed=15), normal(60, 2, seed=16) + 1000])
    one, two, again = (
        compare(x, y, other=plenty, metrics=[MeanGap()], seed=s).floors["mean_gap"].value
        for s in (0, 1, 0)
    )
    assert one == again != two
    assert 250 < one < 750  # of both ends, although they came one after the other


def test_a_comparison_is_json_and_the_same_for_a_seed_a_shape_and_a_type():
    x, y = normal(40, 2, 3, seed=17).float(), normal(40, 2, 3, seed=18).float()
    found = compare(x, y, other=y, metrics=EVERY)
    assert found == compare(x, y, other=y, metrics=EVERY)
    assert found == compare(
        x.flatten(1).double(), y.flatten(1).double(), other=y.flatten(1), metrics=EVERY
    )
    assert (found.n, found.m, found.dim) == (40, 40, 6)
    told = json.loads(json.dumps(dataclasses.asdict(found)))
    assert told["values"]["squared_mmd"]["value"] == found.values["squared_mmd"].value
    dealt_anew = compare(x, y, metrics=EVERY, seed=1).values
    for name in set(NAMES) - {"c2st_accuracy"}:  # whose folds are dealt
        assert dealt_anew[name].value == pytest.approx(found.values[name].value, rel=1e-9)
        assert dealt_anew[name].stderr != found.values[name].stderr


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor made, in bytes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for made in out if isinstance(out, tuple | list) else [out]:
            if isinstance(made, torch.Tensor):
                self.bytes = max(self.bytes, made.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: type(m).__name__)
def test_no_tensor_is_larger_than_a_block_or_what_is_kept_of_each_point(metric, monkeypatch):
    monkeypatch.setattr(points, "BLOCK", 2**14)
    count = 1500
    x, y = normal(count, 40, seed=19).float(), normal(count, 40, seed=20).float()
    with Largest() as seen:
        compare(x, y, metrics=[metric])
    kept = 2 * count * 16 * 15  # neighbours in every group, of both samples
    assert seen.bytes <= 8 * max(2**14, 1000**2 // 2, kept) < 8 * count**2 / 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.full((40, 2), math.nan)}, "x has 80 of 80 values that are not finite"),
        ({"real": normal(40, 3)}, r"x has points of shape \(2,\) and real of \(3,\)"),
        ({"real": torch.ones(())}, r"real has shape \(\): must be"),
        ({"x": torch.ones(()), "other": normal(40, 2)}, r"x has shape \(\): must be"),
        ({"x": normal(31, 2)}, "a sample has 31 points: a standard error needs 32"),
        (
            {"other": normal(39, 2)},
            r"other has shape \(39, 2\): a floor needs at least as many points as x, 40",
        ),
        ({"other": normal(40, 3)}, r"other has shape \(40, 3\): .* of shape \(2,\)"),
        ({"other": torch.full((40, 2), math.inf)}, "other has 80 of 80 values that are not fini"),
        ({"metrics": ()}, r"metrics=\(\): give at least one, such as EnergyDistance\(\)"),
        ({"metrics": (MMD((1.0,)), MMD((2.0,)))}, "metrics contain squared_mmd twice"),
        ({"level": 1.0}, "level=1: must be between 0 and 1"),
        ({"metrics": [PRDC(k=20)]}, "k=20: must be at most 15"),
        ({"seed": -1}, "seed=-1: give an integer"),
    ],
)
def test_refuses_what_cannot_be_compared(arguments, message):
    given = {"x": normal(40, 2), "real": normal(40, 2, seed=1)} | arguments
    with pytest.raises(ValueError, match=message) as refused:
        compare(given.pop("x"), given.pop("real"), **given)
    assert "\n" not in str(refused.value)


def test_metrics_need_torch_and_numpy_alone():
    code = (
        "import sys, scorefield.evaluate.metrics; "
        "print({'scipy', 'sklearn', 'pydantic', 'rich', 'matplotlib'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "set()"
