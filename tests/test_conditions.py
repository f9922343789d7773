"""Conditions with a row for each sample, in every use of a field."""

import pytest
import torch

import scorefield as sf

COUNT, BATCH = 10, 4
STD = 0.5


class Moved(sf.ScoreField):
    """The exact field of a Gaussian whose mean is its condition."""

    def estimate(self, x, at, m=0.0):
        m = torch.as_tensor(m).to(x)
        m, v = m.reshape(-1, *[1] * (x.ndim - 1)) if m.ndim else m, STD**2
        share = at.alpha * v / ((at.alpha**2 * v) + at.sigma**2)
        return sf.Estimate.from_x0(x, at, m + share * (x - at.alpha * m))


@pytest.fixture
def field():
    return Moved(sf.VP(), (2,), 0.0, 1.0)


@pytest.fixture
def means():
    return torch.linspace(-1, 1, COUNT)


def test_each_sample_has_its_own_condition_in_batches_of_any_size(field, means):
    together = sf.sample(field.condition_on(m=means), COUNT, seed=3, batch_size=BATCH)
    for k, m in enumerate(means.tolist()):
        alone = sf.sample(field.condition_on(m=m), [k], seed=3, batch_size=BATCH)
        assert torch.equal(alone[0], together[k])
    assert float((together.mean(1) - means).abs().max()) < 4 * STD


def test_rows_follow_samples_and_not_their_ids(field, means):
    ids = [7, 3, 11, 8, 0, 2, 5, 4, 90, 1]
    mixed = sf.sample(field.condition_on(m=means), ids, batch_size=BATCH)
    for row, k in enumerate(ids):
        alone = sf.sample(field.condition_on(m=float(means[row])), [k], batch_size=BATCH)
        assert torch.equal(alone[0], mixed[row])


@pytest.mark.parametrize("settings", [{}, {"times": sf.Adaptive(1e-5, 1e-5)}])
def test_likelihoods_are_of_each_samples_own_condition(field, means, settings):
    conditional = field.condition_on(m=means)
    x = means[:, None] + STD * torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(0))
    value = sf.log_prob(conditional, x, batch_size=BATCH, **settings).value
    exact = torch.distributions.Normal(means[:, None], STD).log_prob(x).sum(1)
    assert float((value - exact).abs().max()) < 0.02
    bound = sf.elbo(conditional, x, batch_size=BATCH, nfe=64)
    assert float(((bound.value - exact) / bound.stderr).abs().max()) < 5


def test_codes_come_back_and_points_between_have_the_condition_of_their_pair(field, means):
    conditional = field.condition_on(m=means)
    x = means[:, None] + torch.tensor([0.3, -0.2])
    codes = sf.encode(conditional, x, batch_size=BATCH)
    torch.testing.assert_close(codes.z, codes.z[:1].expand_as(codes.z), atol=0.05, rtol=0)
    back = sf.decode(conditional, codes, batch_size=BATCH)
    torch.testing.assert_close(back.x, x, atol=1e-4, rtol=0)
    between = sf.interpolate(conditional, x, x.flip(1), points=4, batch_size=BATCH)
    alone = sf.interpolate(
        field.condition_on(m=float(means[6])), x[6:7], x[6:7].flip(1), points=4, ids=[6]
    )
    torch.testing.assert_close(between.x[6], alone.x[0], atol=1e-4, rtol=0)


def test_restorations_are_under_the_condition_of_their_item(field, means):
    x = means[:, None].repeat(1, 2)
    x[:, 1] = torch.nan
    restored = sf.restore(field.condition_on(m=means), x, n=40, batch_size=16)
    torch.testing.assert_close(restored[..., 0], x[:, :1].expand(-1, 40))
    error = (restored[..., 1].mean(1) - means) / (STD / 40**0.5)
    assert float(error.abs().max()) < 4


def test_wrappers_pass_the_rows_on(field, means):
    plain = sf.sample(field.condition_on(m=means), COUNT, batch_size=BATCH)
    other = field.under(sf.VP(beta_max=15.0, t_min=1e-4)).condition_on(m=means)
    torch.testing.assert_close(sf.sample(other, COUNT, batch_size=BATCH), plain, atol=0.02, rtol=0)
    conditional = field.condition_on(m=means)
    product = sf.Product([conditional, field.condition_on(m=means)], (0.5, 0.5))
    torch.testing.assert_close(
        sf.sample(product, COUNT, batch_size=BATCH), plain, atol=1e-4, rtol=0
    )
    negative = {"m": torch.tensor(0.0)}
    guided = sf.ClassifierFree(field, 1.5, negative=negative).condition_on(m=means)
    pushed = sf.sample(guided, COUNT, batch_size=BATCH)
    one = sf.ClassifierFree(field, 1.5, negative=negative).condition_on(m=float(means[5]))
    assert torch.equal(sf.sample(one, [5], batch_size=BATCH)[0], pushed[5])


def test_calls_of_a_batch_are_counted(field, means):
    conditional = field.condition_on(m=means)
    with sf.count_calls(conditional) as calls:
        sf.sample(conditional, COUNT, sf.DDIM(), 5, batch_size=BATCH)
    assert calls.count == 3 * 6


@pytest.mark.parametrize(
    "use",
    [
        lambda field, x: sf.sample(field, len(x)),
        lambda field, x: sf.log_prob(field, x),
        lambda field, x: sf.elbo(field, x),
        lambda field, x: sf.encode(field, x),
        lambda field, x: sf.restore(field, torch.full_like(x, torch.nan)),
    ],
    ids=["sample", "log_prob", "elbo", "encode", "restore"],
)
def test_another_number_of_rows_is_rejected(field, means, use):
    with pytest.raises(ValueError, match="the condition m has 10 rows for 7 samples"):
        use(field.condition_on(m=means), torch.zeros(7, 2))


@pytest.mark.slow
def test_a_mixture_whose_weights_depend_on_a_condition_is_learned():
    """Modes at -1 and 1, the second with the weight of a logistic function of the condition."""

    def pairs(count, seed):
        g = torch.Generator().manual_seed(seed)
        c = torch.randn(count, 1, generator=g)
        mode = 2.0 * (torch.rand(count, 1, generator=g) < torch.sigmoid(2 * c)) - 1
        return mode + 0.3 * torch.randn(count, 1, generator=g), c

    x, c = pairs(10_000, 0)
    settings = {"steps": 800, "batch_size": 256, "lr": 2e-3, "end": "last", "held_out": 0.0}
    run = sf.train(x, {"c": c}, network={"kind": "mlp", "width": 64, "depth": 2}, **settings)
    held, seen = pairs(400, 1)
    low, high = (torch.distributions.Normal(m, 0.3).log_prob(held) for m in (-1.0, 1.0))
    weight = torch.nn.functional.logsigmoid(2 * seen)
    exact = torch.logaddexp(low + weight - 2 * seen, high + weight)[:, 0]
    value = run.log_prob(held, nfe=24, given={"c": seen}).value
    assert abs(float((value - exact).mean())) < 0.02
    for given in (-1.0, 0.0, 1.5):
        z = run.sample(2000, nfe=12, given={"c": given}, batch_size=500)
        share = float(torch.sigmoid(torch.tensor(2 * given)))
        error = float((z > 0).double().mean()) - share
        assert abs(error) < 4 * (share * (1 - share) / 2000) ** 0.5
        spread = float((z - z.sign()).square().mean().sqrt())
        assert abs(spread - 0.3) < 0.03
