"""The tests that docs/coverage.md names notice defects; `mutations.py` has them all, by hand."""

import datetime

import pytest
from mutations import MUTATIONS, ROOT, mutated, notices
from test_coverage import ROWS

LESSONS = "test_the_python_of_a_page_runs"
QUICK = [mutation for mutation in MUTATIONS if LESSONS not in mutation.test]
# another few every day, so that all have had their turn after a month
TODAY = QUICK[datetime.date.today().toordinal() % 26 :: 26]


def test_each_change_applies_and_its_test_is_named_in_its_row():
    tests = {number: tests for number, _, tests in ROWS}
    for mutation in MUTATIONS:
        mutated(mutation)
        page = mutation.test.partition("[")[2].removesuffix("]")
        assert not page or (ROOT / "docs" / "lessons" / page).is_file()
        page = mutation.test.partition("[")[2].removesuffix("]")
        assert not page or (ROOT / "docs" / "lessons" / page).is_file()
        assert f"`tests/{mutation.test.partition('[')[0]}`" in tests[mutation.row], mutation.row


@pytest.mark.slow
@pytest.mark.parametrize("mutation", TODAY, ids=lambda mutation: mutation.row)
def test_the_test_of_a_row_notices_its_mutation(mutation):
    assert notices(mutation)


def test_every_row_has_a_mutation_or_is_named_here():
    missing = {number for number, _, _ in ROWS} - {mutation.row for mutation in MUTATIONS}
    # trained networks, tuned plans and whole numbers: their tests are slow, or checked by a peer
    assert missing == {"36", "59", "63"}
