"""Several observations of a run together, against the posterior in closed form."""

import numpy as np
import pytest
import torch
from cases import normal
from shell import TINY, end, finishes
from torch import nn

import scorefield as sf
from scorefield._internal.errors import DataError, UsageError
from scorefield.report.calibration import calibration_section
from scorefield.report.context import ReportContext
from scorefield.runs import together
from scorefield.runs.together import posterior_of_all

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


def test_sampling_starts_from_the_moments_of_the_posterior_of_all():
    run, rows = exact(conditional=True, dropout=0.1), SEEN[:8]
    variance = 1 / (1 + len(rows) / NOISE**2)
    mean = (variance * rows.sum(0) / NOISE**2 - run.transform.mean) / run.transform.std
    field = posterior_of_all(run, {"y": rows})
    off = (field.mean - mean).abs().max() / variance**0.5
    assert float(off) < 4 * (8 / 512) ** 0.5  # the errors of eight means of 512 draws
    torch.testing.assert_close(
        field.variance, torch.full((2,), variance).double(), rtol=0.15, atol=0
    )


def test_the_calibration_of_a_run_is_that_of_its_draws():
    """Of an exact field it is good, of one that sees another condition it is not."""
    run, items = exact(conditional=True, dropout=0.1), sf.read(THETA, {"y": SEEN})
    good = run.calibrate(items, pairs=300, draws=39, nfe=8)
    assert all(c.low - 0.02 < c.level < c.high + 0.02 for c in good.coverage)
    assert good.accuracy.low < 0.5 < good.accuracy.high
    shuffled = sf.read(THETA, {"y": SEEN.roll(1, 0)})
    bad = run.calibrate(shuffled, pairs=300, draws=39, nfe=8, levels=(0.5,))
    assert bad.coverage[0].high < 0.4
    assert bad.accuracy.low > 0.5
    with pytest.raises(DataError, match="has no y; pass those of its items"):
        run.calibrate(THETA)
    with pytest.raises(UsageError, match="has 19 items to measure calibration with"):
        run.calibrate(sf.read(THETA[:19], {"y": SEEN[:19]}))


def test_a_run_without_conditions_has_no_calibration():
    run = sf.Run.of(
        sf.Denoiser(Exact(), sf.VP(), sf.X0(), (2,), label=sf.ratio_label).eval(), THETA
    )
    with pytest.raises(UsageError, match=r"calibrate: this run is of samples of shape \(2,\)"):
        run.calibrate(THETA)


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


# --- at the command line --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with simulations and a run of them."""
    folder = tmp_path_factory.mktemp("together")
    np.savez(folder / "sims.npz", theta=THETA[:300], x=SEEN[:300])
    arrays = ["--sample", "theta", "--condition", "x"]
    finishes("train", folder / "sims.npz", *arrays, "--out", folder / "run", *TINY)
    np.save(folder / "seen.npy", SEEN[:3])
    return folder


def test_the_command_samples_given_all_observations_as_python_does(folder):
    out = folder / "all.npy"
    finishes(
        "sample", folder / "run", "--n", 70, "--nfe", 3, "--batch-size", 8,
        "--given-from", folder / "seen.npy", "--together", "--out", out,
    )  # fmt: skip
    settings = {"given": {"x": SEEN[:3]}, "together": True, "batch_size": 8}
    expected = sf.load(folder / "run").sample(70, nfe=3, **settings)
    assert np.array_equal(np.load(out), expected.numpy())


def test_moments_are_drawn_once_for_all_parts(folder, monkeypatch):
    calls = []
    monkeypatch.setattr(together, "_moments", lambda f: calls.append(f) or own(f))
    finishes(
        "sample", folder / "run", "--n", 9, "--nfe", 3, "--batch-size", 2,
        "--given-from", folder / "seen.npy", "--together", "--out", folder / "parts.npy",
    )  # fmt: skip
    assert len(calls) == 1
    assert len(calls[0]) == 4


own = together._moments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--together: give the observations by --given-from"),
        (["--given", "x=1,2", "--guidance", 2], "posteriors of a guided run do not compose"),
    ],
)
def test_what_the_command_refuses(folder, capsys, arguments, message):
    assert end("sample", folder / "run", "--together", *arguments) == 2
    assert message in capsys.readouterr().err


def test_comparing_prints_the_calibration_of_pairs(folder, capsys):
    few = ["--nfe", 4, "--solvers", "default", "--metrics", "energy"]
    new = folder / "new.npz"
    np.savez(new, theta=THETA[300:440], x=SEEN[300:440])
    finishes("compare", folder / "run", new, "--condition", "x", *few)
    shown = " ".join(capsys.readouterr().out.split())
    assert "calibration of 99 draws given the conditions of each item: coverage 50 %:" in shown
    assert "best 0.5" in shown
    np.save(folder / "theta.npy", THETA[300:440])
    finishes("compare", folder / "run", folder / "theta.npy", *few, "--overwrite")
    assert "no calibration: it needs" in capsys.readouterr().out


def test_the_report_has_a_chart_of_the_coverage(folder):
    items = sf.read(folder / "sims.npz", "x", key="theta")
    run = sf.load(folder / "run")
    section = calibration_section(ReportContext(run, items, seed=1))
    ((charts,),) = (section.parts,)
    result = run.calibrate(items, pairs=100, draws=39, levels=(0.5, 0.9), nfe=10, seed=1)
    points = dict(charts.charts[0].series[1].points)
    assert [points[0.5], points[0.9]] == [each.share for each in result.coverage]
    bars = charts.charts[1].series[0].points
    area = sum(
        x * y
        for (x, y) in zip(np.diff([p[0] for p in bars]), [p[1] for p in bars][1:], strict=True)
    )
    assert area == pytest.approx(1)
    assert calibration_section(ReportContext(run, THETA)).parts[0].command.endswith("NAMES")
