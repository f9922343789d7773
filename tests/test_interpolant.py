"""Interpolants and Schrödinger bridges, against closed forms that their SDEs do not use."""

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


@pytest.mark.parametrize(
    ("eta", "coupling"),
    [
        *((eta, coupling) for eta in (0.0, 1.0, 2.0) for coupling in ("independent", "ot")),
        (1.0, "entropic"),
    ],
)
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


def slope(function, t):
    """Return the derivative of an affine function of ``x`` at a time."""
    return torch.func.jacrev(lambda x: function(x, torch.tensor(t, dtype=F64)))(A[0])


def burgers(coupling):
    """Return the largest asymmetry and the defect of (1 + t A_0) A_t = A_0 of the drift A_t x."""
    drift, _ = theory.GaussianInterpolant(A, B, SIGMA, coupling).sde(1.0)
    first, defects = slope(drift, 0.0), []
    for t in (0.2, 0.5, 0.9):
        later = slope(drift, t)
        solved = torch.linalg.solve(torch.eye(2).double() + t * first, first)
        defects.append(max((later - later.T).abs().max(), (later - solved).abs().max()))
    return float(max(defects))


def test_the_drift_of_the_bridge_is_a_gradient_and_solves_burgers_equation():
    # The drift is sigma^2 grad log phi of a solution phi of the heat equation. It is affine, so
    # dA/dt = -A^2. Drifts of other couplings are not.
    assert burgers("entropic") < 1e-9
    assert burgers("independent") > 0.05
    assert burgers("ot") > 0.05


def test_the_bridge_joins_the_pairs_of_its_coupling():
    interpolant = theory.GaussianInterpolant(A, B, SIGMA)
    x = samples(A, 20_000)
    paths = theory.simulate(*interpolant.sde(1.0), x, torch.linspace(0, 1, 129))
    cross = (x - A[0]).T @ (paths.x[-1] - B[0]) / len(x)
    # 4 C_t - (C_a + C_b) - sigma^2 at t = 1/2 is K + K^T
    both = 4 * interpolant.moments(0.5)[1] - A[1] - B[1] - SIGMA**2 * torch.eye(2)
    assert (cross + cross.T - both).norm() < 0.03 * both.norm()


def grid(end, count):
    """Return a grid of points around one end and the probabilities of its Gaussian there."""
    line = torch.linspace(-4.5, 4.5, count, dtype=F64)
    scaled = torch.cartesian_prod(line, line)
    points = end[0] + scaled @ torch.linalg.cholesky(end[1]).T
    weights = (-0.5 * scaled.square().sum(1)).exp()
    return points, weights / weights.sum()


def test_sinkhorn_on_a_grid_has_the_closed_form_of_gaussians():
    (a, p), (b, q) = grid(A, 23), grid(B, 23)
    plan = theory.sinkhorn(a, b, SIGMA, weights=(p, q), tolerance=1e-6)
    assert torch.allclose(plan.sum(0), q)
    assert float((plan.sum(1) - p).abs().sum()) < 1e-6
    cross = (a - A[0]).T @ plan @ (b - B[0])
    assert torch.allclose(cross, theory.GaussianInterpolant(A, B, SIGMA)._cross, atol=1e-3)


POINTS = samples(A, 6), samples(B, 5)


def test_with_little_noise_sinkhorn_pairs_each_point_with_its_translate():
    order = torch.tensor([3, 0, 4, 1, 2])
    plan = theory.sinkhorn(POINTS[1][order], POINTS[1] + tensor(5.0, -3.0), 0.1)
    assert torch.allclose(plan, torch.eye(5)[order].double() / 5, atol=1e-3)


@pytest.mark.parametrize("back", [False, True])
def test_the_bridge_of_two_sets_joins_the_pairs_of_its_plan(back):
    a, b = POINTS
    plan = theory.sinkhorn(a, b, SIGMA, tolerance=1e-9)
    starts, stops, joint = (b, a, plan.T) if back else (a, b, plan)
    count = 1000
    for coupling, fits in ((plan, True), (torch.full_like(plan, 1 / plan.numel()), False)):
        interpolant = theory.PairInterpolant(a, b, coupling, SIGMA)
        x = starts.repeat_interleave(count, 0)
        times = 1 - torch.linspace(1, 0, 61, dtype=F64) ** 2  # short steps at the points
        end = theory.simulate(*interpolant.sde(1.0, back), x, times).x[-1]
        nearest = torch.cdist(end, stops)
        assert float(nearest.amin(1).max()) < 0.05
        pairs = torch.nn.functional.one_hot(nearest.argmin(1), len(stops)).double()
        shares = pairs.reshape(len(starts), count, -1).mean(1) / len(starts)
        # four standard errors
        assert torch.allclose(shares.sum(0), joint.sum(0), atol=0.022)
        distance = float((shares - joint).abs().sum())  # of drawn pairs it would be about 0.05
        assert distance < 0.1 if fits else distance > 0.3


def test_the_velocity_and_score_of_two_sets_are_those_of_their_density():
    a, b = POINTS
    plan, t = theory.sinkhorn(a, b, SIGMA), torch.tensor(0.3, dtype=F64)
    interpolant = theory.PairInterpolant(a, b, plan, SIGMA)

    def density(x, t):
        offset = x - ((1 - t) * a[:, None] + t * b)
        variance = SIGMA**2 * t * (1 - t)
        return (plan * (-0.5 * offset.square().sum(-1) / variance).exp() / variance).sum()

    x = tensor(0.2, 1.0)
    score = torch.func.grad(lambda x: density(x, t).log())(x)
    assert torch.allclose(interpolant.score(x, t), score)
    # the continuity equation: dp/dt = -div(p velocity)
    flux = torch.func.jacrev(lambda x: density(x, t) * interpolant.velocity(x, t))(x)
    assert torch.allclose(torch.func.grad(density, argnums=1)(x, t), -flux.trace())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": torch.zeros(3, 1)}, "give points"),
        ({"sigma": 0.0}, "sigma=0: must be positive"),
        ({"weights": (torch.ones(6), torch.zeros(5))}, "weights: must be positive"),
        ({"sigma": 0.02, "iterations": 3}, "iterations=3. Use a larger sigma"),
    ],
)
def test_wrong_input_of_sinkhorn_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        theory.sinkhorn(**({"a": POINTS[0], "b": POINTS[1], "sigma": SIGMA} | change))


@pytest.mark.parametrize(
    ("plan", "sigma", "message"),
    [
        (torch.ones(5, 6) / 30, SIGMA, r"give \(6, 5\)"),
        (torch.ones(6, 5), SIGMA, "sum to 1"),
        (torch.ones(6, 5) / 30, 0.0, "sigma=0: must be positive"),
    ],
)
def test_wrong_input_of_pairs_is_named(plan, sigma, message):
    with pytest.raises(ValueError, match=message):
        theory.PairInterpolant(*POINTS, plan, sigma)


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
