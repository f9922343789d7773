"""Restoration: posteriors in the data's units, gaps of tables, and the command."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import normal, tensor
from PIL import Image
from shell import TINY, failing, finishes
from test_inverse import (
    COVARIANCE,
    MEAN,
    NOISE,
    ROWS,
    Y,
    errors_in_deviations,
    posterior,
)

import scorefield as sf
from scorefield._internal.errors import DataError
from scorefield.data import Standardize, read
from scorefield.data.columns import Columns
from scorefield.data.config import CategoryColumn, ColumnsConfig, NumberColumn
from scorefield.data.encoding import Continuous, Levels
from scorefield.inverse import METHODS
from scorefield.runs.restore import restore_data
from scorefield.training.config import MLPConfig, OptimConfig, TrainConfig

SHIFT, SCALE = tensor(10, -3, 0, 200), tensor(2, 0.1, 1, 30)
UNITS = Standardize(SHIFT, SCALE)


def in_units(field=None):
    """Return the exact field of the Gaussian with its samples scaled and shifted to other units."""
    field = field or sf.Gaussian(sf.VP(t_min=1e-4), MEAN, COVARIANCE)
    return field, SHIFT + SCALE * MEAN, SCALE[:, None] * COVARIANCE * SCALE


def many(field, measured, operator=None, noise_std=0.0, encoding=None, **settings):
    """Return 1,000 samples of what one measurement in the data's units was made of."""
    settings = {"n": 1000, "batch_size": 1000, "iterations": 4, **settings}
    settings["solver"] = sf.default_plan(field, 40)
    encoding = Continuous() if encoding is None else encoding
    return restore_data(field, UNITS, encoding, measured[None], operator, noise_std, **settings)[0]


def test_an_operator_measures_in_the_units_of_the_data():
    field, mean, covariance = in_units()
    rows = ROWS / SCALE
    y = rows @ mean + Y
    x = many(field, y, sf.Matrix(rows), NOISE).double()
    exact = posterior(mean, covariance, rows, y, NOISE)
    assert errors_in_deviations(x / SCALE, exact[0] / SCALE, exact[1] / SCALE / SCALE[:, None]) < 4


def test_gaps_are_filled_with_what_the_rest_tells():
    field, mean, covariance = in_units()
    known = tensor(11.0, math.nan, math.nan, 220.0)
    x = many(field, known).double()
    there = ~known.isnan()
    assert torch.equal(x[:, there], known[there].expand(1000, 2).float().double())
    rows = torch.eye(4, dtype=torch.float64)[there]
    centre, spread = posterior(mean, covariance, rows, known[there], 0.0)
    free = SCALE[~there]
    spread = spread[~there][:, ~there] / free / free[:, None]
    assert errors_in_deviations(x[:, ~there] / free, centre[~there] / free, spread) < 4


@pytest.mark.parametrize("method", ["mmps", "repaint"])
def test_a_mask_says_what_nan_says_also_one_of_each_item(method):
    field = in_units()[0]
    x, observed = normal(8, 4, seed=3).float(), normal(8, 4, seed=4) > -0.5
    how = {"n": 2, "method": method, "solver": sf.DDIM(1.0), "times": sf.balanced(field.process, 6)}
    gaps = sf.restore(field, torch.where(observed, x, math.nan), batch_size=8, **how)
    found = sf.restore(field, x, sf.Mask(observed), batch_size=8, **how)
    assert torch.equal(found, gaps)
    assert torch.equal(sf.restore(field, x, sf.Mask(observed[0]), batch_size=8, **how)[0], gaps[0])


def test_noise_may_be_that_of_each_item():
    field, x = in_units()[0], normal(4, 4, seed=3).float()
    x[:, 1] = math.nan
    noise = torch.tensor([0.1, 1.0, 3.0, 0.5])[:, None].expand(4, 4)
    found = sf.restore(field, x, None, noise, n=2, batch_size=8)
    for k in range(4):
        alone = sf.restore(
            field, x[k : k + 1], None, float(noise[k, 0]), n=2, ids=[k], batch_size=8
        )
        torch.testing.assert_close(found[k], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("operator", [sf.Mask(torch.arange(4) < 2), sf.Matrix(ROWS.abs())])
def test_whole_numbers_are_measurements_as_others_are(dtype, operator):
    field = in_units()[0]
    y = torch.tensor([[3, 200, 7, 1], [0, 255, 2, 9]])[:, : operator.shape((4,))[0]]
    parts = field, UNITS, Continuous()
    found = restore_data(*parts, y.to(dtype), operator, 1.0, batch_size=4)
    assert torch.equal(found, restore_data(*parts, y.float(), operator, 1.0, batch_size=4))


def test_noise_is_in_the_units_of_the_data_too():
    field, mean, covariance = in_units()
    known, noise_std = tensor(12.0, math.nan, math.nan, math.nan), 0.7
    x = many(field, known, None, noise_std).double()
    rows = torch.eye(4, dtype=torch.float64)[:1]
    centre, spread = posterior(mean, covariance, rows, known[:1], noise_std)
    assert errors_in_deviations(x / SCALE, centre / SCALE, spread / SCALE / SCALE[:, None]) < 4


def test_whole_numbers_stand_in_the_middle_of_their_intervals():
    """What a noiseless operator measured comes back, which half a level off would not."""
    field, _, _ = in_units()
    y = tensor(11, 217)
    rows = torch.eye(4, dtype=torch.float64)[[0, 3]]
    for measured, operator in ((y, sf.Matrix(rows)), (tensor(11, math.nan, math.nan, 217), None)):
        x = many(field, measured, operator, encoding=Levels(500), n=50, batch_size=64)
        assert torch.equal(x[:, [0, 3]].double(), y.expand(50, 2))
        assert torch.equal(x, x.floor())


@pytest.mark.parametrize("method", METHODS)
def test_an_item_does_not_depend_on_the_others_and_may_be_asked_for_alone(method):
    field = sf.Gaussian(sf.VP(), MEAN, COVARIANCE)
    y = normal(5, 4, seed=1, dtype=torch.float32)
    y[torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) < 0.4] = math.nan
    own = {"repeats": 2} if method == "repaint" else {}
    every = sf.restore(field, y, method=method, n=3, seed=2, batch_size=8, **own)
    assert every.shape == (5, 3, 4)
    for k in (4, 1):
        alone = sf.restore(
            field, y[k : k + 1], method=method, n=3, ids=[k], seed=2, batch_size=8, **own
        )
        assert torch.equal(alone[0], every[k])
    assert not torch.equal(every[:, 0], every[:, 1])


def test_of_no_items_nothing_is_made():
    field = sf.Gaussian(sf.VP(), MEAN, COVARIANCE)
    assert sf.restore(field, torch.zeros(0, 4), n=3).shape == (0, 3, 4)


def test_settings_reach_the_method():
    field, y = sf.Gaussian(sf.VP(), MEAN, COVARIANCE), normal(3, 2, seed=1)
    operator, plan = sf.Matrix(ROWS), sf.default_plan(sf.Gaussian(sf.VP(), MEAN, COVARIANCE), 8)
    found = sf.restore(field, y, operator, method="dps", zeta=0.3, solver=plan, batch_size=3)
    wanted = sf.sample(sf.DPS(field, operator, y, zeta=0.3), 3, plan, batch_size=3)
    assert torch.equal(found[:, 0], wanted)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f, y: sf.restore(f, y, method="best"), "method='best'"),
        (lambda f, y: sf.restore(f, y, n=0), "n=0"),
        (lambda f, y: sf.restore(f, y, ids=[1, 2]), "2 ids for 3 measurements"),
        (lambda f, y: sf.restore(f, y, sf.Matrix(ROWS)), r"\(4,\): .*\(4,\) have \(2,\)"),
        (
            lambda f, y: sf.restore(f, y, sf.Matrix(torch.eye(4)), method="repaint"),
            "needs a Mask",
        ),
        (
            lambda f, y: sf.restore(f, y, sf.Nonlinear(torch.exp)),
            "operator=Nonlinear: MMPS needs a subclass of LinearOperator",
        ),
        (lambda f, y: sf.restore(f, y, sf.Matrix(torch.eye(4)), -1.0), "noise_std=-1"),
        (lambda f, y: sf.restore(f, y, sf.Matrix), "operator=Matrix: must be an instance"),
        (
            lambda f, y: sf.restore(f, sf.Matrix(torch.eye(4)), y),
            r"must be an Operator; write restore\(field, ",
        ),
        (
            lambda f, y: sf.restore(f, y, sf.Matrix(torch.eye(4)), torch.ones(5)),
            r"noise_std has shape \(5,\), and a measurement \(4,\)",
        ),
        (lambda f, y: sf.sample(sf.MMPS(f, sf.Matrix(torch.eye(4)), y), 10), "slot of a batch"),
        (
            lambda f, y: restore_data(f, UNITS, Continuous(), y, sf.Matrix(ROWS), 0.0),
            r"\(4,\).*\(2,\)",
        ),
        (lambda f, y: restore_data(f, UNITS, Continuous(), y, None, -1.0), "noise_std=-1"),
        (
            lambda f, y: restore_data(f, UNITS, Columns(KINDS, 6), y, sf.Matrix(ROWS), 0.0),
            "no common unit",
        ),
    ],
)
def test_what_is_no_restoration_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(sf.Gaussian(sf.VP(), MEAN, COVARIANCE), torch.zeros(3, 4))


KINDS = ColumnsConfig(
    names=("size", "eggs", "kind", "sex", "year", "unit"),
    kinds=(
        NumberColumn(name="size", low=-9, high=20, missing=True, mean=5.0, std=2.0),
        NumberColumn(name="eggs", low=1, high=4, step=1, missing=True, mean=2.0, std=1.0),
        CategoryColumn(name="kind", labels=("gull", "tern", "tit")),
        CategoryColumn(name="sex", labels=("f", "m"), missing=True),
        NumberColumn(name="year", low=2000, high=2050, step=1),
        NumberColumn(name="unit", low=7, high=7, values=(7.0,)),
    ),
)


def test_of_a_row_with_gaps_it_is_known_what_is_there_and_that_nothing_is_missing():
    encoding, gap = Columns(KINDS, 6), math.nan
    whole = torch.tensor([[4.5, 3, 2, 1, 2007, 7]])
    partly = torch.tensor([[gap, gap, gap, gap, gap, gap], [4.5, gap, 2, gap, 2007, gap]])
    v, known = encoding.partial(torch.cat([partly, whole]))
    # of nothing: that size, eggs and sex are no gaps; each of the last row
    assert known.sum(1).tolist() == [3, 3 + 1 + 3 + 1, len(encoding.width)]
    torch.testing.assert_close(v[2:], encoding.middle(whole))
    assert v[0, known[0]].tolist() == [0.25] * 3  # the middle of the noise on a 0
    # whatever a field makes of the rest, it has no gaps, and what was known is as it was
    for seed in range(5):
        made = encoding.completed(partly, 3 * normal(2, len(encoding.width), seed=seed).float())
        assert made.isfinite().all()
        assert torch.equal(made[1][[0, 2, 4]], partly[1][[0, 2, 4]])
        assert (made[:, 3] < 2).all()
        assert (made[:, 5] == 7).all()
        encoding.check(made, "made")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with runs of vectors, of tables and of images, and what to restore."""
    folder = tmp_path_factory.mktemp("restore")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)) * [1.0, 5.0, 0.2] + [3.0, 0.0, -8.0]
    np.save(folder / "x.npy", x)
    gappy = x[:20].copy()
    gappy[::2, 1] = math.nan
    np.save(folder / "gappy.npy", gappy)
    np.save(folder / "wide.npy", np.full((3, 4), math.nan))
    np.save(folder / "infinite.npy", np.full((3, 3), math.inf))
    grey = rng.integers(0, 17, (12, 8, 8), dtype=np.uint8)
    np.save(folder / "grey.npy", grey)
    np.save(folder / "small.npy", rng.uniform(0, 16, (6, 1, 4, 4)))
    np.save(folder / "odd.npy", rng.uniform(0, 16, (6, 1, 5, 5)))
    np.save(folder / "halves.npy", grey[:, None] / 3)
    known = np.ones((8, 8), bool)
    known[2:4, 3:8] = False
    np.save(folder / "known.npy", known)
    np.save(folder / "all.npy", np.ones((8, 8)))
    np.save(folder / "other.npy", np.ones((7, 7)))
    np.save(folder / "text.npy", np.array([["a"]]))
    Image.fromarray(known.astype(np.uint8) * 255).save(folder / "known.png")
    (folder / "broken.png").write_bytes(b"no picture")
    boxed = grey[:, None].astype(np.float32)
    boxed[:, :, 2:4, 3:8] = math.nan
    np.save(folder / "boxed.npy", boxed)
    np.save(folder / "colours.npy", rng.integers(0, 256, (8, 3, 4, 4), dtype=np.uint8))
    rows = [["kind", "mass", "eggs"]]
    rows += [[("gull", "tern", "tit")[k % 3], f"{rng.normal():.3f}", k % 5] for k in range(30)]
    write(folder / "whole.csv", rows)
    rows[3][0], rows[4][1], rows[5][2] = "", "", ""
    rows[6] = ["", "", ""]
    write(folder / "birds.csv", rows)
    write(folder / "strange.csv", [rows[0], ["owl", "", 1]])
    finishes("train", folder / "x.npy", "--out", folder / "run", *TINY)
    finishes("train", folder / "whole.csv", "--out", folder / "table", *TINY)
    finishes("train", folder / "birds.csv", "--out", folder / "gaps", *TINY)
    finishes("train", folder / "grey.npy", "--out", folder / "pictures", "--levels", 17, *TINY)
    finishes("train", folder / "colours.npy", "--out", folder / "coloured", *TINY)
    return folder


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def picture_size(path):
    with Image.open(path) as image:
        return image.size


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def fails(files, capsys, monkeypatch):
    return failing(files, capsys, monkeypatch)


def test_several_draws_of_a_row_are_numbered_and_summarized(tmp_path, files):
    each, mean, mode = (tmp_path / f"{draws}.csv" for draws in ("each", "mean", "mode"))
    for out in (each, mean, mode):
        options = ("--n", 5, "--draws", out.stem, "--out", out)
        finishes("restore", files / "table", files / "birds.csv", *options)
    rows, before = table(each), table(files / "birds.csv")
    assert [(row["item"], row["draw"]) for row in rows] == [
        (str(k), str(j)) for k in range(30) for j in range(5)
    ]
    of_item = [rows[5 * k : 5 * k + 5] for k in range(30)]
    for group, middle, usual, known in zip(of_item, table(mean), table(mode), before, strict=True):
        assert set(middle) == set(usual) == {"kind", "mass", "eggs"}
        mass = np.mean([float(row["mass"]) for row in group])
        assert float(middle["mass"]) == pytest.approx(mass, abs=1e-3)
        for name in ("kind", "eggs"):
            values = [row[name] for row in group]
            assert values.count(usual[name]) == max(map(values.count, values))
            assert not known[name] or usual[name] == middle[name] == known[name]


@pytest.mark.parametrize("run", ["table", "gaps"])
def test_the_gaps_of_a_table_are_filled_and_the_rest_is_as_it_was(tmp_path, files, run):
    """Also by a run that has seen no gaps, and by one for which a gap is a value of its own."""
    out = tmp_path / "t.csv"
    finishes("restore", files / run, files / "birds.csv", "--out", out)
    given, found = table(files / "birds.csv"), table(out)
    assert len(found) == len(given) == 30
    for before, after in zip(given, found, strict=True):
        assert after["kind"] == before["kind"] or (
            not before["kind"] and after["kind"] in ("gull", "tern", "tit")
        )
        assert after["mass"]
        assert not before["mass"] or float(after["mass"]) == pytest.approx(float(before["mass"]))
        assert 0 <= float(after["eggs"]) <= 4
        assert not before["eggs"] or float(after["eggs"]) == float(before["eggs"])
        assert float(after["eggs"]).is_integer()


def test_what_the_command_writes_is_what_python_returns(tmp_path, files):
    out = tmp_path / "x.npy"
    options = ["--n", 2, "--seed", 3, "--batch-size", 16, "--method", "pigdm", "--solver", "heun"]
    finishes("restore", files / "run", files / "gappy.npy", "--out", out, *options, "--steps", 5)
    run, y = sf.load(files / "run"), torch.from_numpy(np.load(files / "gappy.npy")).float()
    times = sf.balanced(run.field.process, 5, data_std=run.field.data_std)
    settings = {"n": 2, "seed": 3, "batch_size": 16, "method": "pigdm"}
    exact = run.restore(y, solver=sf.Heun(), times=times, **settings)
    np.testing.assert_array_equal(np.load(out), exact.numpy())


def test_the_steps_may_be_chosen_and_are_the_usual_ones_unless_they_are(tmp_path, files):
    run, y = sf.load(files / "run"), torch.from_numpy(np.load(files / "gappy.npy")).float()
    times = sf.balanced(run.field.process, 7, data_std=run.field.data_std)
    c = run.field.data_std
    first, second = (sf.Multistep(order, sf.AnglePrediction(c), eta=1.0) for order in (1, 2))
    half = replace(second, eta=0.5)
    for options, settings in (
        ([], {}),
        ([], {"nfe": 20}),
        (["--nfe", 8], {"nfe": 8}),
        (["--nfe", 8], {"solver": second, "times": times}),
        (["--steps", 7], {"times": 7}),
        (["--steps", 7, "--eta", 0.5], {"solver": half, "times": times}),
        (["--steps", 7, "--solver", "ddim", "--eta", 1], {"solver": sf.DDIM(1.0), "times": times}),
        (["--nfe", 20, "--method", "repaint"], {"solver": first, "nfe": 20, "method": "repaint"}),
    ):
        out = tmp_path / "s.npy"
        shared = ["--out", out, "--overwrite"]
        finishes("restore", files / "run", files / "gappy.npy", *shared, *options)
        np.testing.assert_array_equal(np.load(out), run.restore(y, **settings)[:, 0].numpy())


def test_python_refuses_measurements_that_leave_nothing_to_restore(files):
    run, y = sf.load(files / "run"), torch.from_numpy(np.load(files / "x.npy")).float()[:4]
    with sf.count_calls(run.field) as calls:
        with pytest.raises(DataError, match="measured has no missing values"):
            run.restore(y)
        for noise_std in ("0.1", math.nan, -1.0, math.inf):
            with pytest.raises(ValueError, match=f"noise_std={noise_std!r}: must be a finite"):
                run.restore(y, None, noise_std)
    assert calls.count == 0


def test_items_may_be_restored_in_shares_and_put_together(tmp_path, files, capsys):
    def restored(name, *options):
        out = tmp_path / name
        shared = ["--batch-size", 4, "--out", out]
        finishes("restore", files / "pictures", files / "boxed.npy", *shared, *options)
        return out

    whole = np.load(restored("whole.npy"))
    np.testing.assert_array_equal(np.load(restored("some.npy", "--ids", "5:9")), whole[5:9])
    for k in (1, 0):
        out = restored("shares.npy", "--shard", f"{k}/2")
    finishes("merge", out)
    np.testing.assert_array_equal(np.load(out), whole)
    assert "picture: " in capsys.readouterr().out
    assert picture_size(out.with_suffix(".png")) == picture_size(tmp_path / "whole.png")


MASKS = [
    ["--mask", "box:2,3,2,5"],
    ["--mask", "known.npy"],
    ["--mask", "known.png"],
]


@pytest.mark.parametrize("options", MASKS, ids=lambda given: given[1])
def test_a_mask_is_what_nan_says(tmp_path, files, options, monkeypatch):
    monkeypatch.chdir(files)
    finishes("restore", "pictures", "boxed.npy", "--out", tmp_path / "nan.npy")
    finishes("restore", "pictures", "grey.npy", *options, "--out", tmp_path / "mask.npy")
    found = np.load(tmp_path / "mask.npy")
    np.testing.assert_array_equal(found, np.load(tmp_path / "nan.npy"))
    there = ~np.isnan(np.load("boxed.npy"))
    np.testing.assert_array_equal(found[there], np.load("grey.npy")[:, None][there])


@pytest.mark.parametrize(
    ("half", "rows", "columns"),
    [
        ("top", slice(0, 4), slice(None)),
        ("bottom", slice(4, 8), slice(None)),
        ("left", slice(None), slice(0, 4)),
        ("right", slice(None), slice(4, 8)),
    ],
)
def test_a_half_of_an_image_may_be_unknown(tmp_path, files, half, rows, columns):
    out = tmp_path / "h.npy"
    finishes("restore", files / "pictures", files / "grey.npy", "--mask", half, "--out", out)
    same = np.load(out)[:, 0] == np.load(files / "grey.npy")
    hidden = np.zeros((8, 8), bool)
    hidden[rows, columns] = True
    assert same[:, ~hidden].all()
    assert not same[:, hidden].all()


def test_a_random_mask_is_of_each_item_and_does_not_depend_on_the_others(tmp_path, files):
    def restored(*options):
        out = tmp_path / "r.npy"
        mask = ["--mask", "random:0.6", "--corrupt", "--overwrite", "--out", out]
        finishes("restore", files / "pictures", files / "grey.npy", *mask, *options)
        return np.load(out)

    found = restored()
    np.testing.assert_array_equal(restored("--ids", "3:5"), found[3:5])
    same = found[:, 0] == np.load(files / "grey.npy")
    # known are 0.4, and of the others one in 17 or so is right by chance
    assert same.mean() == pytest.approx(0.4 + 0.6 / 17, abs=0.08)
    assert len({item.tobytes() for item in same}) == len(same)


@pytest.mark.parametrize(
    ("options", "make"),
    [
        (["--downsample", 2], lambda: sf.Downsample(2)),
        (["--blur", 0.7], lambda: sf.Blur.gaussian(0.7, 2)),
    ],
)
def test_a_whole_image_is_measured_first_if_asked_to(tmp_path, files, options, make):
    out = tmp_path / "c.npy"
    arguments = [*options, "--corrupt", "--n", 2, "--out", out]
    finishes("restore", files / "pictures", files / "grey.npy", *arguments)
    run = sf.load(files / "pictures")
    y = make().forward(torch.from_numpy(np.load(files / "grey.npy"))[:, None].float())
    np.testing.assert_array_equal(np.load(out), run.restore(y, make(), n=2).numpy())
    # measured, two restored and the original beside each other
    wide, high = picture_size(out.with_suffix(".png"))
    assert 2.5 < high / wide < 3.5


def test_colours_are_found_for_grey_images(tmp_path, files):
    grey = sf.Grey().forward(torch.from_numpy(np.load(files / "colours.npy")).float())
    np.save(tmp_path / "grey.npy", grey.numpy())
    out = tmp_path / "c.npy"
    finishes("restore", files / "coloured", tmp_path / "grey.npy", "--grey", "--out", out)
    run = sf.load(files / "coloured")
    np.testing.assert_array_equal(np.load(out), run.restore(grey, sf.Grey())[:, 0].numpy())


def test_noise_alone_may_be_taken_away(tmp_path, files):
    """Known values are not kept where there was noise in them."""
    out = tmp_path / "n.npy"
    finishes("restore", files / "run", files / "x.npy", "--noise", 0.3, "--out", out)
    run, y = sf.load(files / "run"), torch.from_numpy(np.load(files / "x.npy")).float()
    np.testing.assert_array_equal(np.load(out), run.restore(y, None, 0.3)[:, 0].numpy())
    assert (np.load(out) != np.load(files / "x.npy")).mean() > 0.9


FAILURES = [
    (2, ["run", "gappy.npy", "--method", "best"], "best"),
    (
        2,
        ["pictures", "grey.npy", "--mask", "top", "--grey"],
        "--mask and --grey cannot be combined",
    ),
    (2, ["pictures", "grey.npy", "--corrupt"], "--corrupt needs one of"),
    (2, ["pictures", "grey.npy", "--mask", "top", "--noise", -1], "--noise -1"),
    (2, ["pictures", "grey.npy", "--mask", "top", "--n", 0], "--n 0"),
    (2, ["pictures", "grey.npy", "--mask", "box:1,2"], "box:1,2"),
    (2, ["pictures", "grey.npy", "--mask", "box:0,0,8,8"], "hides 64 of 64"),
    (2, ["pictures", "grey.npy", "--mask", "box:8,8,2,2"], "hides 0 of 64"),
    (2, ["pictures", "grey.npy", "--mask", "random:1"], "between 0 and 1"),
    (2, ["pictures", "grey.npy", "--mask", "middle"], "middle"),
    (2, ["pictures", "grey.npy", "--mask", "all.npy"], "hides 0 of 64"),
    (3, ["pictures", "grey.npy", "--mask", "other.npy"], r"(7, 7)"),
    (3, ["pictures", "grey.npy", "--mask", "text.npy"], "text.npy"),
    (3, ["pictures", "grey.npy", "--mask", "broken.png"], "broken.png"),
    (2, ["run", "gappy.npy", "--mask", "top"], "is for images"),
    (2, ["pictures", "grey.npy", "--downsample", 3], "3 divides"),
    (2, ["pictures", "grey.npy", "--downsample", 1], "factor=1"),
    (2, ["pictures", "grey.npy", "--grey"], "3 weights"),
    (2, ["pictures", "grey.npy", "--blur", 0], "std=0"),
    (2, ["pictures", "grey.npy", "--blur", 9], "at most 1.16667"),
    (2, ["pictures", "grey.npy", "--blur", "1e308"], "at most 1.16667"),
    (2, ["pictures", "grey.npy", "--mask", "box:0.5,1,2,2"], "whole numbers of pixels"),
    (
        2,
        ["run", "gappy.npy", "--method", "replacement", "--solver", "dopri5", "--rtol", 0.1],
        "err",
    ),
    (2, ["run", "gappy.npy", "--downsample", 2], "Downsample(2)"),
    (3, ["pictures", "odd.npy", "--downsample", 2], "(1, 5, 5)"),
    (3, ["pictures", "small.npy", "--mask", "top"], "(1, 4, 4)"),
    (3, ["pictures", "grey.npy"], "no missing values"),
    (3, ["pictures", "halves.npy", "--mask", "top"], "not whole numbers from 0 to 16"),
    (3, ["pictures", "boxed.npy", "--blur", 0.7], "not finite"),
    (3, ["run", "x.npy"], "no missing values"),
    (3, ["run", "wide.npy"], "(4,)"),
    (3, ["run", "infinite.npy"], "infinite.npy"),
    (3, ["table", "whole.csv"], "no missing values"),
    (3, ["table", "strange.csv"], "owl"),
    (3, ["table", "birds.csv", "--noise", 1], "no common unit"),
    (2, ["pictures", "small.npy", "--downsample", 2, "--method", "repaint"], "--method repaint"),
    (2, ["run", "gappy.npy", "--method", "repaint", "--solver", "multistep"], "RePaint"),
    (2, ["run", "gappy.npy", "--plan", "mine.json"], "Unknown option: --plan"),
    (
        2,
        ["run", "gappy.npy", "--nfe", 20, "--solver", "heun"],
        "cannot be combined with the options of a solver",
    ),
    (4, ["nowhere", "gappy.npy"], "nowhere"),
    (3, ["run", "nothing.npy"], "nothing.npy"),
]


@pytest.mark.parametrize(("code", "arguments", "message"), FAILURES)
def test_what_cannot_be_restored_is_refused_in_one_line(fails, code, arguments, message):
    assert message in fails(code, "restore", *arguments)


def birds(count, seed):
    """Return rows of a kind, a number that depends on it, one near that, and a whole number."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, count)
    size = np.array([0.0, 3.0, 6.0])[kind] + rng.normal(size=count)
    mass = size + 0.4 * rng.normal(size=count)
    eggs = np.clip(np.round(4 - mass / 2 + 0.3 * rng.normal(size=count)), 0, 6).astype(int)
    names = np.array(["gull", "tern", "tit"])[kind]
    return [
        ["kind", "size", "mass", "eggs"],
        *(
            [a, f"{b:.4f}", f"{c:.4f}", d]
            for a, b, c, d in zip(names, size, mass, eggs, strict=True)
        ),
    ]


@pytest.mark.slow
def test_imputed_tables_are_nearer_to_the_truth_than_means_and_nearest_rows(tmp_path):
    """The mean of 8 samples and the commonest text of them, on rows that were not trained on."""
    write(tmp_path / "train.csv", birds(400, 0))
    write(tmp_path / "test.csv", birds(300, 1))
    data = read(tmp_path / "train.csv")
    optim = OptimConfig(steps=600, batch_size=64, lr=2e-3)
    run = sf.train(data, config=TrainConfig(network=MLPConfig(width=64, depth=2), optim=optim))
    truth = read(tmp_path / "test.csv", learn=False, like=run.config.data).x[torch.arange(300)]
    train = data.x[torch.arange(400)]
    hidden = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    made = run.restore(torch.where(hidden, torch.nan, truth), n=8)
    assert torch.equal(made[:, 3][~hidden], truth[~hidden])
    apart = (train[None] - truth[:, None]) / train.std(0)
    apart[..., 0] = apart[..., 0] != 0
    near = train[((apart**2) * ~hidden[:, None]).sum(2).argmin(1)]
    numbers = hidden.clone()
    numbers[:, 0] = False
    errors = {
        name: (((filled - truth) / train.std(0)) ** 2)[numbers]
        for name, filled in (("samples", made.mean(1)), ("mean", train.mean(0)), ("nearest", near))
    }
    for name in ("mean", "nearest"):
        gain = errors[name] - errors["samples"]
        assert float(gain.mean()) > 2 * float(gain.std()) / len(gain) ** 0.5, name
    texts = hidden[:, 0]
    most = made[texts, :, 0].mode(1).values
    right = float((most == truth[texts, 0]).float().mean())
    assert right > 2 / 3  # one in three by chance
