"""The page of defaults has the values of the code."""

import inspect
import re
from ast import literal_eval
from pathlib import Path

import pytest
import torch

import scorefield as sf
from scorefield.inverse.restore import restoration
from scorefield.runs.build import concrete_network
from scorefield.sampling import round_trip_plan
from scorefield.training.config import AutoNetwork
from scorefield.training.course import steps_for

PAGE = Path(__file__).parents[1] / "docs" / "defaults.md"
ROW = re.compile(r"\| `([^`]+)`(?: `(\w+)`)? \| `([^`]+)` \| (.+) \|")
ROWS = [row.groups() for row in map(ROW.fullmatch, PAGE.read_text().splitlines()) if row]
NAMES = {
    "sf": sf,
    "field": sf.Gaussian(sf.VP(), torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 2.0]])),
    "restoration": restoration,
    "round_trip_plan": round_trip_plan,
    "steps_for": steps_for,
    "network": lambda shape: concrete_network(AutoNetwork(), shape),
}


@pytest.mark.parametrize(("code", "argument", "value", "measurement"), ROWS)
def test_the_page_has_the_default_of_the_code(code, argument, value, measurement):
    found = eval(code, dict(NAMES))
    if argument:
        found = inspect.signature(found).parameters[argument].default
    assert found == literal_eval(value)
    for script in re.findall(r"(?:benchmarks|tests)/\w+\.py", measurement):
        assert (PAGE.parents[1] / script).is_file()


def test_every_row_of_the_page_is_checked():
    tables = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(ROWS) == len(tables) > 50


def test_the_default_calls_of_a_restoration_are_those_of_the_page():
    field = NAMES["field"]
    with sf.count_calls(field) as calls:
        sf.restore(field, torch.tensor([[0.5, torch.nan]]))
    assert calls.count == restoration().plan(field).nfe
