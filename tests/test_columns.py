"""Columns of every kind go to vectors with a density, and come back as they were."""

import math

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from scipy import stats
from shell import end, finishes

import scorefield as sf
from scorefield._internal.errors import DataError
from scorefield.data import Columns, Data, read
from scorefield.data.config import ColumnsConfig, DataConfig
from scorefield.data.encoding import moments
from scorefield.noise import LEVELS
from scorefield.training.config import MLPConfig, OptimConfig, TrainConfig

CONFIG = ColumnsConfig(
    names=("size", "year", "sex", "kind", "site", "mass"),
    whole={"year": (2007, 2009)},
    categories={"sex": ("f", "m"), "kind": ("a", "b", "c", ""), "site": ("only",)},
    missing={"size": (10.0, 2.0), "mass": (-1.0, 0.5)},
)
NAN = math.nan


def table(count, seed=0):
    """Return items of `CONFIG` with gaps."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, count).astype(float)
    columns = [
        np.where(rng.random(count) < 0.2, NAN, rng.normal(10, 2, count)),
        rng.integers(2007, 2010, count),
        rng.integers(0, 2, count),
        np.where(kind == 3, NAN, kind),
        np.zeros(count),
        np.where(rng.random(count) < 0.1, NAN, rng.normal(-1, 0.5, count)),
    ]
    return torch.from_numpy(np.stack(columns, 1)).float()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise(count):
    return sf.Noise(0, torch.arange(count), stream=LEVELS)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_what_noise_was_put_on_comes_back_as_it_was():
    x, columns = table(500), Columns(CONFIG, 6)
    v = columns.forward(x, noise(500)).v
    assert v.isfinite().all()
    assert v.shape[1:] == columns.shape((6,)) == (1 + 1 + 1 + 4 + 0 + 1 + 2,)
    same(columns.inverse(v), x)
    same(columns.inverse(columns.middle(x)), x)
    columns.check(x, "x")


def test_the_noise_of_an_item_belongs_to_the_item():
    x, columns = table(40), Columns(CONFIG, 6)
    one = sf.Noise(0, torch.tensor([7]), stream=LEVELS)
    same(columns.forward(x[7:8], one).v, columns.forward(x, noise(40)).v[7:8])


def test_the_density_of_what_stands_in_a_gap_is_told():
    """Of uniform noise to 1/2 it is 2; of normal noise that of the column's mean and deviation."""
    columns = Columns(ColumnsConfig(missing={"0": (10.0, 2.0), "1": (-1.0, 0.5)}), 3)
    x = torch.tensor([[NAN, NAN, 0.0], [NAN, 1.0, 2.0], [3.0, 4.0, 5.0]])
    found = columns.forward(x, noise(3))
    law = stats.norm.logpdf(found.v[:, :2].double(), [10.0, -1.0], [2.0, 0.5])
    law[~x[:, :2].isnan().numpy()] = 0
    flags = 2 * math.log(2)
    np.testing.assert_allclose(found.log_q, law.sum(1) + flags, rtol=0, atol=1e-5)
    filled = columns.forward(torch.full((4000, 3), NAN).nan_to_num_(0.0, 0.0) * NAN, noise(4000))
    for k, (mean, std) in enumerate([(10.0, 2.0), (-1.0, 0.5)]):
        assert stats.kstest(filled.v[:, k].double(), "norm", (mean, std)).pvalue > 1e-3


def test_moments_are_those_of_vectors_with_their_noise():
    """By many draws of the noise; gaps take nothing from the moments of a column."""
    x, columns = table(2000), Columns(CONFIG, 6)
    mean, variance = moments(x, columns)
    many = torch.cat([columns.forward(x, sf.Noise(s, torch.arange(2000))).v for s in range(50)])
    number = columns.base(x).isnan().any(0)
    torch.testing.assert_close(mean[~number], many.double().mean(0)[~number], rtol=0, atol=5e-3)
    torch.testing.assert_close(
        variance[~number], many.double().var(0)[~number], rtol=0.01, atol=0.0
    )
    there = x[:, [0, 5]].double()
    torch.testing.assert_close(mean[number], there.nanmean(0))
    squares = ((there - there.nanmean(0)) ** 2).nanmean(0)
    torch.testing.assert_close(variance[number], squares)


def test_constants_come_back_and_many_columns_are_one_gather():
    constant = {str(k): float(k) for k in range(0, 3000, 3)}
    columns = Columns(ColumnsConfig(constant=constant), 3000)
    x = torch.randn(5, 3000, generator=torch.Generator().manual_seed(0))
    x[:, ::3] = torch.arange(0, 3000, 3).float()
    v = columns.forward(x, noise(5))
    assert v.v.shape == (5, 2000)
    assert columns.exact
    assert (v.log_q == 0).all()
    same(columns.inverse(v.v), x)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, math.inf, "item 1, column size: inf, but it must be a finite number"),
        (1, 2007.5, "column year: 2007.5, but it must be a whole number"),
        (1, NAN, "column year: nan, but it must be a whole number"),
        (2, 2, "column sex: 2, but it must be one of 'f', 'm'"),
        (2, NAN, "column sex: nan"),
        (3, 0.5, "column kind: 0.5, but it must be one of 'a', 'b', 'c', ''"),
    ],
)
def test_a_value_that_is_not_of_its_kind_is_named(column, value, message):
    x = table(3)
    x[1, column] = value
    with pytest.raises(DataError, match=message):
        Columns(CONFIG, 6).check(x, "x.csv")


def test_a_constant_that_is_another_one_is_named():
    columns = Columns(ColumnsConfig(constant={"1": 4.0}), 2)
    with pytest.raises(DataError, match="item 0, column 1: 5, but it must be 4, the only value"):
        columns.check(torch.tensor([[1.0, 5.0]]), "x")


@pytest.mark.parametrize(
    ("config", "count", "message"),
    [
        (ColumnsConfig(whole={"z": (0, 1)}), 2, r"\['z'\] are not among them"),
        (ColumnsConfig(names=("a", "a")), 2, "2 columns have 1 names"),
        (ColumnsConfig(names=("a",)), 2, "2 columns have 1 names"),
        (ColumnsConfig(constant={"0": 1.0}), 1, "all columns are constant"),
    ],
)
def test_columns_that_do_not_fit_are_refused(config, count, message):
    with pytest.raises(ValueError, match=message):
        Columns(config, count)


# --- a table from the file to the samples ---------------------------------------------------------


def write_mixed(path, count, seed=0):
    """Write three categories that decide number, whole number and gaps; return their shares."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, count, p=[0.5, 0.3, 0.2])
    size = np.array([0.0, 5.0, 10.0])[kind] + rng.normal(size=count)
    gap = (kind == 2) & (rng.random(count) < 0.5)
    eggs = 1 + (rng.random(count) < np.array([0.1, 0.9, 0.5])[kind])
    lines = [
        f"{'abc'[k]},{'' if g else repr(s)},{e},7"
        for k, s, g, e in zip(kind, size.tolist(), gap, eggs, strict=True)
    ]
    path.write_text("kind,size,eggs,island\n" + "\n".join(lines) + "\n")
    return kind, size, gap, eggs


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "birds.csv"
    write_mixed(path, 4000)
    config = TrainConfig(
        network=MLPConfig(width=96, depth=3), optim=OptimConfig(steps=1500, batch_size=256, lr=3e-3)
    )
    return sf.train(read(path), config=config), path


def test_a_table_is_read_by_the_rules(learned):
    _, path = learned
    data = read(path)
    assert data.columns.categories == {"kind": ("a", "b", "c")}
    assert data.columns.whole == {"eggs": (1, 2)}
    assert data.columns.constant == {"island": 7.0}
    (mean, std) = data.columns.missing["size"]
    there = data.x[:, 1][~data.x[:, 1].isnan()].double()
    assert mean == pytest.approx(float(there.mean()), abs=1e-6)
    assert std == pytest.approx(float(there.std(correction=0)), abs=1e-6)
    assert data.incomplete == int(data.x[:, 1].isnan().sum()) > 0
    dropped = read(path, missing="drop")
    assert len(dropped.x) == 4000 - data.incomplete
    assert not dropped.columns.missing
    with pytest.raises(DataError, match=r"item \d+, column size: nan.*missing=\"drop"):
        read(path, missing="refuse")


@pytest.mark.slow
def test_samples_of_a_table_have_its_shares_gaps_and_whole_numbers(learned):
    """Shares within 0.04, where 4,000 samples of the truth would differ by 0.01."""
    run, _ = learned
    x = run.sample(4000, batch_size=500)
    kind, size, eggs, island = x.T
    assert (island == 7).all()
    assert set(eggs.tolist()) == {1.0, 2.0}
    for code, share in enumerate([0.5, 0.3, 0.2]):
        assert float((kind == code).float().mean()) == pytest.approx(share, abs=0.04)
    for code, (eggs_two, gaps) in enumerate([(0.1, 0.0), (0.9, 0.0), (0.5, 0.5)]):
        some = kind == code
        assert float((eggs[some] == 2).float().mean()) == pytest.approx(eggs_two, abs=0.06)
        assert float(size[some].isnan().float().mean()) == pytest.approx(gaps, abs=0.08)
        there = size[some & ~size.isnan()]
        assert float(there.median()) == pytest.approx(5.0 * code, abs=0.3)


@pytest.mark.slow
def test_probabilities_of_a_table_are_bounded_from_below(learned):
    """The mean over the data of the bound is below minus its entropy, and not far below."""
    run, path = learned
    x = read(path, like=run.config.data).x[:1500]
    law = {0: (0.5, 0.1, 0.0), 1: (0.3, 0.9, 0.0), 2: (0.2, 0.5, 0.5)}
    exact = []
    for kind, size, eggs, _ in x.tolist():
        share, two, gap = law[int(kind)]
        log = math.log(share) + math.log(two if eggs == 2 else 1 - two)
        if math.isnan(size):
            log += math.log(gap)
        else:
            log += math.log(1 - gap) + stats.norm.logpdf(size, 5 * kind)
        exact.append(log)
    found = run.log_prob(x, nfe=40, draws=4, batch_size=1500)
    gap = float(found.value.mean()) - float(np.mean(exact))
    assert -0.6 < gap < 0.03
    alone = x.clone()  # the same values, but of items that have nothing to do with each other
    for column in range(3):
        alone[:, column] = alone[torch.randperm(1500, generator=seeded(column)), column]
    assert (
        float(run.log_prob(alone, draws=4, batch_size=1500).value.mean()) < found.value.mean() - 2
    )


def test_columns_are_found_by_name_and_texts_by_the_labels_of_the_run(learned, tmp_path):
    run, path = learned
    lines = path.read_text().splitlines()[:21]
    x = read(path, like=run.config.data, learn=False).x[:20]
    turned = tmp_path / "turned.csv"
    turned.write_text(
        "\n".join(",".join([*reversed(line.split(",")), "0"]) for line in lines) + "\n"
    )
    same(read(turned, like=run.config.data, learn=False).x, x)
    only = [line for line in lines if not line.startswith(("a", "b"))]
    (tmp_path / "only.csv").write_text("\n".join(only) + "\n")
    assert (read(tmp_path / "only.csv", like=run.config.data, learn=False).x[:, 0] == 2).all()
    for text, message in [
        ("kind,size,eggs\na,1,1\n", "has no column island, which the run was trained on"),
        ("kind,size,eggs,island\nq,1,1,7\n", "column kind holds 'q': the run has 'a', 'b', 'c'"),
        ("kind,size,eggs,island\na,big,1,7\n", "column size holds texts such as 'big'"),
    ]:
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            read(tmp_path / "bad.csv", like=run.config.data, learn=False)
    (tmp_path / "kind.csv").write_text("kind,size,eggs,island\n1,1,1,7\n")
    with pytest.raises(DataError, match="column kind holds '1': the run has 'a', 'b', 'c'"):
        read(tmp_path / "kind.csv", like=run.config.data, learn=False)
    table = pyarrow.table({"kind": [1], "size": [1], "eggs": [1], "island": [7]})
    parquet.write_table(table, tmp_path / "kind.parquet")
    with pytest.raises(DataError, match="column kind holds numbers"):
        read(tmp_path / "kind.parquet", like=run.config.data, learn=False)


def test_a_run_of_a_table_comes_back_from_its_folder(learned, tmp_path):
    run, _ = learned
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run")
    assert again.config == run.config
    same(again.sample(5), run.sample(5))


def test_latent_codes_of_a_table_lead_back_to_it(learned):
    run, path = learned
    x = read(path).x[:100]
    back = run.decode(run.encode(x)).x
    assert float((back[:, [0, 2, 3]] == x[:, [0, 2, 3]]).float().mean()) > 0.99
    there = ~x[:, 1].isnan()
    assert (back[there, 1] - x[there, 1]).abs().max() < 0.02


def test_classes_may_be_a_column(learned):
    _, path = learned
    data = read(path, labels="kind")
    assert data.class_names == ("a", "b", "c")
    assert data.columns.names == ("size", "eggs", "island")
    same(data.y.float(), read(path).x[:, 0])
    eggs = read(path, labels="eggs")
    assert eggs.class_names == ("1", "2")
    same(eggs.y.float() + 1, read(path).x[:, 2])
    with pytest.raises(DataError, match="column size holds numbers that are not whole"):
        read(path, labels="size")
    with pytest.raises(DataError, match="labels=color: no such file, and no such column in"):
        read(path, labels="color")


def test_a_class_that_is_not_known_is_left_open(tmp_path, capsys):
    """And learned as the unconditional field is."""
    path = tmp_path / "x.csv"
    path.write_text("kind,x\na,1.5\n,2.5\nb,0.5\nb,3.5\na,1.25\n")
    data = read(path, labels="kind")
    assert data.y.tolist() == [0, -1, 1, 1, 0]
    assert data.classes == 2
    config = TrainConfig(
        conditional=True,
        network=MLPConfig(width=8, depth=1),
        optim=OptimConfig(steps=3, batch_size=8),
    )
    run = sf.train(data, config=config)
    assert run.config.data.class_names == ("a", "b")
    run.save(tmp_path / "run")
    for y in ("b", "1"):
        finishes("sample", tmp_path / "run", "--y", y, "--n", 3, "--out", tmp_path / f"{y}.npy")
    same(torch.from_numpy(np.load(tmp_path / "b.npy")), run.sample(3, y=1))
    assert (tmp_path / "b.npy").read_bytes() == (tmp_path / "1.npy").read_bytes()
    assert end("sample", tmp_path / "run", "--y", "c") == 2
    assert "has the classes 0 to 1, a, b" in capsys.readouterr().err


def test_a_data_set_made_by_hand_has_no_columns_of_a_kind():
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    assert Data(x, None, "x").columns == ColumnsConfig()


# --- the command line -----------------------------------------------------------------------------


def test_samples_of_a_table_are_a_table_that_can_be_read_again(learned, tmp_path, capsys):
    """As CSV, as parquet and as numbers: the same; and the likelihood of them is told."""
    run, path = learned
    folder = tmp_path / "run"
    run.save(folder)
    files = {suffix: tmp_path / f"s.{suffix}" for suffix in ("csv", "parquet", "npy")}
    for file in files.values():
        finishes("sample", folder, "--n", 40, "--nfe", 8, "--out", file)
    x = run.sample(40, sf.default_plan(run.field, 8))
    for file in files.values():
        same(read(file, learn=False, missing="keep", like=run.config.data).x, x)
    head, *lines = files["csv"].read_text().splitlines()
    assert head == path.read_text().splitlines()[0]
    for line, (kind, size, eggs, _) in zip(lines, x.tolist(), strict=True):
        cells = line.split(",")
        assert cells[0] == "abc"[int(kind)]
        assert cells[1] == "" if math.isnan(size) else float(cells[1]) == pytest.approx(size)
        assert cells[2:] == [str(int(eggs)), "7"]
    finishes("sample", folder, "--n", 3)
    assert (folder / "samples-plan-20-seed0.csv").is_file()
    finishes("likelihood", folder, files["csv"], "--nfe", 8)
    text = capsys.readouterr().out
    assert "40 items, NFE 8 per item" in text
    assert "bits per dimension" not in text


@pytest.fixture(scope="module")
def texts_only(tmp_path_factory):
    """A run of a table in which no column is of plain numbers, and its folder and file."""
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(3)
    lines = [f"{'ab'[rng.integers(2)]},{rng.integers(3)},1e30" for _ in range(60)]
    (folder / "t.csv").write_text("kind,eggs,big\n" + "\n".join(lines) + "\n")
    config = TrainConfig(
        network=MLPConfig(width=8, depth=1), optim=OptimConfig(steps=3, batch_size=8)
    )
    run = sf.train(read(folder / "t.csv"), config=config)
    run.save(folder / "run")
    return run, folder


def test_a_table_without_plain_numbers_has_likelihoods_codes_and_strips(texts_only, capsys):
    run, folder = texts_only
    x = read(folder / "t.csv").x
    assert run.log_prob(x[:5], nfe=8).value.isfinite().all()
    strip = run.interpolate(x[:2], x[2:4], points=5).x
    assert strip.shape == (2, 5, 3)
    assert torch.equal(strip[:, 0], x[:2])
    assert set(strip[..., 1].flatten().tolist()) <= {0.0, 1.0, 2.0}
    finishes("interpolate", folder / "run", folder / "t.csv", "--pairs", "0:1", "2:3")
    finishes("encode", folder / "run", folder / "t.csv", "--nfe", 8)
    finishes("decode", folder / "run", folder / "run" / "codes-t.npy", "--nfe", 8)
    finishes("sample", folder / "run", "--n", 4, "--nfe", 4)
    (samples,) = (folder / "run").glob("samples-*.csv")
    assert {line.split(",")[2] for line in samples.read_text().splitlines()[1:]} == {"1e+30"}
    capsys.readouterr()
    finishes("info", folder / "run")
    text = " ".join(capsys.readouterr().out.split())
    assert "category kind a, b" in text
    assert "whole columns eggs" in text


def test_whole_numbers_with_gaps_are_standardised_with_the_noise_of_the_gaps():
    rng = np.random.default_rng(0)
    x = torch.from_numpy((rng.random((4000, 1)) < 0.3).astype(np.float32))
    x[rng.random(4000) < 0.6] = NAN
    there = x[~x.isnan()].double()
    law = (float(there.mean()), float(there.std(correction=0)))
    columns = Columns(ColumnsConfig(whole={"0": (0, 1)}, missing={"0": law}), 1)
    mean, variance = moments(x, columns)
    v = torch.cat([columns.forward(x, sf.Noise(s, torch.arange(4000))).v for s in range(20)])
    torch.testing.assert_close(v.double().mean(0), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(v.double().var(0), variance, rtol=0.02, atol=0)


def test_levels_are_refused_for_texts(texts_only):
    _, folder = texts_only
    with pytest.raises(ValueError, match="has columns of texts, which are not levels"):
        sf.train(read(folder / "t.csv"), config=TrainConfig(levels=3))


def test_columns_left_out_in_training_are_left_out_of_what_is_asked_about(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 3))
    np.save(tmp_path / "x.npy", x)
    data = read(tmp_path / "x.npy", without=("1",))
    assert data.columns.names == ("0", "2")
    config = TrainConfig(
        network=MLPConfig(width=8, depth=1), optim=OptimConfig(steps=2, batch_size=8)
    )
    run = sf.train(data, config=config)
    same(read(tmp_path / "x.npy", like=run.config.data).x, data.x)
    np.save(tmp_path / "y.npy", x[:, [0, 2]])
    same(read(tmp_path / "y.npy", like=run.config.data).x, data.x)


def test_several_columns_are_left_out_by_one_flag(learned, capsys):
    _, path = learned
    finishes("data", "inspect", path, "--without", "kind", "island")
    text = " ".join(capsys.readouterr().out.split())
    assert "4000 vectors of shape (2,)" in text
    assert "category" not in text


def write_numbers(path, names):
    """Write a whole number, a number and a number with gaps; CSV without a header."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(1, 3, 60), rng.normal(size=60), rng.normal(size=60)], 1)
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.table(dict(zip(names, x.T, strict=True))), path)
    elif path.suffix == ".npy":
        np.save(path, x)
    else:
        x[:30, 2] = NAN
        lines = [f"{a:.0f},{b},{'' if c != c else c}\n" for a, b, c in x.tolist()]
        path.write_text("".join(lines))


def draw(data, folder):
    """Train for a moment; return a run, the file of its samples as CSV, and the samples."""
    config = TrainConfig(
        network=MLPConfig(width=8, depth=1), optim=OptimConfig(steps=3, batch_size=8)
    )
    run = sf.train(data, config=config)
    run.save(folder / "run")
    for ending in ("csv", "npy"):
        out = folder / f"samples.{ending}"
        finishes("sample", folder / "run", "--n", 20, "--nfe", 4, "--out", out)
    return run, folder / "samples.csv", torch.from_numpy(np.load(folder / "samples.npy"))


@pytest.mark.parametrize(
    ("name", "names", "without", "known"),
    [
        ("x.csv", None, (), ("1", "2", "3")),
        ("x.csv", None, ("1",), ("2", "3")),
        ("x.csv", None, ("1", "2"), ("3",)),
        ("x.npy", None, (), ()),
        ("x.parquet", ("0", "1", "2"), (), ("0", "1", "2")),
        ("x.parquet", ("2019", "2020", "2021"), (), ("2019", "2020", "2021")),
        ("x.parquet", ("3", "1", "b"), (), ("3", "1", "b")),
    ],
)
def test_columns_that_are_called_by_numbers_come_back(tmp_path, name, names, without, known):
    """A header of numbers would be read as a sample."""
    write_numbers(tmp_path / name, names)
    data = read(tmp_path / name, without=without)
    assert data.columns.names == known
    run, samples, x = draw(data, tmp_path)
    same(read(samples, like=run.config.data, learn=False, missing="keep").x, x)
    assert len(read(samples, missing="keep").x) == 20


def test_texts_that_could_be_numbers_come_back(tmp_path):
    """From parquet, which tells them apart, by way of CSV, which does not."""
    texts, mixed = [["1", "2", "NA"][k % 3] for k in range(60)], ["7", "b"] * 30
    table = {"t": texts, "m": mixed, "x": np.random.default_rng(0).normal(size=60)}
    parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet")
    data = read(tmp_path / "x.parquet")
    assert data.columns.categories == {"t": ("1", "2", ""), "m": ("7", "b")}
    run, samples, x = draw(data, tmp_path)
    assert x[:, 0].isnan().any()
    assert {0.0, 1.0} <= set(x[:, 0].tolist())
    same(read(samples, like=run.config.data, learn=False).x, x)


def test_classes_may_be_a_column_that_a_run_does_not_know(learned):
    _, path = learned
    data = read(path, labels="kind")
    like = DataConfig(name="birds", shape=(3,), count=4000, columns=data.columns)
    again = read(path, labels="kind", like=like)
    assert torch.equal(again.y, data.y)
    assert again.columns.names == ("size", "eggs", "island")
