"""Columns of every kind go to vectors with a density, and come back as they were."""

import dataclasses
import datetime as dt
import decimal
import itertools
import math

import numpy as np
import pyarrow
import pyarrow.csv
import pytest
import torch
from cases import values_of
from pyarrow import parquet
from scipy import stats
from shell import end, finishes

import scorefield as sf
from scorefield._internal.errors import DataError, UsageError
from scorefield.data import Columns, Data, read
from scorefield.data.config import CategoryColumn, ColumnsConfig, DataConfig, NumberColumn
from scorefield.data.tabular import as_table
from scorefield.noise import LEVELS
from scorefield.training.config import MLPConfig, OptimConfig, TrainConfig

NAN = math.nan
N = 240


def noise(count):
    return sf.Noise(0, torch.arange(count), stream=LEVELS)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def columns_of(data):
    return Columns(data.columns, len(data.columns.kinds))


def kind_of(values, choice=None, count=N):
    """Return the data of a table with one column ``x``, next to one of numbers."""
    table = pyarrow.table({"x": values, "rest": np.random.default_rng(9).normal(size=count)})
    return read(table, columns=None if choice is None else {"x": choice})


def draws(*choices):
    """Return ``N`` of some values, in a fixed random order."""
    return [choices[k] for k in np.random.default_rng(0).integers(0, len(choices), N)]


def days(form):
    rng = np.random.default_rng(1)
    start = dt.datetime(1995, 3, 1, 12)
    return [
        (start + dt.timedelta(minutes=int(k))).strftime(form) for k in rng.integers(0, 10**7, N)
    ]


def moments_in(unit, zone=None, step=1):
    rng = np.random.default_rng(2)
    ticks = [10**18 // 1000 + step * int(k) for k in rng.integers(0, 10**6, N)]
    return pyarrow.array(ticks, pyarrow.timestamp(unit, zone))


RNG = np.random.default_rng(3)
INCOME = np.where(RNG.random(N) < 0.3, 0.0, np.round(np.exp(RNG.normal(8, 1, N)), 2))
CENTS = [
    None if k % 7 == 0 else decimal.Decimal(int(k)) / 100 for k in RNG.integers(-9999, 9999, N)
]
SIZES = pyarrow.DictionaryArray.from_arrays(
    pyarrow.array(draws(0, 2, None), pyarrow.int8()), ["small", "medium", "large"], ordered=True
)
HUNDREDS = [decimal.Decimal(int(k)) * 100 for k in RNG.integers(-9, 9999, N)]
INTERVALS = [{"left": float(k), "right": k + 1.0} for k in range(3)]
CUT = pyarrow.DictionaryArray.from_arrays([k % 3 for k in range(N)], INTERVALS)
TABLES = {
    "income": INCOME,
    "whole": RNG.integers(-5, 2000, N),
    "few": RNG.integers(0, 4, N).astype(np.int16),
    "price": draws(9.99, 19.5, 49.99, 99.0),
    "always": [20230623] * N,
    "nothing": pyarrow.nulls(N, pyarrow.float32()),
    "large": [2**53 + 1 + 2 * int(k) for k in RNG.integers(0, 10**6, N)],
    "unsigned": pyarrow.array(
        [2**64 - 1 - int(k) for k in RNG.integers(0, 999, N)], pyarrow.uint64()
    ),
    "negative": [-(2**62) + int(k) for k in RNG.integers(0, 10**9, N)],
    "cents": pyarrow.array(CENTS, pyarrow.decimal128(10, 2)),
    "hundreds": pyarrow.array(HUNDREDS, pyarrow.decimal128(12, -2)),
    "far": 1e11 + RNG.integers(0, 9999, N) / 100,
    "long": pyarrow.array(
        [decimal.Decimal(10**17 + int(k)) / 1000 for k in range(N)], pyarrow.decimal128(30, 3)
    ),
    "digits": np.round(RNG.random(N), 12),
    "real": RNG.normal(size=N),
    "single": RNG.normal(size=N).astype(np.float32),
    "half": RNG.normal(size=N).astype(np.float16),
    "gaps": pyarrow.array([None if k % 5 == 0 else k / 7 for k in range(N)]),
    "truth": pyarrow.array(draws(True, False, None)),
    "text": draws("a", "b b", "c,d"),
    "sizes": SIZES,
    "numerals": draws("1", "2", "10"),
    "iso": days("%Y-%m-%d"),
    "german": days("%d.%m.%Y"),
    "minutes": days("%Y-%m-%d %H:%M"),
    "english": days("%b %d, %Y"),
    "short": [text.lstrip("0").replace("/0", "/") for text in days("%d/%m/%Y")],
    "clock": days("%H:%M:%S"),
    "excel": [text.replace(" 0", " ").replace("/0", "/")[1:] for text in days(" %m/%d/%Y %H:%M")],
    "sas": [text.upper() for text in days("%d%b%Y")],
    "lower": [text.lower() for text in days("%d-%b-%y")],
    "stamps": [f"{text}.{k % 1000:03d}Z" for k, text in enumerate(days("%Y-%m-%dT%H:%M:%S"))],
    "offsets": [f"{text}+05:30" for text in days("%Y-%m-%dT%H:%M:%S")],
    "before 1970": [f"1960-01-01 10:00:00.{k % 7}" for k in range(N)],
    "dollars": [f"{'-' if k % 3 else ''}${k * 1000 + 0.5:,.2f}" for k in range(N)],
    "inner sign": [f"US$ {k - 9}" for k in range(N)],
    "euros": [f"{k}.{k:03d},{k % 100:02d} €" for k in range(1, N + 1)],
    "percent": [f"{k % 50 / 10:.1f}%" for k in range(N)],
    "mass": [None if k % 5 == 0 else f"{k / 4:.2f} kg" for k in range(N)],
    "date32": pyarrow.array(RNG.integers(0, 9999, N).astype(np.int32)).cast("date32"),
    "time": pyarrow.array(RNG.integers(0, 86400, N).astype(np.int32)).cast(pyarrow.time32("s")),
    "zone": moments_in("ns", "Europe/Berlin"),
    "micro": moments_in("us"),
    "duration": pyarrow.array(RNG.integers(0, 10**9, N)).cast(pyarrow.duration("ms")),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_column_comes_back_with_its_type_and_its_values(name):
    """From the middle of its noise and from any place in it, as a table and by way of a run."""
    data = kind_of(TABLES[name])
    columns = columns_of(data)
    table = pyarrow.table({"x": TABLES[name], "rest": data.x[:, 1].numpy()})
    columns.check(data.x, "x")
    for v in (columns.middle(data.x), columns.forward(data.x, noise(N)).v):
        x = columns.inverse(v)
        atol = {"real": 1e-12, "single": 1e-8, "half": 1e-5, "gaps": 1e-12}.get(name, 0)
        torch.testing.assert_close(x[:, 0], data.x[:, 0], rtol=0, atol=atol, equal_nan=True)
        torch.testing.assert_close(x[:, 1], data.x[:, 1], rtol=0, atol=1e-12)
    back = as_table(data.x.numpy(), data.columns)
    assert back.schema.equals(table.schema)
    assert back["x"].to_pylist() == table["x"].to_pylist()
    same(read(back, like=DataConfig(name="t", shape=(2,), columns=data.columns)).x, data.x)
    again = ColumnsConfig.model_validate_json(data.columns.model_dump_json())
    assert again == data.columns


def test_a_frame_of_pandas_comes_back_with_its_types():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "order": pandas.Categorical(draws("b", "a"), categories=["c", "b", "a"], ordered=True),
            "text": pandas.array(draws("q", None), dtype="string"),
            "whole": pandas.array(draws(1, None, 3), dtype="Int64"),
            "truth": pandas.array(draws(True, None, False), dtype="boolean"),
            "when": pandas.date_range("2020-01-01", periods=N, freq="h", tz="Europe/Berlin"),
            "real": np.random.default_rng(0).normal(size=N),
        }
    )
    data = read(frame)
    pandas.testing.assert_frame_equal(as_table(data.x.numpy(), data.columns).to_pandas(), frame)


def test_values_of_samples_are_values_that_the_data_may_have():
    """Whatever a field draws: on the grid, in the range, of the few values."""
    v = torch.from_numpy(np.random.default_rng(5).normal(0, 3, (500, 40)))
    table = pyarrow.table({k: TABLES[k] for k in ("income", "price", "cents", "german", "text")})
    data = read(table)
    columns = columns_of(data)
    drawn = as_table(columns.inverse(v[:, : columns.shape(())[0]]).numpy(), data.columns)
    income, price, cents, german, text = (c.to_pylist() for c in drawn.columns)
    assert min(income) >= 0
    assert max(income) <= INCOME.max()
    assert all(value == round(value, 2) for value in income)
    assert set(price) <= set(TABLES["price"])
    assert {None} < set(cents)
    assert all(dt.datetime.strptime(day, "%d.%m.%Y") for day in german)
    assert set(text) == {"a", "b b", "c,d"}


def test_an_atom_is_a_number_of_its_own():
    """Thirty percent of zeros are zeros again, and no small amounts."""
    (income, _) = (data := kind_of(INCOME)).columns.kinds
    assert income.atoms == (0.0,)
    columns = columns_of(data)
    cents = kind_of(np.where(INCOME == 0, 0.1, np.sqrt(INCOME)))
    single = columns_of(cents).base(cents.x.float())[:, 0]  # 0.1 in float32 is the atom too
    same(single.isnan(), cents.x[:, 0] == 0.1)
    v = columns.forward(data.x, noise(N)).v
    v[:, 0] = v[:, 0].flip(0)  # the noise in place of a number has no influence
    assert torch.equal(columns.inverse(v)[:, 0] == 0, data.x[:, 0] == 0)


def test_a_number_among_whole_ones_does_not_undo_their_grid():
    score = RNG.integers(0, 100, N).astype(float)
    score[7] = 57.333333
    data = kind_of(score)
    assert data.columns.kinds[0].step == 1
    x = columns_of(data).inverse(columns_of(data).middle(data.x))
    assert x[7, 0] == 57
    assert torch.equal(x[:7], data.x[:7])


def test_numbers_apart_by_rounding_alone_are_learned():
    rounded = [0.3 * k * k % 1.7 for k in range(40)]  # 17 numbers, most of them several times
    assert len(set(rounded)) > 2 * len({round(value, 9) for value in rounded})
    sf.train({"x": rounded, "y": RNG.normal(size=40)}, steps=2)


@pytest.mark.parametrize(
    ("values", "choice", "message"),
    [
        (list(range(N)), None, 'row numbers 0 to 239.*columns="x=drop", or columns="x=number"'),
        ([f"k{k}" for k in range(N)], None, '240 different identifiers such as .k0.*"x=drop"'),
        (draws("a", "b"), "log", 'it holds texts.*columns="x=category"'),
        (draws("a", "2020-01-01"), "date", "its values such as .* are not all dates"),
        ([float(k - 3) / 7 for k in range(N)], "log", "row 0 holds -0.428571.*columns=.x=normal"),
        ([1.0, math.inf] * (N // 2), None, "row 1 holds inf"),
        ([2**60 * (k % 2) + k for k in range(N)], None, 'float64 resolves.*"x=drop"'),
        ([[1]] * N, None, "values of type list<.*> have no kind"),
        (CUT, None, "values of type dictionary<values=struct.* have no kind. Use columns=.x=drop"),
        ([[1]] * N, "category", "values of type list<.*> have no kind"),
        ([*RNG.normal(size=N - 1), 1e9], None, "too near .* for float32. Use columns=.x=normal"),
        (draws(1.0, 2.0), "bounded", "columns='bounded' of x: choose one of standard, log"),
        (draws(1.0, 2.0), "3..1", r"columns='3..1' of x: .* or bounds such as 0..100"),
        (draws(0.5, 2.25, 7), "1..2", r'row \d+ holds .* outside 1..2. Use columns="x=0.5..7.0"'),
        (draws(dt.date(2020, 1, 1), dt.date(2020, 1, 3)), "0..9", "bounds 0..9 are for numbers"),
        (draws("a", "b"), "0..9", "it holds texts, which are not of kind 0..9"),
        ([f"k{k}" for k in range(40)], None, '40 texts such as .k0. are all different.*"x=drop"'),
        (
            [*(f"2020-01-{k:02d}" for k in range(1, 32)), "0000-00-00"],
            None,
            "row 31 holds '0000-00-00', .* dates as %Y-%m-%d. Pass na='0000-00-00'",
        ),
        ([*(f"2020-02-{k:02d}" for k in range(1, 31))], None, "row 29 holds '2020-02-30'"),
        ([*(f"${k}.50" for k in range(40)), "on request"], None, r"row 40 .* as \$1000.00"),
        ([f"${k}" for k in range(40)], "0..9", r"row 10 holds \$10, .*\"x=0.0..39.0\""),
    ],
)
def test_a_column_that_cannot_be_learned_is_named_with_the_way_out(values, choice, message):
    with pytest.raises(DataError, match=message):
        kind_of(values, choice, len(values))


def test_amounts_are_numbers_of_their_unit_and_identifiers_with_gaps_are_rejected():
    """The texts of another file are read by the format of the run, and others are named."""
    cells = [f"{k},{k % 100:02d} €" for k in range(60)]
    columns = read({"x": cells, "y": RNG.normal(size=60)}, columns="x=log").columns
    kind = columns.kinds[0]
    assert (kind.map, kind.low, kind.high, kind.digits) == ("log", 0.0, 59.59, 2)
    like = DataConfig(name="t", shape=(2,), columns=columns)
    assert read({"x": ["1,50 €", "7,00 €"], "y": [0.0, 1.0]}, like=like).x[:, 0].tolist() == [
        1.5,
        7,
    ]
    with pytest.raises(DataError, match="'7 €', but the run has numbers as 1000,00 €"):
        read({"x": ["7 €"], "y": [0.0]}, like=like, learn=False)
    assert kind_of(draws("5 €", "7 €")).columns.kinds[0].kind == "category"
    assert kind_of(draws("2 doors", "4 doors", "5 doors")).columns.kinds[0].kind == "category"
    with pytest.raises(DataError, match="column id: it holds identifiers such as 7"):
        read({"id": [math.nan, *(7.0 * k for k in range(1, 60))], "y": RNG.normal(size=60)})


def test_choices_are_a_text_a_mapping_or_a_word_for_all():
    table = pyarrow.table(
        {"id": range(N), "p": INCOME + 1, "k": [20200101 + k % 28 for k in range(N)]}
    )
    text = read(table, columns="id=drop,p=log,k=date").columns
    assert text == read(table, columns={"id": "drop", "p": "log", "k": "date"}).columns
    assert [c.name for c in text.kinds] == ["p", "k"]
    assert text.kinds[0].map == "log"
    assert text.kinds[1].format == "%Y%m%d"
    normal = read(table.select(["p"]), columns="normal").columns
    assert normal.kinds[0].map == "normal"
    assert normal.quantiles == 0
    assert read(table.select(["p"])).columns.quantiles > 0
    assert read(table, columns="id=number,k=category").columns.kinds[2].kind == "category"
    for wrong, message in (("id=drop,q=log", "has the columns p, k, id"), ("all", "quantile")):
        with pytest.raises(DataError, match=message):
            read(table, columns=wrong)
    with pytest.raises(DataError, match=r"columns=\['p'\]: choose one of quantile"):
        read(table, columns=["p"])
    with pytest.raises(DataError, match="is not a table"):
        read(np.zeros((4, 2)), columns="normal")


@pytest.mark.parametrize(
    ("values", "choice", "low", "high"),
    [
        (draws(70, 80, 95), "0..100", 0, 100),  # on the grid of 5
        (draws(71, 81, 96), "0..100", 1, 96),  # the ends of the grid inside the bounds
        (draws(0.1, 0.7, 0.3), "..1", 0.1, 0.9),
        (draws(0.1, 0.7, 0.3), "-0.5..", -0.5, 0.7),
        (draws(2**60, 2**60 + 8, None), f"{2**60 - 16}..", 2**60 - 16, 2**60 + 8),
        (draws(*map(decimal.Decimal, ["1.25", "1.75"])), "5e-1..3", 0.75, 2.75),
        ([*map(float, RNG.normal(size=N))], "-9..9.5", -9, 9.5),
        (draws(5, 5), "0..10", 5, 5),  # always 5
    ],
)
def test_declared_bounds_replace_those_of_the_data(values, choice, low, high):
    data = kind_of(values, choice)
    column, _ = data.columns.kinds
    assert column.offset + column.unit * column.low == pytest.approx(low, abs=0, rel=1e-15)
    assert column.offset + column.unit * column.high == pytest.approx(high, abs=0, rel=1e-15)
    columns = columns_of(data)
    back, x = columns.inverse(columns.middle(data.x))[:, 0], data.x[:, 0]
    torch.testing.assert_close(back, x, rtol=1e-14, atol=0, equal_nan=True)
    ends = torch.zeros(2, *columns.shape(()), dtype=torch.float64)
    ends[:, 0] = torch.tensor([-1e6, 1e6])
    if low < high:
        assert columns.inverse(ends)[:, 0].tolist() == [column.low, column.high]


def test_ordered_categories_keep_their_order_and_a_neighbour_is_near():
    data = kind_of(SIZES)
    (sizes, _), columns = data.columns.kinds, columns_of(data)
    assert sizes.ordered
    assert (sizes.labels, sizes.every) == (("small", "large"), ("small", "medium", "large"))
    assert columns.shape(()) == (3,)  # its place, the other number, and whether it is missing


@pytest.mark.parametrize("choice", ["standard", "log", "logit", "normal"])
def test_the_density_of_a_map_is_one(choice):
    """The exponential of minus `log_q` integrates the density of the coordinate to one."""
    x = np.random.default_rng(0).gamma(2.0, 3.0, 600)
    data = kind_of(x, choice, 600)
    columns = columns_of(data)
    at = torch.linspace(float(x.min()), float(x.max()), 20001, dtype=torch.float64)
    points = torch.stack([at, torch.zeros_like(at)], 1)
    coded = columns.forward(points, noise(len(at)))
    v = coded.v[:, 0]
    assert bool((v.diff() > 0).all())
    slope = (-coded.log_q).exp() * columns.numbers.std[1]  # without that of the column rest
    covered = float(v[-1] - v[0])
    assert float(torch.trapezoid(slope, at)) == pytest.approx(covered, rel=2e-3)
    torch.testing.assert_close(columns.inverse(coded.v)[:, 0], at, rtol=1e-9, atol=1e-9)
    if choice == "normal":
        assert stats.kstest(columns.forward(data.x, noise(600)).v[:, 0], "norm").pvalue > 0.5


CONFIG = ColumnsConfig(
    names=("size", "year", "sex", "kind", "site", "mass"),
    kinds=(
        NumberColumn(name="size", low=0, high=20, missing=True, mean=10.0, std=2.0),
        NumberColumn(name="year", low=2007, high=2009, step=1),
        CategoryColumn(name="sex", labels=("f", "m")),
        CategoryColumn(name="kind", labels=("a", "b", "c"), missing=True),
        CategoryColumn(name="site", labels=("only",)),
        NumberColumn(name="mass", low=-9, high=9, missing=True, mean=-1.0, std=0.5),
    ),
)


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
    return torch.from_numpy(np.stack(columns, 1))


def test_the_noise_of_an_item_belongs_to_the_item():
    x, columns = table(40), Columns(CONFIG, 6)
    one = sf.Noise(0, torch.tensor([7]), stream=LEVELS)
    same(columns.forward(x[7:8], one).v, columns.forward(x, noise(40)).v[7:8])


def test_the_density_of_noise_in_place_of_a_missing_value_is_in_log_q():
    """Of uniform noise to 1/2 it is 2; of normal noise that of the standard normal distribution.

    A number itself has the density 1 over the deviation of its column.
    """
    columns = Columns(CONFIG, 6)
    x = table(3)
    x[:, [0, 5]] = torch.tensor([[NAN, NAN], [NAN, 1.0], [3.0, 4.0]], dtype=torch.float64)
    coded = columns.forward(x, noise(3))
    law = stats.norm.logpdf(coded.v[:, [0, 2]])
    there = ~x[:, [0, 5]].isnan().numpy()
    law[there] = np.broadcast_to(np.log([2.0, 0.5]), law.shape)[there]
    halves = 1 + 1 + 4 + 2  # coordinates with noise to 1/2: year, sex, kind, and whether missing
    np.testing.assert_allclose(coded.log_q, law.sum(1) + halves * math.log(2), atol=1e-12)
    filled = columns.forward(
        torch.full((4000, 6), NAN, dtype=torch.float64) * 0 + x[:1], noise(4000)
    )
    for k in (0, 2):
        assert stats.kstest(filled.v[:, k], "norm").pvalue > 1e-3


def test_moments_are_those_of_vectors_with_their_noise():
    """By many draws of the noise."""
    x, columns = table(2000), Columns(CONFIG, 6)
    mean, variance = columns.moments(x)
    many = torch.cat([columns.forward(x, sf.Noise(s, torch.arange(2000))).v for s in range(30)])
    torch.testing.assert_close(mean, many.mean(0), rtol=0, atol=0.06)
    torch.testing.assert_close(variance, many.var(0), rtol=0.07, atol=0.0)


def test_constants_come_back_and_many_columns_are_one_gather():
    kinds = tuple(
        NumberColumn(name=str(k), low=k, high=k, values=(float(k),))
        if k % 3 == 0
        else NumberColumn(name=str(k), low=-9, high=9)
        for k in range(3000)
    )
    columns = Columns(ColumnsConfig(kinds=kinds), 3000)
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
        (3, 0.5, "column kind: 0.5, but it must be one of 'a', 'b', 'c', 'a missing value'"),
    ],
)
def test_a_value_that_is_not_of_its_kind_is_named(column, value, message):
    x = table(3)
    x[1, column] = value
    with pytest.raises(DataError, match=message):
        Columns(CONFIG, 6).check(x, "x.csv")


def test_a_constant_that_is_another_one_is_named():
    kinds = (
        NumberColumn(name="0", low=0, high=1),
        NumberColumn(name="1", low=4, high=4, values=(4,)),
    )
    columns = Columns(ColumnsConfig(kinds=kinds), 2)
    with pytest.raises(DataError, match="item 0, column 1: 5, but it must be 4, the only value"):
        columns.check(torch.tensor([[1.0, 5.0]]), "x")


def test_columns_that_do_not_fit_are_refused():
    constant = NumberColumn(name="0", low=4, high=4, values=(4,))
    with pytest.raises(ValueError, match="2 columns have the names"):
        Columns(CONFIG, 2)
    with pytest.raises(ValueError, match="all columns are constant"):
        Columns(ColumnsConfig(kinds=(constant,)), 1)
    with pytest.raises(ValueError, match="of an earlier version: train the run again"):
        ColumnsConfig.model_validate({"whole": {"z": (0, 1)}})


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
    kind, size, eggs, island = data.columns.kinds
    assert kind.labels == ("a", "b", "c")
    assert (eggs.low, eggs.high, eggs.step) == (1, 2, 1)
    assert island.values == (7.0,)
    assert size.missing
    there = data.x[:, 1][~data.x[:, 1].isnan()]
    assert size.mean == pytest.approx(float(there.mean()), abs=1e-6)
    assert size.std == pytest.approx(float(there.std(correction=0)), abs=1e-6)
    assert data.incomplete == int(data.x[:, 1].isnan().sum()) > 0
    dropped = read(path, missing="drop")
    assert len(dropped.x) == 4000 - data.incomplete
    assert not any(column.missing for column in dropped.columns.kinds)
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
        alone[:, column] = alone[
            torch.randperm(1500, generator=torch.Generator().manual_seed(column)), column
        ]
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
    with pytest.raises(DataError, match="column kind holds '1'"):
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
    data = read(path, conditions="kind")
    assert data.conditions.channels[0].names == ("a", "b", "c")
    assert data.columns.names == ("size", "eggs", "island")
    same(values_of(data).double(), read(path).x[:, 0])
    eggs = read(path, conditions="eggs")
    assert eggs.conditions.channels[0].names == ("1", "2")
    same(values_of(eggs).double() + 1, read(path).x[:, 2])
    with pytest.raises(DataError, match="condition size is not finite"):
        read(path, conditions="size")
    with pytest.raises(DataError, match="conditions=color: no such file, and no such column in"):
        read(path, conditions="color")


@pytest.fixture(scope="module")
def skewed():
    """A run of one skewed number that has hardly learned, and its data."""
    x = np.random.default_rng(0).gamma(0.7, 3.0, 400)
    config = {"steps": 5, "batch_size": 32, "network": MLPConfig(width=8, depth=1)}
    return sf.train(pyarrow.table({"x": x}), **config), x


def test_a_table_of_categories_alone_is_learned():
    table = pyarrow.table({"a": draws("x", "y", "z"), "b": draws(True, False)})
    config = {"steps": 1, "batch_size": 8, "network": MLPConfig(width=8, depth=1)}
    run = sf.train(table, **config)
    assert set(run.sample_table(99, nfe=2)["a"].to_pylist()) == {"x", "y", "z"}
    assert run.table(read(table).x).equals(table)
    assert run.log_prob(read(table).x[:2], nfe=8).value.isfinite().all()


def test_the_map_of_ranks_has_its_knots_at_the_quantiles_of_a_heavy_tail():
    """A number of rank k among N has the coordinate of the share (k + 1/2) / N, near zero too."""
    x = np.exp(np.random.default_rng(0).normal(0, 4, 800))
    data = kind_of(x, "normal", 800)
    v = columns_of(data).forward(data.x, noise(800)).v[:, 0]
    share = (stats.rankdata(x) - 0.5) / 800
    inner = (share > 0.02) & (share < 0.98)
    np.testing.assert_allclose(v[inner], stats.norm.ppf(share[inner]), atol=0.15)


@pytest.mark.parametrize(("origin", "unit"), [(1e12, 1.0), (0.0, 1e300), (0.0, 1e-300)])
def test_numbers_far_from_zero_or_of_any_size_are_resolved(origin, unit):
    """Moments in milliseconds, or coordinates in metres: the field's float32 has no part in it."""
    x = origin + unit * np.random.default_rng(0).gamma(2.0, 1.0, 64)
    config = {"steps": 1, "batch_size": 8, "network": MLPConfig(width=8, depth=1)}
    run = sf.train(read(pyarrow.table({"x": x}), columns="standard"), **config)
    z = run.to_field(torch.from_numpy(x)[:, None])
    assert z.dtype == torch.float32
    assert float(z.std()) == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(run.to_data(z)[:, 0], x, atol=3e-6 * unit)
    assert len(run.sample(64, nfe=2).unique()) > 40


def test_maps_of_quantiles_give_samples_the_distribution_of_the_data(skewed, tmp_path):
    """Where the field has it wrong; and samples stay functions of their ids, on the disk too."""
    run, x = skewed
    samples = run.sample(1000, batch_size=500)
    assert stats.ks_2samp(samples[:, 0], x).pvalue > 0.01
    plain = dataclasses.replace(run, transform=dataclasses.replace(run.transform, quantiles=None))
    assert stats.ks_2samp(plain.sample(1000, batch_size=500)[:, 0], x).pvalue < 1e-6
    same(run.sample([700, 3], batch_size=500), samples[[700, 3]])
    run.save(tmp_path / "run")
    same(sf.load(tmp_path / "run").sample(4, batch_size=500), samples[:4])


def test_the_density_with_maps_of_quantiles_is_that_of_a_distribution(skewed):
    """It integrates to one over the numbers, with the slopes of the maps."""
    run, x = skewed
    ends = (-6.0, -0.1, 0.1, 1.0, float(x.max()) + 25)
    parts = [torch.linspace(*pair, 1501, dtype=torch.float64) for pair in itertools.pairwise(ends)]
    at = torch.cat(parts)[:, None]
    density = run.log_prob(at, nfe=20, batch_size=2001).value.exp()
    assert float(torch.trapezoid(density, at[:, 0])) == pytest.approx(1, abs=0.02)


def test_classes_of_a_table_are_part_of_its_samples(learned, tmp_path):
    """In their place, with their type, in the proportions of the data; or the one by its name."""
    _, path = learned
    rows = pyarrow.csv.read_csv(path).to_pydict()
    kinds = pyarrow.array(rows["kind"]).dictionary_encode()
    rest = {"size": pyarrow.array(rows["size"]), "kind": kinds, "eggs": rows["eggs"]}
    config = {"steps": 2, "batch_size": 8, "network": MLPConfig(width=8, depth=1)}
    run = sf.train(pyarrow.table(rest), "kind", **config)
    assert run.config.data.columns.names == ("size", "eggs")
    samples = run.sample_table(600, nfe=4, batch_size=200)
    assert samples.schema.types[1] == kinds.type
    assert samples.column_names == ["size", "kind", "eggs"]
    drawn = samples["kind"].to_pylist()
    for kind, share in zip("abc", (0.5, 0.3, 0.2), strict=True):
        assert drawn.count(kind) / 600 == pytest.approx(share, abs=0.06)  # three deviations
    some = run.sample_table([7, 3], nfe=4, batch_size=200)
    assert some["kind"].to_pylist() == [drawn[7], drawn[3]]
    same(run.sample([7, 3], nfe=4, batch_size=200), run.sample(8, nfe=4, batch_size=200)[[7, 3]])
    code = run.config.data.classes.names.index("b")
    for y in ("b", code):
        assert run.sample_table(3, nfe=4, given=y)["kind"].to_pylist() == ["b"] * 3
    same(run.sample(3, nfe=4, given="b"), run.sample(3, nfe=4, given=code))
    for y, problem in (([0, 1], r"2 rows for 3 samples"), ([0, 1, 9], r"kind=9: .* 0 to 2")):
        with pytest.raises(UsageError, match=problem):
            run.table(run.sample(3, nfe=4), torch.tensor(y))
    run.save(tmp_path / "run")
    finishes("sample", tmp_path / "run", "--n", 9, "--nfe", 4, "--out", tmp_path / "s.parquet")
    (tmp_path / "part.csv").write_text("size,eggs\n,1\n9.5,\n")
    for n, draws in ((1, "each"), (2, "each"), (3, "mean")):
        flags = "--given", "b", "--n", n, "--draws", draws, "--out", tmp_path / f"r{n}.csv"
        finishes("restore", tmp_path / "run", tmp_path / "part.csv", *flags, "--nfe", 4)
        kinds = pyarrow.csv.read_csv(tmp_path / f"r{n}.csv")["kind"].to_pylist()
        assert kinds == ["b"] * (4 if n == 2 else 2)
    written = parquet.read_table(tmp_path / "s.parquet")
    assert written.equals(run.sample_table(9, nfe=4).cast(written.schema))


def test_a_class_that_is_not_known_is_left_open(tmp_path, capsys):
    """And learned as the unconditional field is."""
    path = tmp_path / "x.csv"
    path.write_text("kind,x\na,1.5\n,2.5\nb,0.5\nb,3.5\na,1.25\n")
    data = read(path, conditions="kind")
    assert values_of(data).tolist() == [0, -1, 1, 1, 0]
    assert data.conditions.channels[0].count == 2
    config = TrainConfig(
        conditional=True,
        network=MLPConfig(width=8, depth=1),
        optim=OptimConfig(steps=3, batch_size=8),
    )
    run = sf.train(data, config=config)
    assert run.config.data.classes.names == ("a", "b")
    run.save(tmp_path / "run")
    for y in ("b", "1"):
        finishes("sample", tmp_path / "run", "--given", y, "--n", 3, "--out", tmp_path / f"{y}.npy")
    same(torch.from_numpy(np.load(tmp_path / "b.npy")), run.sample(3, given=1))
    assert (tmp_path / "b.npy").read_bytes() == (tmp_path / "1.npy").read_bytes()
    assert end("sample", tmp_path / "run", "--given", "c") == 2
    assert "give the number of a class, 0 to 1, or one of its names a, b" in capsys.readouterr().err


def test_classes_that_are_a_column_of_measured_rows_are_used_and_written(tmp_path):
    """As those of the option are; an empty cell is no class, and has none in the samples."""
    rows = {"size": RNG.normal(size=N), "kind": draws("a", "b", "c"), "eggs": draws(0, 1, 2, 3)}
    config = {"steps": 2, "batch_size": 8, "network": MLPConfig(width=8, depth=1)}
    run = sf.train(rows, "kind", **config)
    run.save(tmp_path / "run")
    part = tmp_path / "part.csv"
    part.write_text("eggs,kind,size\n1,c,\n,,9.5\n")
    flags = "--n", 2, "--nfe", 4, "--out", tmp_path / "own.parquet"
    finishes("restore", tmp_path / "run", part, *flags)
    own = parquet.read_table(tmp_path / "own.parquet")
    assert own["kind"].to_pylist() == ["c", "c", None, None]
    like = run.config.data
    x = read(part, learn=False, like=like).x
    sizes = torch.tensor(own["size"].to_pylist()[:2])
    given, free = (run.restore(x[:1], n=2, nfe=4, given=y)[0][:, 0] for y in ("c", None))
    torch.testing.assert_close(sizes, given.to(sizes), rtol=0, atol=1e-6)
    assert not torch.allclose(sizes, free.to(sizes), rtol=0, atol=1e-6)


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
    assert "column kind category of a, b" in text
    assert "column eggs number from 0 to 2, in steps of 1" in text


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
    texts, mixed = [["1", "2", None][k % 3] for k in range(60)], ["7", "b"] * 30
    table = {"t": texts, "m": mixed, "x": np.random.default_rng(0).normal(size=60)}
    parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet")
    data = read(tmp_path / "x.parquet")
    assert [c.labels for c in data.columns.kinds[:2]] == [("1", "2"), ("7", "b")]
    assert data.columns.kinds[0].missing
    run, samples, x = draw(data, tmp_path)
    assert x[:, 0].isnan().any()
    assert {0.0, 1.0} <= set(x[:, 0].tolist())
    same(read(samples, like=run.config.data, learn=False).x, x)


def test_a_column_of_conditions_is_read_as_the_run_did(learned):
    _, path = learned
    data = read(path, conditions="kind")
    like = DataConfig(
        name="birds",
        shape=(3,),
        count=4000,
        columns=data.columns,
        conditions=data.conditions.channels,
    )
    again = read(path, conditions="kind", like=like)
    assert torch.equal(values_of(again), values_of(data))
    assert again.columns.names == ("size", "eggs", "island")
