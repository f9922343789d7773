"""Data at its extremes: a few steps of training, samples and likelihoods are finite numbers.

Or it is refused, by name and before anything is trained.
"""

import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield._internal.errors import DataError
from scorefield.data import read
from scorefield.training.config import TrainConfig

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(30, 3))


def config(kind="mlp", **options):
    network = {"kind": kind} if kind == "auto" else {"kind": kind, "width": 8, "depth": 1}
    return TrainConfig.model_validate(
        {"network": network, "optim": {"steps": 5, "batch_size": 4}, **options}
    )


LEARNED = {
    "one feature": NORMAL[:, :1],
    "a thousand features": RNG.normal(size=(30, 1000)),
    "two samples": NORMAL[:2],
    "two samples of one feature": NORMAL[:2, :1],
    "one constant feature": np.c_[NORMAL, np.full(30, 1e8)],
    "rank 1": NORMAL[:, :1] * np.array([[1.0, -2.0, 3.0, 0.5]]),
    "duplicate rows": np.repeat(NORMAL[:3], 10, 0),
    "two values": np.repeat(np.array([[0.0, 1.0], [1.0, 0.0]]), 15, 0),
    "one value that differs": np.r_[np.zeros((99, 1)), np.ones((1, 1))],
    "an outlier": np.r_[NORMAL, np.full((1, 3), 1e7)],
    "scale 1e-6": NORMAL * 1e-6,
    "scale 1e6": NORMAL * 1e6,
    "scale 1e-25": NORMAL * 1e-25,
    "scale 1e30": NORMAL * 1e30,
    "scales of all sizes": NORMAL * np.array([1e-10, 1.0, 1e10]),
    "offset 1e8, spread 1e5": 1e8 + 1e5 * NORMAL,
    "offset -1e4": NORMAL - 1e4,
    "integers": RNG.integers(0, 5, (30, 3)),
    "integers of 64 bits": RNG.integers(-(2**62), 2**62, (30, 3)),
    "yes and no": RNG.integers(0, 2, (30, 3)).astype(bool),
    "half precision": NORMAL.astype(np.float16),
    "a signal of one point": RNG.normal(size=(10, 1, 1)),
    "an image of one point": RNG.normal(size=(10, 1, 1, 1)),
    "an image narrower than a filter": RNG.normal(size=(10, 3, 2, 3)),
}
REFUSED = {
    "one sample": (NORMAL[:1], "a distribution needs two or more"),
    "equal samples": (np.ones((5, 2)), "2 constant feature"),
    "offset 1e8, spread 1": (
        1e8 + NORMAL,
        "size 1e.08 in feature or channel 0 .* does not resolve",
    ),
    "offset 1e8, spread 100": (1e8 + 100 * NORMAL, "subtract a common offset"),
    "an image around 1e8": (1e8 + RNG.normal(size=(9, 1, 4, 4)), "values of size 1e.08"),
    "whole numbers around 2^40": (2**40 + RNG.integers(0, 9, (30, 2)), "does not resolve"),
    "scale 1e-42": (NORMAL * 1e-42, "change the unit"),
    "scale 1e38": (NORMAL * 1e38, "change the unit"),
    "beyond float32": (NORMAL * 1e300, "not finite numbers in float32"),
}


def save(path, array):
    np.save(path, array)
    return path


def finite(x):
    return bool(torch.as_tensor(x).isfinite().all())


@pytest.mark.parametrize("name", LEARNED)
def test_extreme_data_is_learned_sampled_and_told_the_density_of(tmp_path, name):
    data = read(save(tmp_path / "x.npy", LEARNED[name]))
    run = sf.train(data, config=config("mlp" if data.x.ndim == 2 else "auto"))
    x = run.sample(3, sf.default_plan(run.field, 4))
    assert finite(x)
    z = run.transform.forward(run.encoding.middle(data.x))
    assert finite(z)
    assert float(z.mean().abs()) < 1e-2, "standardised, whatever the unit"
    assert abs(float(z.std(correction=0)) - 1) < 1e-2
    found = run.log_prob(data.x[:2], nfe=8)
    assert finite(found.value)
    assert finite(found.solver_error)
    codes = run.encode(data.x[:2])
    assert finite(codes.error)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_density_in_float32_is_refused_by_name(tmp_path, name):
    array, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        read(save(tmp_path / "x.npy", array))


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_a_change_of_unit_changes_samples_by_it_and_densities_by_its_logarithm(tmp_path, scale):
    """By powers of two, which no rounding tells apart."""
    plain, scaled = (
        sf.train(read(save(tmp_path / "x.npy", NORMAL * unit)), config=config())
        for unit in (1.0, scale)
    )
    plan = sf.default_plan(plain.field, 4)
    assert torch.equal(scaled.sample(5, plan), scale * plain.sample(5, plan))
    x = torch.from_numpy(NORMAL[:4]).float()
    expected = plain.log_prob(x, nfe=8).value - 3 * np.log(scale)
    torch.testing.assert_close(scaled.log_prob(scale * x, nfe=8).value, expected)


@pytest.mark.slow
def test_a_million_features(tmp_path):
    x = RNG.normal(size=(3, 10**6)).astype(np.float32)
    run = sf.train(
        read(save(tmp_path / "x.npy", x)), config=config(optim={"steps": 2, "batch_size": 2})
    )
    assert finite(run.sample(1, sf.default_plan(run.field, 2), batch_size=1))
    assert finite(run.log_prob(torch.from_numpy(x[:1]), nfe=8, probes=2, batch_size=1).value)
