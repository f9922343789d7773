"""The page on coverage has every number of the checklist, and names tests that exist."""

import ast
import pathlib

import pytest
from coverage_page import PAGE, missing, page, rows

TESTS = pathlib.Path(__file__).parent
NAMES = sorted({test for _, tests in rows().values() for test in tests})


def test_the_page_is_the_one_that_the_rows_make():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/coverage_page.py"


@pytest.mark.parametrize("name", NAMES)
def test_every_test_of_a_row_exists(name):
    file, _, function = name.partition("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_what_has_no_test_is_known():
    assert missing() == ["71"]
