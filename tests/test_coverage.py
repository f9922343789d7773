"""The table of what is covered names tests that exist."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TABLE = (ROOT / "docs" / "coverage.md").read_text()
ROWS = re.findall(r"^\| (\d+|E-\d+|X\d) \| (.+) \| (.+) \|$", TABLE, flags=re.MULTILINE)
NAMED = sorted(set(re.findall(r"`(tests/\w+\.py)::([^`]+)`", TABLE)))

PROMISED = {*range(1, 70), *range(72, 76)}
MISTAKES = {*range(1, 41), 42}
EXERCISES = range(1, 7)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_named_in_the_table_exists(file, name):
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_names_a_test():
    assert all("::test_" in tests for _, _, tests in ROWS)


def test_every_promised_row_and_mistake_is_in_the_table_once():
    numbers = [number for number, _, _ in ROWS]
    assert len(set(numbers)) == len(numbers)
    assert {str(row) for row in PROMISED} <= set(numbers)
    assert {f"E-{row}" for row in MISTAKES} <= set(numbers)
    assert {f"X{row}" for row in EXERCISES} <= set(numbers)
