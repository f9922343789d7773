"""Codecs that are trained here, and runs of their latents, against closed forms."""

import math

import numpy as np
import pytest
import torch
from cases import normal
from safetensors.torch import load_file, save_file
from scipy import stats
from shell import TINY, end, finishes
from torch import nn

import scorefield as sf
from scorefield._internal.errors import CheckpointError, DataError, NumericalError, UsageError
from scorefield.data import CellSimulator
from scorefield.data.config import ReadingConfig
from scorefield.data.latents import quantiles
from scorefield.networks import CountsVAE

SIM = CellSimulator(genes=40, types=3, drugs=1, library=300.0, dropout=0.0, theta=4.0)


class Zero(nn.Module):
    """A network without output, which makes the field that of a standard normal distribution."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x, label):
        return self.weight * x


EXACT = {"steps": 1, "batch_size": 8, "lr": 1e-9}


@pytest.fixture(scope="module")
def cells():
    return SIM.draw(3000)


@pytest.fixture(scope="module")
def counts_codec(cells):
    return sf.train_codec(cells.counts, "nb", size=6, width=64, steps=400, lr=3e-3)


def factors(count):
    """Gaussian vectors of three factors in ten dimensions with little noise."""
    return 2 + normal(count, 3) @ normal(3, 10, seed=1) + 0.1 * normal(count, 10, seed=2)


def named(x, names, **reading):
    columns = sf.data.source.ColumnsConfig(names=tuple(names))
    choices = ReadingConfig(**reading)
    return sf.Data(torch.as_tensor(x), name="cells", columns=columns, reading=choices)


def test_principal_components_are_those_of_the_singular_values():
    x = factors(300).float().reshape(300, 2, 5)
    codec = sf.train_codec(x, size=4, held_out=0.0)
    flat = x.flatten(1).double().numpy()
    _, _, rows = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    rows = rows[:4] * np.sign(rows[np.arange(4), np.abs(rows[:4]).argmax(1)])[:, None]
    z = (flat - flat.mean(0)) @ rows.T
    torch.testing.assert_close(codec.encode(x).double(), torch.tensor(z), rtol=1e-4, atol=1e-4)
    back = torch.tensor(z @ rows + flat.mean(0)).float().reshape(x.shape)
    torch.testing.assert_close(codec.decode(codec.encode(x)), back, rtol=1e-4, atol=1e-4)
    rest = ((x - back) ** 2).sum() / (x - x.mean(0)).square().sum()
    assert codec.reconstruction.error == pytest.approx(float(rest), rel=1e-3)
    assert codec.encode(x[:0]).shape == (0, 4)
    assert torch.equal(codec.encode(x[7:8])[0], codec.encode(x)[7]), "whatever the others are"


def test_the_bound_of_an_autoencoder_is_the_density_of_gaussian_factors():
    """The posterior of a linear Gaussian model is Gaussian, so the bound is tight."""
    loadings, noise = normal(2, 5, seed=1), 0.3
    x = (normal(3000, 2) @ loadings + noise * normal(3000, 5, seed=2)).float()
    codec = sf.train_codec(x[:2600], "vae", size=2, width=16, steps=400, lr=1e-2)
    covariance = (loadings.T @ loadings + noise**2 * torch.eye(5)).numpy()
    exact = stats.multivariate_normal(np.zeros(5), covariance).logpdf(x[2600:].numpy())
    bound = -codec.module.loss(x[2600:], normal(400, 2, seed=9).float()).double().numpy()
    gap = exact - bound
    assert -4 * gap.std() / 20 < gap.mean() < 0.5


def test_the_likelihood_of_counts_is_near_that_of_their_own_distribution(cells, counts_codec):
    x, mean, z = cells.counts, cells.mean, counts_codec.encode(cells.counts)
    with torch.no_grad():
        decoded, theta = counts_codec.decode(z), counts_codec.module.theta
        own = counts_codec.module.log_prob(x, z)
    p = (theta / (theta + decoded)).double().numpy()
    np.testing.assert_allclose(own, stats.nbinom.logpmf(x, theta.double(), p), rtol=1e-3, atol=1e-3)
    truth = stats.nbinom.logpmf(x, SIM.theta, SIM.theta / (SIM.theta + mean)).mean()
    result = counts_codec.reconstruction
    assert result.items == 300
    assert truth - 0.06 < result.error < truth + 0.04
    assert result.baseline < truth - 0.2


def test_the_last_latent_is_the_library_size(cells, counts_codec):
    z = counts_codec.encode(cells.counts[:50])
    torch.testing.assert_close(z[:, -1].exp(), cells.counts[:50].sum(1), rtol=1e-5, atol=1e-3)
    z[:, -1] += math.log(3)
    total = counts_codec.decode(z).sum(1)
    torch.testing.assert_close(total, 3 * cells.counts[:50].sum(1), rtol=1e-4, atol=1e-2)


def test_latents_of_integers_and_arrays(cells, counts_codec):
    x = cells.counts[:5]
    z = counts_codec.encode(x)
    for same in (x.long(), x.numpy(), x.int().numpy()):
        assert torch.equal(counts_codec.encode(same), z)
    assert torch.equal(counts_codec.decode(z.numpy()), counts_codec.decode(z))
    with pytest.raises(DataError, match=r"z has shape \(5, 3\); give \(B, 7\) latents"):
        counts_codec.decode(z[:, :3])
    with pytest.raises(DataError, match=r"1 value\(s\) that are not counts"):
        counts_codec.encode(torch.full((1, 40), 2.0).index_fill(1, torch.tensor(3), math.inf))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_without_gradients_around_it(mode):
    x = factors(40).float()
    settings = {"size": 2, "width": 4, "steps": 2}
    with mode():
        inside = sf.train_codec(x, "vae", **settings)
    assert inside.digest == sf.train_codec(x, "vae", **settings).digest


def test_decoded_counts_are_negative_binomial():
    codec = CountsVAE((2,), 1, 4)
    with torch.no_grad():
        codec.log_theta.copy_(torch.tensor([0.5, 2.0]))
    mean = torch.tensor([[0.7, 900.0]]).expand(4000, 2)
    u = (torch.arange(4000, dtype=torch.float64) + 0.5)[:, None].expand(4000, 2) / 4000
    x = quantiles(u, mean, codec.theta).double().numpy()
    theta = codec.theta.detach().double().numpy()
    for k in range(2):
        law = stats.nbinom(theta[k], theta[k] / (theta[k] + float(mean[0, k])))
        grid = np.arange(0, 3 * float(mean[0, k]), max(1, float(mean[0, k]) // 5))
        shares = (x[:, k, None] <= grid).mean(0)
        np.testing.assert_allclose(shares, law.cdf(grid), atol=1 / 4000)


def test_a_run_of_components_has_the_covariance_of_the_data(tmp_path):
    """The field of Gaussian latents is exact, so samples are Gaussian in the span."""
    x = factors(2000).float()
    codec = sf.train_codec(x, size=3)
    codec.save(tmp_path / "codec")
    run = sf.train(x, codec=tmp_path / "codec", network=Zero(), **EXACT)
    assert run.field.shape == (3,)
    samples = run.sample(2000, nfe=30)
    a, b = (torch.cov(each.T).double() for each in (x, samples))
    assert ((a - b).abs() < 5 * (a.diag().outer(a.diag()) / 1000).sqrt() + 0.02).all()
    assert (samples.mean(0) - x.mean(0)).abs().max() < 0.3
    moments = codec.encode(x)
    torch.testing.assert_close(run.transform.mean, moments.mean(0), rtol=1e-3, atol=1e-3)
    codes = run.encode(x[:3], nfe=30)
    back = run.decode(codes).x
    torch.testing.assert_close(back, codec.decode(codec.encode(x[:3])), rtol=1e-2, atol=1e-2)
    run.save(tmp_path / "run")
    assert torch.equal(
        sf.load(tmp_path / "run", network=Zero).sample(5, nfe=5), run.sample(5, nfe=5)
    )
    with pytest.raises(UsageError, match="data has no density under them"):
        run.log_prob(x[:2])
    with pytest.raises(UsageError, match="not linear in them"):
        run.restore(torch.full((1, 10), math.nan))


def test_latents_are_drawn_from_their_posterior(cells, counts_codec):
    """The moments of the field are those of the latents with the noise of the encoder."""
    training = sf.Training(sf.Data(cells.counts), sf.TrainConfig(), codec=counts_codec)
    mean, std = counts_codec.module.posterior(cells.counts)
    variance = mean.double().var(0, correction=0) + std.double().square().mean(0)
    torch.testing.assert_close(training.transform.std.double() ** 2, variance, rtol=1e-4, atol=0)
    noise = sf.Noise(3, torch.arange(3000))
    eps = (training.encoding.forward(cells.counts, noise).v - mean) / std
    assert stats.kstest(eps[:, :6].flatten().numpy(), "norm").pvalue > 1e-3
    assert (std[:, 6] == 0).all()


def test_a_run_of_counts_returns_counts(cells, counts_codec, tmp_path):
    run = sf.train(cells.counts, codec=counts_codec, network=Zero(), **EXACT)
    x = run.sample(400, nfe=10)
    assert (x == x.floor()).all()
    assert (x >= 0).all()
    assert torch.equal(run.sample([7], nfe=10), x[7:8]), "counts depend on the seed and the id"
    assert not torch.equal(run.sample(400, nfe=10, seed=1), x)
    # of Gaussian latents: the library sizes are log-normal in the data, too
    sizes = [each.sum(1).log() for each in (x, cells.counts)]
    assert abs(sizes[0].mean() - sizes[1].mean()) < 0.08
    assert abs(sizes[0].std() / sizes[1].std() - 1) < 0.15
    codes = run.encode(cells.counts[:2], nfe=10)
    assert (run.decode(codes).x % 1 != 0).any(), "decoding gives expected counts"
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run", network=Zero)
    assert torch.equal(again.sample(5, nfe=10), run.sample(5, nfe=10))
    with pytest.raises(DataError, match="not counts, the first at index"):
        again.read(cells.counts.numpy() + 0.5)


def test_a_checkpoint_is_of_one_codec(cells, counts_codec, tmp_path):
    """The weights of the codec are among the facts of a training."""
    other = sf.train_codec(cells.counts, "nb", size=6, width=64, steps=1)
    first, second = (
        sf.Training(sf.Data(cells.counts), sf.TrainConfig(), codec=codec)
        for codec in (counts_codec, other)
    )
    assert first.facts != second.facts
    assert "held-out samples, -" in str(counts_codec.reconstruction)
    few = sf.train_codec(factors(40).float(), size=2).reconstruction
    assert "on 40 samples that it learned from" in str(few)


def test_a_codec_folder_comes_back_bit_for_bit(counts_codec, cells, tmp_path):
    counts_codec.save(tmp_path / "codec")
    again = sf.load_codec(tmp_path / "codec")
    assert torch.equal(again.encode(cells.counts[:9]), counts_codec.encode(cells.counts[:9]))
    assert (again.data, again.reconstruction) == (counts_codec.data, counts_codec.reconstruction)
    assert again.digest == counts_codec.digest
    state = torch.get_rng_state()
    sf.load_codec(tmp_path / "codec")
    assert torch.equal(torch.get_rng_state(), state)
    counts_codec.save(tmp_path / "crafted")
    tensors = load_file(tmp_path / "crafted" / "model.safetensors")
    tensors["codec.library"] = torch.tensor(-5.0)
    save_file(tensors, tmp_path / "crafted" / "model.safetensors")
    (tmp_path / "crafted" / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match=r"codec\.library=-5: must be above 0"):
        sf.load_codec(tmp_path / "crafted")
    with pytest.raises(UsageError, match="exists already"):
        again.save(tmp_path / "codec")
    weights = tmp_path / "codec" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="has changed since it was written"):
        sf.load_codec(tmp_path / "codec")
    weights.write_bytes(content[:-4])
    with pytest.raises(CheckpointError):
        sf.load_codec(tmp_path / "codec")
    (tmp_path / "codec" / "config.toml").write_text("format = 'codec'\n")
    with pytest.raises(
        CheckpointError, match="not the configuration of a codec: data: Field required"
    ):
        sf.load_codec(tmp_path / "codec")
    with pytest.raises(CheckpointError, match="does not exist; train a codec first"):
        sf.load_codec(tmp_path / "none")


def test_genes_are_matched_by_name():
    x = factors(50).float()
    names = [f"g{k}" for k in range(10)]
    codec = sf.train_codec(named(x, names), size=2)
    order = [3, 1, 0, 2, 9, 8, 7, 6, 5, 4]
    wide = torch.cat([x[:, order], torch.ones(50, 2)], 1)
    data = codec.aligned(named(wide, [names[k] for k in order] + ["extra", "more"]))
    assert torch.equal(data.x, x)
    assert data.notes == ("2 columns are left out: extra, more",)
    with pytest.raises(
        DataError, match="lacks 2 of the 10 columns of the codec: g1, g5; it has 1 others: z"
    ):
        codec.aligned(named(x[:, :9], [n for n in names if n not in ("g1", "g5")] + ["z"]))
    with pytest.raises(DataError, match=r"samples of shape \(9,\); the codec was trained on"):
        codec.aligned(sf.Data(x[:, :9]))
    with pytest.raises(DataError, match=r"several columns of one name, .*: g3"):
        codec.aligned(named(torch.cat([x, x[:, :1]], 1), [*names, "g3"]))
    with pytest.raises(UsageError, match="trained on X of cells; read cells with matrix=X"):
        codec.aligned(named(x, names, matrix="raw"))
    unnamed = sf.train_codec(x, size=2)
    training = sf.Training(named(x, names, matrix="raw"), sf.TrainConfig(), codec=unnamed)
    assert training.data_config.columns.names == tuple(names)


EQUAL, ZERO = (sf.read(each, learn=False) for each in (torch.ones(9, 3), torch.zeros(9, 3)))


@pytest.mark.parametrize(
    ("data", "settings", "error", "match"),
    [
        (torch.rand(9, 3), {"kind": "nb", "size": 2}, DataError, "27 value.s. that are not counts"),
        (
            -torch.ones(9, 3).cumsum(0),
            {"kind": "nb", "size": 2},
            DataError,
            "not counts, the first at index",
        ),
        (torch.rand(9, 3), {"kind": "ae"}, UsageError, "kind='ae': must be one of pca, vae, nb"),
        (
            torch.rand(9, 3),
            {"size": 4},
            UsageError,
            "size=4: must be at most the numbers of a sample, here 3",
        ),
        (torch.rand(9, 3), {"size": 0}, UsageError, "size=0: must be at least 1"),
        (torch.rand(9, 3), {"kind": "vae", "size": 2, "steps": 0}, UsageError, "steps=0"),
        (
            torch.rand(9, 1, 4, 4).round(),
            {"kind": "nb", "size": 2},
            UsageError,
            "vectors of counts",
        ),
        ({"a": [1.0, 2.0, 3.0], "b": [2.0, 1.0, 0.0]}, {"size": 1}, DataError, "is a table"),
        (torch.rand(9, 3), {"kind": "vae", "size": 5000}, UsageError, "size=5000: .* most 4,096"),
        (torch.rand(9, 3), {"kind": "vae", "size": 2, "width": 20000}, UsageError, "most 16,384"),
        (torch.rand(9, 3), {"kind": "vae", "size": 2, "lr": -1.0}, UsageError, "lr=-1.0: input"),
        (torch.rand(9, 3), {"size": 2, "held_out": 1.5}, UsageError, "held_out=1.5: input"),
        (torch.rand(40, 3), {"size": 2, "held_out": 0.02}, UsageError, "holds out 1 of 40"),
        (
            torch.rand(6, 10),
            {"size": 10, "held_out": 0.0},
            UsageError,
            "has 5 principal components",
        ),
        (EQUAL, {"kind": "vae", "size": 2, "steps": 1}, DataError, "all samples are equal"),
        (ZERO, {"kind": "nb", "size": 2, "steps": 1}, DataError, "all samples are equal"),
        (EQUAL, {"size": 2}, DataError, "all samples are equal"),
        (
            torch.rand(40, 3),
            {"kind": "vae", "size": 2, "lr": 1e6, "steps": 30},
            NumericalError,
            "use a lower lr",
        ),
        (
            [np.arange(5.0), np.arange(8.0), np.arange(8.0) ** 2],
            {"size": 2},
            DataError,
            "signals of several lengths",
        ),
        (sf.read(torch.eye(3), space="sphere"), {"size": 2}, DataError, "has points of sphere"),
        (named(torch.rand(9, 2), ["a", "\udcff"]), {"size": 2}, UsageError, "holds UTF-8 only"),
    ],
)
def test_data_that_a_codec_does_not_take(data, settings, error, match):
    with pytest.raises(error, match=match):
        sf.train_codec(data, **settings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"levels": 4}, "levels=4: a codec learns numbers"),
        ({"network": "unet"}, "network=unet: the latents of a codec are vectors"),
        ({"to": torch.rand(40, 10)}, "codec: translations"),
    ],
)
def test_settings_that_latents_do_not_take(settings, match):
    x = factors(40).float()
    codec = sf.train_codec(x, size=2)
    with pytest.raises(UsageError, match=match):
        sf.train(x, codec=codec, steps=1, **settings)


def test_the_commands_from_counts_to_counts(tmp_path, capsys):
    x = CellSimulator(genes=12, library=60.0).draw(220).counts.numpy()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "half.npy", x + 0.5)
    codec, run, out = tmp_path / "codec", tmp_path / "run", tmp_path / "s.npy"
    options = ("--kind", "nb", "--size", 3, "--width", 8, "--steps", 20)
    finishes("codec", tmp_path / "x.npy", *options, "--out", codec)
    assert "nb: reconstruction -" in capsys.readouterr().out
    finishes("train", tmp_path / "x.npy", "--codec", codec, "--out", run, *TINY)
    assert "; the codec has reconstruction -" in capsys.readouterr().out
    assert end("sample", codec) == 4
    assert "is the configuration of a codec: train a run with --codec" in capsys.readouterr().err
    assert end("train", tmp_path / "x.npy", "--codec", run, "--out", tmp_path / "no") == 4
    assert "is the configuration of a run, not of a codec" in capsys.readouterr().err
    finishes("sample", run, "--n", 6, "--nfe", 4, "--out", out)
    samples = np.load(out)
    assert samples.shape == (6, 12)
    assert (samples == samples.round()).all()
    np.testing.assert_array_equal(sf.load(run).sample(6, nfe=4, batch_size=64), samples)
    capsys.readouterr()
    assert end("train", tmp_path / "half.npy", "--codec", codec, "--out", tmp_path / "no") == 3
    assert "half.npy has 2640 value(s) that are not counts" in capsys.readouterr().err
    assert end("codec", tmp_path / "x.npy", "--condition", "y=y.npy", "--out", codec) == 2
    assert "--condition: a codec has none" in capsys.readouterr().err
    assert end("codec", tmp_path / "x.npy", "--space", "euclidean:12", "--out", codec) == 2
    assert "--space: latents are vectors" in capsys.readouterr().err
    assert end("codec", tmp_path / "x.npy") == 2
    assert "--out: name the codec folder" in capsys.readouterr().err
