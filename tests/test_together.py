"""Several observations of a run together, against the posterior in closed form."""

import pytest
import torch
from cases import normal
from torch import nn

import scorefield as sf
from scorefield._internal.errors import UsageError

NOISE = 0.5
THETA = normal(2000, 2).float()
SEEN = THETA + NOISE * normal(2000, 2, seed=1).float()


class Exact(nn.Module):
    """E[theta | noisy theta, y] for theta from N(0, I) and y = theta + NOISE n."""

    mean, std = torch.zeros(2), torch.ones(2)

    def forward(self, x, label, y=None):
        alpha = (1 + label**2).rsqrt()[:, None]
        sigma = alpha * label[:, None]
        y = torch.full_like(x, torch.nan) if y is None else y.expand(len(x), 2)
        hidden = y.isnan()
        y = torch.where(hidden, 0.0, y * self.std + self.mean)
        variance = torch.where(hidden, 1.0, NOISE**2 / (1 + NOISE**2))
        mean = torch.where(hidden, 0.0, y / (1 + NOISE**2))
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return mean + gain * (x - alpha * mean)


def exact(**settings):
    network = Exact()
    denoiser = sf.Denoiser(network, sf.VP(), sf.X0(), (2,), label=sf.ratio_label).eval()
    run = sf.Run.of(denoiser, sf.read(THETA, {"y": SEEN}), **settings)
    (channel,) = run.config.data.conditions
    network.mean, network.std = torch.tensor(channel.mean), torch.tensor(channel.std)
    return run


@pytest.mark.parametrize("count", [1, 8])
def test_observations_together_have_the_posterior_of_all(count):
    """Within 4 standard errors of 2,000 draws, and 10 % for the covariances of 512 draws."""
    run = exact(conditional=True, dropout=0.1)
    rows, n = SEEN[:count], 2000
    variance = 1 / (1 + count / NOISE**2)
    mean = variance * rows.sum(0) / NOISE**2
    x = run.sample(n, sf.Heun(), 40, given={"y": rows}, together=True, batch_size=1000)
    assert float((x.mean(0) - mean).abs().max()) < 4 * (variance / n) ** 0.5 + 0.1 * variance**0.5
    off = torch.cov(x.T) / variance - torch.eye(2)
    assert float(off.abs().max()) < 4 * (2 / n) ** 0.5 + 0.1


def test_samples_do_not_depend_on_the_others():
    run = exact(conditional=True, dropout=0.1)
    settings = {"given": {"y": SEEN[:2]}, "together": True, "nfe": 4}
    x = run.sample(8, batch_size=8, **settings)
    torch.testing.assert_close(run.sample([5], batch_size=8, **settings)[0], x[5], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        (lambda run: run, None, "together: give the observations"),
        (lambda run: run.guided(2.0), {"y": SEEN[:2]}, "use guidance=1"),
        (lambda run: exact(conditional=True), {"y": SEEN[:2]}, "did not learn the prior"),
        (lambda run: run, {"z": SEEN[:2]}, "this run has the conditions y"),
    ],
)
def test_unfit_observations_are_rejected(change, given, message):
    run = change(exact(conditional=True, dropout=0.1))
    with pytest.raises(UsageError, match=message):
        run.sample(2, given=given, together=True)
