"""Guidance: scores that are sums of scores, against densities whose gradients are exact."""

import math

import pytest
import torch
from cases import PROCESS_IDS, PROCESSES, classes, normal
from torch import nn

import scorefield as sf
from scorefield.field import digest
from scorefield.networks import MLP

MEANS = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.5]], dtype=torch.float64)
COVS = torch.stack(
    [torch.diag(torch.tensor(v).double()) for v in ([0.3, 0.1], [0.2, 0.2], [0.1, 0.4])]
)
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


def everything(process):
    return sf.Mixture(process, WEIGHTS, MEANS, COVS)


def part(process, k):
    return sf.Gaussian(process, MEANS[k], COVS[k])


class Labelled(sf.ScoreField):
    """The mixture, or the component of each sample's class."""

    def __init__(self, process):
        whole = everything(process)
        super().__init__(process, (2,), whole.mean, whole.variance)
        self.whole = whole
        self.parts = nn.ModuleList(part(process, k) for k in range(3))

    def estimate(self, x, at, y=None):
        y = torch.full((len(x),), -1) if y is None else y.expand(len(x))
        fields = [self.whole, *self.parts]
        x0, eps = torch.zeros_like(x), torch.zeros_like(x)
        for k, field in enumerate(fields, -1):
            found, own = field(x, at.t), (y == k)[:, None]
            x0, eps = torch.where(own, found.x0, x0), torch.where(own, found.eps, eps)
        return sf.Estimate(x, at, (x0, eps))


def slope(log_density, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(log_density(x).sum(), x)[0]


def middle(process):
    return torch.tensor((process.t_min + process.t_max) / 2, dtype=torch.float64)


class Told(sf.ScoreField):
    """Gaussians of unit variance about what is told ``(B, tokens, 2)``, its mean over tokens."""

    def estimate(self, x, at, text):
        mean = text.mean(1)
        total = at.alpha**2 + at.sigma**2
        x0 = mean + at.alpha / total * (x - at.alpha * mean)
        return sf.Estimate.from_x0(x, at, x0)


@pytest.mark.parametrize("rows", [1, 5])
def test_a_condition_that_is_an_array_may_be_one_for_all_or_one_for_each(rows):
    field, x = Told(sf.VP(), (2,)), normal(5, 2)
    wanted, negative = normal(rows, 3, 2, seed=1), normal(1, 3, 2, seed=2)
    guided = sf.ClassifierFree(field, 3.0, negative={"text": negative}).condition_on(text=wanted)
    one, other = (field(x, 0.4, text=text.expand(5, 3, 2)).score for text in (wanted, negative))
    expected = other + 3 * (one - other)
    torch.testing.assert_close(guided(x, 0.4).score, expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="rows for a batch of 4 samples"):
        sf.ClassifierFree(field, 3.0, negative={"text": normal(3, 3, 2)})(x[:4], 0.4, text=wanted)


@pytest.mark.parametrize("name", PROCESS_IDS)
@pytest.mark.parametrize("negative", [None, {"y": -1}, {"y": 2}])
def test_classifier_free_guidance_is_the_gradient_of_powers_of_densities(name, negative):
    process = PROCESSES[name]
    field, x, t = Labelled(process), normal(7, 2, seed=0), middle(process)
    against = field.whole if negative in (None, {"y": -1}) else field.parts[2]
    for w in (0.0, 0.5, 3.0):
        guided = sf.ClassifierFree(field, w, negative=negative).condition_on(y=torch.tensor(1))
        exact = slope(
            lambda v, w=w: w * field.parts[1].log_prob(v, t) + (1 - w) * against.log_prob(v, t), x
        )
        found = guided(x, t)
        torch.testing.assert_close(found.score, exact, rtol=1e-8, atol=1e-8)
        alpha, sigma = process.coefficients(t)
        torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, x, rtol=1e-9, atol=1e-9)


def test_scale_one_is_the_conditional_field_bit_for_bit_and_costs_no_more():
    field, plan = Labelled(sf.VP()), sf.default_plan(Labelled(sf.VP()), 6)
    guided = sf.ClassifierFree(field, 1.0, negative={"y": -1}).condition_on(y=torch.tensor(1))
    with sf.count_calls(field) as calls:
        x = sf.sample(guided, 8, plan, batch_size=8)
    assert (calls.count, calls.rows) == (6, 48)
    assert torch.equal(x, sf.sample(field.condition_on(y=torch.tensor(1)), 8, plan, batch_size=8))


def test_with_a_negative_condition_both_are_one_call():
    field, x = Labelled(sf.VP()), normal(5, 2, seed=1)
    y, t = torch.tensor([0, 1, 2, 0, 1]), torch.linspace(0.2, 0.8, 5).double()
    one = sf.ClassifierFree(field, 2.0, negative={"y": -1}).condition_on(y=y)
    two = sf.ClassifierFree(field, 2.0).condition_on(y=y)
    with sf.count_calls(field) as calls:
        found = one(x, t)
    assert (calls.count, calls.rows) == (1, 10)
    with sf.count_calls(field) as calls:
        other = two(x, t)
    assert (calls.count, calls.rows) == (2, 10)
    torch.testing.assert_close(found.x0, other.x0)
    torch.testing.assert_close(found.eps, other.eps)


def test_scales_may_be_of_an_interval_and_follow_a_schedule():
    process = sf.VP()
    field, x = Labelled(process), normal(4, 2, seed=2)
    y = torch.tensor(0)

    def growing(ratio):
        return 1 + ratio

    guided = sf.ClassifierFree(field, growing, interval=(0.5, 2.0)).condition_on(y=y)
    ratios = torch.tensor([0.4, 0.6, 1.9, 2.1], dtype=torch.float64)
    for ratio in ratios:
        t = process.time(-ratio.log())
        w = 1 + float(ratio) if 0.5 <= ratio <= 2 else 1.0
        plain = sf.ClassifierFree(field, w).condition_on(y=y)(x, t)
        torch.testing.assert_close(guided(x, t).x0, plain.x0)
    each = guided(x, process.time(-ratios.log())).x0  # a time for each sample
    alone = [guided(x[k : k + 1], process.time(-r.log())).x0 for k, r in enumerate(ratios)]
    torch.testing.assert_close(each, torch.cat(alone))


def test_rescaling_brings_back_the_deviation_of_each_sample():
    field, t = Labelled(sf.VP()), torch.tensor(0.4)
    x, y = normal(6, 2, seed=3), torch.tensor(2)
    plain = field(x, t, y=y).x0.std(1)
    wild = sf.ClassifierFree(field, 4.0).condition_on(y=y)(x, t).x0.std(1)
    for rescale in (0.5, 1.0):
        found = sf.ClassifierFree(field, 4.0, rescale=rescale).condition_on(y=y)(x, t)
        wanted = rescale * plain + (1 - rescale) * wild
        torch.testing.assert_close(found.x0.std(1), wanted)
        alpha, sigma = sf.VP().coefficients(t.double())
        torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, x)


def test_a_guided_sample_does_not_depend_on_its_batch_and_has_a_likelihood():
    field = Labelled(sf.VP())
    guided = sf.ClassifierFree(field, 2.0, negative={"y": -1}).condition_on(y=torch.tensor(1))
    x = sf.sample(guided, 10, seed=4, batch_size=64)
    assert torch.equal(sf.sample(guided, [7, 3], seed=4, batch_size=64), x[[7, 3]])
    assert sf.log_prob(guided, x[:3], nfe=20).value.isfinite().all()


def test_a_plan_belongs_to_a_guidance_scale():
    field = Labelled(sf.VP())
    two, three = (sf.ClassifierFree(field, w) for w in (2.0, 3.0))
    plan = sf.tune(two, 4, noises=16, tries=12, conditions={"y": torch.arange(3)})
    for y in range(3):
        assert sf.sample(two.condition_on(y=torch.tensor(y)), 4, plan).isfinite().all()
    with pytest.raises(ValueError, match=f"{digest(two)[:12]}.*{digest(three)[:12]}"):
        sf.sample(three.condition_on(y=torch.tensor(1)), 4, plan)


def posterior(process, k):
    """Return the exact classifier of noisy data."""
    whole, own = everything(process), part(process, k)

    def log_q(x, t):
        return WEIGHTS[k].log() + own.log_prob(x, t[0]) - whole.log_prob(x, t[0])

    return log_q


@pytest.mark.parametrize("name", PROCESS_IDS)
def test_the_exact_classifier_makes_the_conditional_field(name):
    process = PROCESSES[name]
    guided, own = sf.Tilted(everything(process), posterior(process, 1)), part(process, 1)
    x, t = normal(6, 2, seed=5), middle(process)
    torch.testing.assert_close(guided(x, t).x0, own(x, t).x0, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(guided(x, t).eps, own(x, t).eps, rtol=1e-7, atol=1e-9)
    sharp = sf.Tilted(everything(process), posterior(process, 1), 3.0)(x, t).score
    whole = everything(process)(x, t).score
    torch.testing.assert_close(sharp, whole + 3 * (own(x, t).score - whole), rtol=1e-7, atol=1e-7)


def test_the_likelihood_of_a_tilted_field_is_that_of_the_conditional_law():
    process = sf.VP(t_min=1e-6)
    guided, own = sf.Tilted(everything(process), posterior(process, 1)), part(process, 1)
    guided.mean, guided.variance = own.mean, own.variance
    x = own.data(normal(5, 2, seed=6), torch.rand(5)).double()
    found = sf.log_prob(guided, x, nfe=60, probes=0)
    torch.testing.assert_close(found.value, own.log_prob(x, process.t_min), rtol=1e-3, atol=1e-3)


def test_a_potential_of_clean_data_pushes_through_the_posterior_mean():
    """On a Gaussian the mean is linear, and so the push is known."""
    process, t = sf.VP(), torch.tensor(0.5, dtype=torch.float64)
    own, wanted = part(process, 0), torch.tensor([0.3, -0.2], dtype=torch.float64)

    def log_q(x0):
        return -((x0 - wanted) ** 2).sum(1) / 2

    alpha, sigma = process.coefficients(t)
    x = normal(5, 2, seed=7)
    e = COVS[0].diagonal()
    jacobian = alpha * e / (alpha**2 * e + sigma**2)
    exact = own(x, t).score + 2 * jacobian * (wanted - own(x, t).x0)
    found = sf.Tilted(own, log_q, 2.0, clean=True)(x, t)
    torch.testing.assert_close(found.score, exact, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, x)
    with torch.no_grad():
        torch.testing.assert_close(sf.Tilted(own, log_q, 2.0, clean=True)(x, t).score, exact)


@pytest.mark.parametrize("weights", [(1.0, 1.0, -1.0), (0.5, 0.5, 0.0), (1.0, 2.0, -0.5)])
@pytest.mark.parametrize("name", PROCESS_IDS)
def test_a_product_has_the_sum_of_scores(name, weights):
    process = PROCESSES[name]
    fields = [part(process, 0), part(process, 1), everything(process)]
    x, t = normal(5, 2, seed=8), middle(process)
    exact = slope(
        lambda v: sum(w * f.log_prob(v, t) for w, f in zip(weights, fields, strict=True)), x
    )
    found = sf.Product(fields, weights)(x, t)
    torch.testing.assert_close(found.score, exact, rtol=1e-8, atol=1e-8)
    alpha, sigma = process.coefficients(t)
    torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, x, rtol=1e-8, atol=1e-8)


def test_a_product_of_one_law_over_another_makes_the_samples_of_their_quotient():
    """Two wide Gaussians over the same one: what is left is one of them."""
    process = sf.VP(t_min=1e-6)
    own, other = part(process, 0), part(process, 1)
    product = sf.Product([own, other, other], (1.0, 1.0, -1.0), own.mean, own.variance)
    torch.testing.assert_close(sf.sample(product, 9), sf.sample(own, 9), rtol=1e-4, atol=1e-5)


def test_a_product_is_too_narrow_by_the_ode_and_has_no_likelihood():
    """The product of N(0, 1) and N(0, 1/4) is N(0, 1/5); the ODE's samples nearly all are 0."""
    process = sf.VP()
    wide, narrow = (
        sf.Gaussian(process, torch.zeros(1), torch.full((1, 1), v)) for v in (1.0, 0.25)
    )
    product = sf.Product([wide, narrow], (1.0, 1.0), 0.0, 0.2)
    x = sf.sample(product, 256, sf.Heun(), 100)
    assert float(x.var()) < 0.02, "not the 0.2 of the product"
    for field in (product, product.under(sf.EDM(t_max=80.0)), sf.ClassifierFree(product, 1.0)):
        with pytest.raises(ValueError, match="a Product has no density"):
            sf.log_prob(field, x[:2])
    with pytest.raises(ValueError, match="a Product has no density"):
        sf.elbo(product, x[:2])
    one = sf.Product([narrow, wide], (1.0, 0.0))
    found, expected = (sf.log_prob(f, x[:2].double()).value for f in (one, narrow))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: sf.sample(sf.ClassifierFree(f, 2.0), 2), "guidance needs one"),
        (
            lambda f: sf.sample(sf.ClassifierFree(f, 2.0, negative={"z": 1}).condition_on(y=1), 2),
            r"\['y'\].*\['z'\]",
        ),
        (lambda f: sf.ClassifierFree(f, 2.0, interval=(2, 1)), "low < high"),
        (lambda f: sf.ClassifierFree(f, 2.0, rescale=2), "from 0 to 1"),
        (lambda f: sf.Product([f, f], (1.0,)), "1 weights for 2 fields"),
        (lambda f: sf.Product(f, f), "give a list"),
        (lambda f: sf.Product([f, part(sf.Flow(), 0)], (1.0, 1.0)), "one process"),
        (lambda f: sf.Product([], ()), "0 weights for 0 fields"),
        (lambda f: sf.Tilted(f, lambda x, t: x)(normal(3, 2, seed=0), 0.5), r"shape \(3, 2\)"),
    ],
)
def test_what_makes_no_guidance_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(Labelled(sf.VP()))


def test_a_guided_network_makes_finite_samples():
    torch.manual_seed(0)
    network = MLP(2, width=8, depth=1, conditions=classes(3))
    field = sf.Denoiser(network, sf.VP(), sf.V(), shape=(2,)).eval()
    guided = sf.ClassifierFree(field, 2.0, negative={"y": -1}).condition_on(y=torch.tensor(1))
    x = sf.sample(guided, 5)
    y = sf.sample(sf.ClassifierFree(field, 2.0).condition_on(y=torch.tensor(1)), 5)
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    assert not math.isnan(float(x.sum()))


class Towards(sf.FieldWrapper):
    """Guidance of one's own: the density times ``exp(b . x)``, whose score is b more."""

    def estimate(self, x, at, **condition):
        found = self.base(x, at.prepared, **condition)
        return sf.Estimate.from_score(x, at, found.score + 0.5)


class Direct(sf.ScoreField):
    """The same, written without a word about what is prepared."""

    def __init__(self, base):
        super().__init__(base.process, base.shape, base.mean, base.variance)
        self.base = base

    def estimate(self, x, at):
        return sf.Estimate.from_score(x, at, self.base(x, at).score + 0.5)


def test_guidance_of_ones_own_works_with_every_solver_around_every_field():
    base = sf.Denoiser(Linear(), sf.VP(), sf.V(), (2,))
    x = normal(4, 2, dtype=torch.float32)
    for guided in (Towards(base), Direct(base)):
        torch.testing.assert_close(guided(x, 0.3).score, base(x, 0.3).score + 0.5)
        for solver in (sf.Heun(), sf.Multistep(3), sf.EulerMaruyama()):
            assert torch.equal(
                sf.sample(guided, 4, solver, 5), sf.sample(Towards(base), 4, solver, 5)
            )


class Linear(torch.nn.Module):
    def forward(self, x, label):
        return 0.3 * x + 0.1 * label[:, None]
