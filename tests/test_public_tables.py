"""Samples of twelve public tables have the types, ranges, grids and labels of the tables."""

import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import compute, types

import scorefield as sf
from scorefield.data import Columns, read
from scorefield.data.tabular import as_table
from scorefield.noise import LEVELS
from scorefield.training.config import MLPConfig

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    from public_tables import CHOICE, JUDGED, public_table
finally:
    sys.path.remove(str(BENCHMARKS))

MOST_DIGITS = 9  # decimals, from which numbers count as having no grid
FEW, REPEATS = 16, 5


def same_schema(table, samples, missing_rates=True):
    """Return the differences of samples from the table that they are to look like, as texts.

    Compared are names and types, and in each column ranges, labels, grids (decimals, and the
    greatest common divisor of all differences), few repeated numbers, and the share of missing
    values within four standard errors. Without ``missing_rates``, only that complete columns stay
    complete.
    """
    if not samples.schema.equals(table.schema, check_metadata=True):  # with the types of pandas
        return [f"schema: {samples.schema} for {table.schema}"]
    differences = []
    for name in table.column_names:
        problems = [
            *missing_problems(table[name], samples[name], missing_rates),
            *value_problems(table[name].drop_null(), samples[name].drop_null()),
        ]
        differences += [f"{name}: {problem}" for problem in problems]
    return differences


def missing_problems(real, drawn, rates):
    shares = [column.null_count / len(column) for column in (real, drawn)]
    if not shares[0] or not rates:
        return ["missing values"] if shares[1] and not shares[0] else []
    error = math.sqrt(shares[0] * (1 - shares[0]) * (1 / len(real) + 1 / len(drawn)))
    return [f"{shares[1]:.3f} missing for {shares[0]:.3f}"] if gap(shares) > 4 * error else []


def gap(pair):
    return abs(pair[0] - pair[1])


def value_problems(real, drawn):
    if not (types.is_floating(real.type) or types.is_integer(real.type)):
        if not types.is_temporal(real.type):
            unknown = set(drawn.to_pylist()) - set(real.to_pylist())
            return [f"labels {unknown}"] if unknown else []
        real, drawn = (column.cast("int64") for column in (real, drawn))
    real, drawn = (column.to_numpy() for column in (real, drawn))
    if not len(real) or not len(drawn):
        return []
    low, high = real.min(), real.max()
    outside = drawn[(drawn < low) | (drawn > high)]
    problems = [f"{outside[0]} is outside {low} to {high}"] if len(outside) else []
    digits = 0 if real.dtype.kind == "i" else digits_of(real)
    if digits > MOST_DIGITS:
        return problems
    steps, others = whole(real, digits), whole(drawn, digits)
    if real.dtype.kind == "f" and (rest := drawn[others / 10**digits != drawn]).size:
        problems.append(f"{rest[0]} has more than {digits} decimals")
    grid = int(np.gcd.reduce(steps - steps.min()))
    if grid and ((others - steps.min()) % grid).any():
        problems.append(f"numbers off the grid of {grid} / 10**{digits}")
    values = np.unique(real)
    if len(values) <= FEW and REPEATS * len(values) <= len(real) and grid != 10**digits:
        new = set(drawn.tolist()) - set(values.tolist())
        problems += [f"{new} are not among the {len(values)} values"] if new else []
    return problems


def digits_of(x):
    """Return the most decimals of any of the numbers."""
    return max(len(np.format_float_positional(v, trim="-").partition(".")[2]) for v in x)


def whole(x, digits):
    return np.rint(x * 10**digits).astype(np.int64)


def arrow_of(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages
        return pyarrow.Table.from_pandas(public_table(name).frame, preserve_index=False)


@pytest.fixture(scope="module", params=CHOICE + JUDGED)
def table(request):
    return arrow_of(request.param)


def test_samples_have_the_schema_of_the_table(table):
    """Of a network that has hardly learned, so that nothing comes right by training."""
    network = MLPConfig(width=8, depth=1)
    run = sf.train(table, steps=2, batch_size=8, network=network)
    samples = run.sample_table(300, nfe=2, batch_size=300)
    assert same_schema(table, samples, missing_rates=False) == []


@pytest.mark.parametrize("name", ["penguins", "cars"])
def test_samples_have_the_missing_rates_of_the_table(name):
    """Two tables with missing values; of a small network that has learned."""
    table = arrow_of(name)
    network = MLPConfig(width=48, depth=2)
    run = sf.train(table, steps=300, batch_size=64, lr=3e-3, network=network)
    samples = run.sample_table(600, nfe=10, batch_size=600)
    assert same_schema(table, samples) == []


def test_rows_come_back_as_they_were(table):
    """But for single numbers off the grid of a column, and the last bits of numbers without one."""
    data = read(table)
    columns = Columns(data.columns, len(data.columns.kinds))
    v = columns.forward(data.x, sf.Noise(0, torch.arange(len(data.x)), stream=LEVELS)).v
    rows = as_table(columns.inverse(v).numpy(), data.columns)
    assert same_schema(table, rows) == []
    for kind, name in zip(data.columns.kinds, table.column_names, strict=True):
        if kind.kind == "number" and not kind.step:
            there, back = (np.asarray(each[name].to_numpy(), float) for each in (table, rows))
            np.testing.assert_allclose(back, there, rtol=0, atol=1e-14 * (kind.high - kind.low))
            continue
        changed = compute.sum(compute.not_equal(rows[name], table[name])).as_py()
        assert changed <= (0 if getattr(kind, "on_grid", True) else 0.01 * len(table)), name
        assert rows[name].is_null().equals(table[name].is_null()), name


WEIGHTS = {"grams": [25 * (k * k % 37) for k in range(300)], "sex": ["f", None, "m"] * 100}
FAULTS = {
    "schema": {"grams": [0.0, 25.0]},
    "outside": {"grams": [0, 925]},
    "grid": {"grams": [25, 26]},
    "labels": {"sex": ["f", "x"]},
    "missing values": {"grams": [0, None]},
    "missing for": {"sex": ["f"] * 300},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_difference_is_reported(fault):
    table = pyarrow.table(WEIGHTS)
    assert same_schema(table, table) == []
    changed = {
        name: [*cells, *WEIGHTS[name][len(cells) :]] for name, cells in FAULTS[fault].items()
    }
    differences = same_schema(table, pyarrow.table({**WEIGHTS, **changed}))
    assert len(differences) == 1
    assert fault in differences[0]


@pytest.mark.parametrize(("wrong", "problem"), [(0.25, "decimals"), (0.3, "values")])
def test_decimals_and_few_numbers_are_compared(wrong, problem):
    real = pyarrow.table({"x": [0.1, 0.2, 0.4, 0.6] * 20})
    differences = same_schema(real, pyarrow.table({"x": [wrong, *[0.1, 0.2] * 20]}))
    assert any(problem in difference for difference in differences)
