"""Interpolants between Gaussians, against closed forms that their SDEs do not use."""

import pytest
import torch
from cases import tensor

from scorefield import theory

F64 = torch.float64
A = tensor(-1.0, 0.5), tensor([0.6, 0.3], [0.3, 0.5])
B = tensor(1.0, 2.0), tensor([1.5, -0.4], [-0.4, 0.3])
SIGMA = 0.6


def samples(end, count):
    """Return samples whose mean and covariance are exactly those of one end."""
    z = torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.T.cov())).T
    return end[0] + z @ torch.linalg.cholesky(end[1]).T


def ends(paths, k=-1):
    return paths.x[k].mean(0), paths.x[k].T.cov()


@pytest.mark.parametrize("coupling", ["independent", "ot"])
@pytest.mark.parametrize("eta", [0.0, 1.0, 2.0])
def test_every_dial_has_the_distributions_of_the_interpolant(eta, coupling):
    interpolant = theory.GaussianInterpolant(A, B, SIGMA, coupling)
    steps = 256 if eta > 1 else 128  # the distribution converges like eta^2 / steps
    times = torch.linspace(0, 1, steps + 1)
    for start, end, back in ((A, B, False), (B, A, True)):
        x = samples(start, 20_000)
        paths = theory.simulate(*interpolant.sde(eta, back), x, times)
        half, covariance = interpolant.moments(0.5)
        for (mean, cov), (m, c) in zip(
            ((half, covariance), end), (ends(paths, steps // 2), ends(paths)), strict=True
        ):
            assert (m - mean).norm() < 0.02
            assert (c - cov).norm() < 0.02 * cov.norm()


def test_velocity_and_score_are_those_of_drawn_pairs():
    """Regress the rate and the noise of drawn interpolants on their place."""
    interpolant, t, n = theory.GaussianInterpolant(A, B, SIGMA, "independent"), 0.3, 400_000
    g = torch.Generator().manual_seed(1)
    a, b, z = (torch.randn(n, 2, generator=g, dtype=F64) for _ in range(3))
    a = A[0] + a @ torch.linalg.cholesky(A[1]).T
    b = B[0] + b @ torch.linalg.cholesky(B[1]).T
    gamma = SIGMA * (t * (1 - t)) ** 0.5
    x = (1 - t) * a + t * b + gamma * z
    rate = b - a + SIGMA**2 * (1 - 2 * t) / (2 * gamma) * z
    design = torch.cat([torch.ones(n, 1, dtype=F64), x], 1)
    places = tensor([0.0, 0.0], [1.0, -0.5], [-1.0, 1.0])
    wide = torch.cat([torch.ones(3, 1, dtype=F64), places], 1)
    for exact, target in ((interpolant.velocity, rate), (interpolant.score, -z / gamma)):
        fitted = wide @ torch.linalg.lstsq(design, target).solution
        assert torch.allclose(exact(places, t), fitted, atol=0.02)


def test_between_two_points_it_is_the_brownian_bridge():
    start, end, point = tensor(-1.0), tensor(2.0), 1e-10 * torch.eye(1, dtype=F64)
    interpolant = theory.GaussianInterpolant((start, point), (end, point), SIGMA, "independent")
    paths = theory.simulate(
        *interpolant.sde(1.0), start.expand(20_000, 1), torch.linspace(0, 1, 201)
    )
    for k in (50, 120):
        t = k / 200
        assert interpolant.moments(t)[1].item() == pytest.approx(SIGMA**2 * t * (1 - t))
        assert float(paths.x[k].mean()) == pytest.approx(-1 + 3 * t, abs=0.02)
        assert float(paths.x[k].var()) == pytest.approx(SIGMA**2 * t * (1 - t), rel=0.03)
    both = torch.stack([paths.x[50, :, 0], paths.x[120, :, 0]]).cov()
    assert float(both[0, 1]) == pytest.approx(SIGMA**2 * 0.25 * 0.4, rel=0.04)


def test_without_noise_optimal_pairs_move_along_straight_lines():
    interpolant = theory.GaussianInterpolant(A, B, 0.0, "ot")
    x = samples(A, 50)
    first = interpolant.velocity(x, 0.0)
    assert torch.allclose(interpolant.velocity(x + 0.7 * first, 0.7), first)
    moved = x + first
    assert torch.allclose(moved.mean(0), B[0])
    assert torch.allclose(moved.T.cov(), B[1])
    slope = torch.func.jacrev(lambda p: interpolant.velocity(p, 0.0))(x[0])
    assert torch.allclose(slope, slope.T)  # the gradient of a function, so the map is optimal
    assert bool((torch.linalg.eigvalsh(slope + torch.eye(2)) > 0).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": -1.0}, "sigma=-1"),
        ({"coupling": "best"}, "coupling='best'"),
        ({"b": (tensor(1.0), torch.eye(1))}, "a has 2 coordinates and b 1"),
        ({"a": (tensor(0.0, 0.0), torch.eye(3))}, "a has a mean"),
        ({"a": (tensor(0.0, 0.0), torch.zeros(2, 2))}, "positive definite"),
    ],
)
def test_wrong_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        theory.GaussianInterpolant(**({"a": A, "b": B, "sigma": SIGMA} | change))
    with pytest.raises(ValueError, match="eta=-1"):
        theory.GaussianInterpolant(A, B, SIGMA).sde(-1.0)
