"""The tests that docs/coverage.md names notice defects; `mutations.py` has them all, by hand."""

import pytest
from mutations import MUTATIONS, ROOT, mutated
from shell import python
from test_coverage import ROWS

TESTS = ROOT / "tests"

LESSONS = "test_the_python_of_a_page_runs"
QUICK = [mutation.row for mutation in MUTATIONS if LESSONS not in mutation.test]
PARTS = [
    pytest.param(QUICK[k::26], marks=pytest.mark.exhaustive if k else pytest.mark.slow)
    for k in range(26)
]


def test_each_change_applies_and_its_test_is_named_in_its_row():
    tests = {number: tests for number, _, tests in ROWS}
    for mutation in MUTATIONS:
        mutated(mutation)
        page = mutation.test.partition("[")[2].removesuffix("]")
        assert not page or (ROOT / "docs" / "lessons" / page).is_file()
        assert f"`tests/{mutation.test.partition('[')[0]}`" in tests[mutation.row], mutation.row


@pytest.mark.parametrize("rows", PARTS, ids=" ".join)
def test_the_tests_of_rows_notice_their_mutations(rows):
    """In a process that has not imported the library yet."""
    ended = python(TESTS / "mutations.py", *rows)
    assert ended.returncode == 0, ended.stdout


def test_every_row_has_a_mutation_or_is_named_here():
    missing = {number for number, _, _ in ROWS} - {mutation.row for mutation in MUTATIONS}
    # trained networks, tuned plans and whole numbers: their tests are slow, or checked by a peer
    assert missing == {"36", "59", "63"}
