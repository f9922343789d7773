"""The tests that docs/coverage.md names notice defects; `mutations.py` has them all, by hand."""

import pytest
from coverage_page import missing, rows
from mutations import MUTATIONS, ROOT, mutated
from shell import python

TESTS = ROOT / "tests"

LESSONS = "test_the_python_of_a_page_runs"
QUICK = [mutation.row for mutation in MUTATIONS if LESSONS not in mutation.test]
PARTS = [
    pytest.param(QUICK[k::26], marks=pytest.mark.exhaustive if k else pytest.mark.slow)
    for k in range(26)
]


def test_each_change_applies_and_its_test_is_named_in_its_row():
    every = rows()
    for mutation in MUTATIONS:
        mutated(mutation)
        page = mutation.test.partition("[")[2].removesuffix("]")
        assert not page or (ROOT / "docs" / "lessons" / page).is_file()
        assert mutation.test.partition("[")[0] in every[mutation.row][1], mutation.row


@pytest.mark.parametrize("part", PARTS, ids=" ".join)
def test_the_tests_of_rows_notice_their_mutations(part):
    """In a process that has not imported the library yet."""
    ended = python(TESTS / "mutations.py", *part)
    assert ended.returncode == 0, ended.stdout


def test_every_row_has_a_mutation_or_is_named_here():
    untried = {*rows()} - {mutation.row for mutation in MUTATIONS} - {*missing()}
    # trained networks, tuned plans and whole numbers: their tests are slow, or checked by a peer
    assert untried == {"36", "59", "63"}
