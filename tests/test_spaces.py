"""Manifolds: geodesics, uniform draws and heat kernels, against series in high precision."""

import math

import mpmath
import numpy
import pytest
import torch

import scorefield as sf
from scorefield.spaces import SO3, Euclidean, Product, Sphere, Torus
from scorefield.spaces.kernels import Table, sphere

F64 = torch.float64
SPACES = [
    Euclidean(2),
    Torus(2),
    Sphere(1),
    Sphere(2),
    Sphere(3),
    Sphere(5),
    SO3(),
    Product(SO3(), Euclidean(3)),
    Product(Sphere(2), Torus(1)),
]
ISOTROPIC = [Sphere(1), Sphere(2), Sphere(3), Sphere(5), SO3()]
TIMES = [1e-4, 1e-2, 0.3, 0.99, 1.01, 3.0, 10.0]
spaces = pytest.mark.parametrize("space", SPACES, ids=str)


def noise(count, seed=0):
    return sf.Noise(seed, torch.arange(count))


def points(space, count, seed=0):
    """Return points spread over the space, or normal ones where it has no end."""
    if isinstance(space, Product):
        return space.join([points(s, count, seed + 100 * k) for k, s in enumerate(space.spaces)])
    if isinstance(space, Euclidean):
        return noise(count, 1000 + seed).draw(space.shape, torch.zeros((), dtype=F64))[0]
    return space.uniform(noise(count, 1000 + seed), torch.zeros((), dtype=F64))[0]


def norm(space, v):
    return space.inner(v, v).sqrt()


def scaled(space, v, factor):
    return factor.reshape(-1, *[1] * len(space.shape)) * v


def within(mean, truth, error):
    """Check a mean ``(...)`` of samples against the truth by four of its standard errors."""
    assert bool(((mean - truth).abs() <= 4 * error + 1e-12).all())


@spaces
def test_exp_and_log_are_inverse_and_stay_on_the_manifold(space):
    x, y = points(space, 200), points(space, 200, seed=1)
    v = space.log(x, y)
    assert (space.log(space.exp(x, v), y)).abs().max() < 1e-12
    assert (space.tangent(x, v) - v).abs().max() < 1e-13
    assert (space.distance(x, y) - norm(space, v)).abs().max() < 1e-13
    half = space.exp(x, v / 2)
    assert (2 * space.distance(half, y) - space.distance(x, y)).abs().max() < 1e-12
    space.check(half)
    assert (space.project(half) - half).abs().max() < 1e-14
    assert space.distance(x, x).abs().max() < 1e-14


@spaces
def test_pull_back_inverts_the_derivative_of_exp(space):
    x, y = points(space, 50), points(space, 50, seed=1)
    v, w = space.log(x, y), space.normal(y, noise(50, 2))[0]
    u = space.pull_back(x, v, w)
    assert (space.tangent(x, u) - u).abs().max() < 1e-12
    _, pushed = torch.func.jvp(lambda v: space.exp(x, v), (v,), (u,))
    assert (pushed - w).abs().max() < 1e-9
    assert (space.pull_back(x, 0 * v, v) - v).abs().max() < 1e-14


@pytest.mark.parametrize("space", ISOTROPIC, ids=str)
def test_the_farthest_points_are_at_a_distance_of_pi(space):
    x = points(space, 50)
    v = space.normal(x, noise(50, 1))[0]
    v = scaled(space, v, math.pi / norm(space, v))
    end = space.exp(x, v)
    assert (space.distance(x, end) - math.pi).abs().max() < 1e-7
    exact = -x if isinstance(space, Sphere) else end
    assert (norm(space, space.log(x, exact)) - math.pi).abs().max() < 1e-7


@spaces
def test_normal_tangents_have_the_identity_as_covariance(space):
    x = points(space, 1).expand(4000, *space.shape)
    v = space.normal(x, noise(4000))[0]
    square = space.inner(v, v)
    within(square.mean(), space.dim, square.std() / 4000**0.5)
    along = space.log(x, points(space, 1, seed=3).expand_as(x))
    projection = (space.inner(v, along) / norm(space, along)) ** 2
    within(projection.mean(), 1, projection.std() / 4000**0.5)


def series(d, r, t):
    """Return the log of the heat kernel of a sphere and its slope, by a long series."""
    with mpmath.workdps(int(40 + 2.2 / t)):
        x, time = mpmath.cos(mpmath.mpf(r)), mpmath.mpf(t)
        before, p, slope_before, slope = mpmath.mpf(1), x, mpmath.mpf(0), mpmath.mpf(1)
        total, derivative, k, weight = mpmath.mpf(1), mpmath.mpf(0), 0, 1
        while weight > mpmath.mpf(10) ** -mpmath.mp.dps:
            k += 1
            count = math.comb(k + d, k) - (math.comb(k + d - 2, k - 2) if k > 1 else 0)
            weight = count * mpmath.exp(-k * (k + d - 1) * time / 2)
            total, derivative = total + weight * p, derivative + weight * slope
            a, b, c = 2 * k + d - 1, k, k + d - 1
            slope_before, slope = slope, (a * (p + x * slope) - b * slope_before) / c
            before, p = p, (a * x * p - b * before) / c
        area = 2 * mpmath.pi ** (mpmath.mpf(d + 1) / 2) / mpmath.gamma(mpmath.mpf(d + 1) / 2)
        return float(mpmath.log(total / area)), float(-mpmath.sin(r) * derivative / total)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("t", [0.02, 0.3, 0.99, 1.01, 10.0])
def test_a_heat_kernel_is_the_long_series_to_eight_digits(d, t):
    if d > 3 and t < 0.3:
        return
    angles = [0.0, 1e-8, 1e-3, 0.7, 2.0, math.pi - 1e-3, math.pi - 1e-8, math.pi]
    truth = torch.tensor([series(d, r, t) for r in angles], dtype=F64).T
    value, slope = sphere(d, torch.tensor(angles, dtype=F64), torch.tensor(t, dtype=F64))
    assert (value - truth[0]).abs().max() < 1e-8
    assert (slope - truth[1]).abs().max() < 1e-8 * (1 + math.pi / t)


@pytest.mark.parametrize("t", [1e-5, 1e-4])
@pytest.mark.parametrize("r", [1e-6, 0.01, 1.5, math.pi - 1e-3, math.pi])
def test_heat_kernels_of_short_times_have_eight_digits_in_the_tail(t, r):
    angle, time = torch.tensor([r], dtype=F64), torch.tensor([t], dtype=F64)
    with mpmath.workdps(60):
        x, half = mpmath.mpf(r), mpmath.cos(mpmath.mpf(r) / 2)

        def integrand(phi):
            s = 2 * mpmath.acos(half * mpmath.cos(phi))
            far = 2 * mpmath.pi - s
            g = s * mpmath.exp((x**2 - s**2) / 2 / t) + far * mpmath.exp((x**2 - far**2) / 2 / t)
            return g / mpmath.sin(s / 2)

        cuts = [0, *(mpmath.sqrt(t) * c for c in (1, 2, 4, 8, 16, 32)), mpmath.pi / 2]
        scale = mpmath.log(2) + t / 8 - 1.5 * mpmath.log(2 * mpmath.pi * t) - x**2 / 2 / t
        truth = float(scale + mpmath.log(mpmath.quad(integrand, cuts)))
    assert float(sphere(2, angle, time)[0]) == pytest.approx(truth, abs=1e-8, rel=1e-15)
    if 0 < r < 3:
        images = t / 2 - 1.5 * math.log(2 * math.pi * t) - r**2 / 2 / t + math.log(r / math.sin(r))
        assert float(sphere(3, angle, time)[0]) == pytest.approx(images, abs=1e-8, rel=1e-15)


def characters(r, t):
    """Return the log of the heat kernel of rotations by an angle, by a long series."""
    with mpmath.workdps(int(40 + 2.2 / t)):
        half, total, k, weight = mpmath.mpf(r) / 2, mpmath.mpf(1), 0, 1
        while weight > mpmath.mpf(10) ** -mpmath.mp.dps:
            k += 1
            weight = mpmath.exp(-k * (k + 1) * mpmath.mpf(t) / 2)
            total += (2 * k + 1) * weight * mpmath.sin((2 * k + 1) * half) / mpmath.sin(half)
        return float(mpmath.log(total / (8 * mpmath.pi**2)))


@pytest.mark.parametrize("t", [0.02, 1.0, 3.9, 4.1, 10.0])
def test_the_heat_kernel_of_rotations_is_the_sum_over_characters(t):
    angles = [1e-3, 0.7, 2.0, math.pi - 1e-3, math.pi]
    value, _ = SO3().radial(torch.tensor(angles, dtype=F64), torch.tensor(t, dtype=F64))
    truth = torch.tensor([characters(r, t) for r in angles], dtype=F64)
    assert (value - truth).abs().max() < 1e-8


def integrals(space, t, functions):
    """Return the integrals of functions of the distance under the heat kernel."""
    top = min(math.pi, 12 * t**0.5)
    edges = torch.linspace(0, top, 41, dtype=F64)
    nodes, weights = map(torch.as_tensor, numpy.polynomial.legendre.leggauss(16))
    r = edges[:-1, None] + (nodes + 1) / 2 * (edges[1] - edges[0])
    density = space.radial(r, torch.tensor(t, dtype=F64))[0].exp() * space.area(r)
    measure = density * weights * (edges[1] - edges[0]) / 2
    return [float((measure * f(r)).sum()) for f in functions]


@pytest.mark.parametrize("space", ISOTROPIC, ids=str)
@pytest.mark.parametrize("t", TIMES)
def test_mass_is_one_and_moments_decay_by_the_eigenvalues(space, t):
    if space.dim > 3 and t < 0.3:
        return
    if isinstance(space, SO3):  # the characters of degrees 1 and 2 over their dimensions
        moments = [
            lambda r: (1 + 2 * r.cos()) / 3,
            lambda r: (1 + 2 * r.cos() + 2 * (2 * r).cos()) / 5,
        ]
        rates = [1, 3]
    else:
        d = space.dim
        moments = [torch.cos, lambda r: ((d + 1) * r.cos() ** 2 - 1) / d]
        rates = [d / 2, d + 1]
    mass, *values = integrals(space, t, [torch.ones_like, *moments])
    assert mass == pytest.approx(1, abs=1e-8)
    assert values == pytest.approx([math.exp(-rate * t) for rate in rates], abs=1e-8)


@spaces
@pytest.mark.parametrize("t", [0.3, 0.99, 2.0])
def test_the_score_is_the_gradient_of_the_log_density(space, t):
    x, y = points(space, 40), points(space, 40, seed=1)
    score = space.heat_kernel(x, y, t).score
    assert (space.tangent(x, score) - score).abs().max() < 1e-12
    v = space.normal(x, noise(40, 2))[0]
    h = 1e-4
    ends = [space.heat_kernel(space.exp(x, s * h * v), y, t).log_prob for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * h)
    far = space.distance(x, y) < 3  # geodesics through an antipode bend too much for h
    assert (slope - space.inner(score, v))[far].abs().max() < 1e-5


@spaces
def test_two_steps_of_samples_have_the_kernel_of_one(space):
    s, t, count = 0.4, 0.5, 4000
    x = points(space, 1).expand(count, *space.shape)
    y, after = space.heat_sample(x, torch.full((count,), s, dtype=F64), noise(count))
    for k in range(3):
        z = points(space, 3, seed=5)[k]
        p = space.heat_kernel(z.expand_as(y), y, t).log_prob.exp()
        whole = space.heat_kernel(z, x[0], s + t).log_prob.exp()
        within(p.mean(), whole, p.std() / count**0.5)
    z, _ = space.heat_sample(y, t, after)
    one, _ = space.heat_sample(x, s + t, noise(count, seed=9))
    for k in range(3):
        q = (-space.distance(z, points(space, 3, seed=5)[k].expand_as(z))).exp()
        other = (-space.distance(one, points(space, 3, seed=5)[k].expand_as(z))).exp()
        within(q.mean() - other.mean(), 0, ((q.var() + other.var()) / count).sqrt())


@pytest.mark.parametrize("space", [Torus(400), Product(Torus(200), Torus(200)), Sphere(600)])
def test_volumes_beyond_floating_point_have_logarithms(space):
    process = sf.spaces.Brownian(space)
    assert process.t_max == 10
    x, _ = space.uniform(noise(2), torch.zeros((), dtype=F64))
    truth = 400 * math.log(2 * math.pi)
    if isinstance(space, Sphere):
        half = mpmath.mpf(601) / 2
        truth = float(mpmath.log(2 * mpmath.pi**half / mpmath.gamma(half)))
    value = process.prior(0.0, 1.0, torch.tensor(1.0)).log_prob(x)
    assert (value + truth).abs().max() < 1e-9 * abs(truth)


@pytest.mark.parametrize(
    "space", [Torus(2), Sphere(2), SO3(), Product(Sphere(2), Torus(1))], ids=str
)
def test_the_uniform_law_is_the_reciprocal_of_the_volume(space):
    x = points(space, 4000)
    p = space.heat_kernel(x, points(space, 1, seed=4).expand_as(x), 0.8).log_prob.exp()
    within(p.mean() * space.volume, 1, p.std() * space.volume / 4000**0.5)


@pytest.mark.parametrize("t", [1e-4, 0.05, 1.0])
def test_sampled_radii_have_the_moments_of_the_kernel(t):
    space = Sphere(2)
    u = (torch.arange(4000, dtype=F64) + 0.5) / 4000
    x = torch.tensor([0.0, 0.0, 1.0], dtype=F64)
    top, time = min(math.pi, 10 * t**0.5), torch.tensor(t, dtype=F64)
    table = Table.of(top, lambda r: space.radial(r, time)[0].exp() * space.area(r))
    r = table.draw(u, torch.zeros(4000, dtype=torch.int64))
    assert float(r.cos().mean()) == pytest.approx(math.exp(-t), abs=2e-4 * t)
    count = 4000
    z = space.heat_sample(x.expand(count, 3), t, noise(count))[0][:, 2]
    within(z.mean(), math.exp(-t), z.std() / count**0.5)


@spaces
def test_a_sample_is_the_same_alone_and_in_a_batch(space):
    y = points(space, 6)
    x, after = space.heat_sample(y, 0.5, noise(6))
    alone, one = space.heat_sample(y[3:4], 0.5, sf.Noise(0, torch.tensor([3])))
    assert (x[3] - alone[0]).abs().max() < 1e-12
    assert after.step == one.step


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sphere(0), "d=0"),
        (lambda: Product(Sphere(2)), "two spaces"),
        (lambda: Sphere(4).heat_kernel(*torch.eye(5)[:2], 0.1), "times >= 0.3"),
        (lambda: Sphere(2).heat_kernel(*torch.eye(3)[:2], 0.0), "times >= 1e-05"),
        (lambda: SO3().heat_kernel(torch.eye(3), torch.eye(3), 1e-5), "4e-05"),
        (lambda: Torus(1).heat_sample(torch.zeros(1, 1), -1.0, noise(1)), "positive"),
        (lambda: Euclidean(2).uniform(noise(1), torch.zeros(())), "infinite volume"),
        (lambda: Sphere(2).check(torch.tensor([[1.0, 0, 0], [2, 0, 0]])), "point 1"),
        (lambda: Sphere(2).check(torch.tensor([[1.0, 0, 0], [math.nan, 0, 0]])), "point 1"),
        (lambda: SO3().check(-torch.eye(3)), "point 0"),
        (lambda: SO3().check(torch.eye(4)), "shape"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
