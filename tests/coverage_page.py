"""Write docs/coverage.md from tests/coverage.toml and tests/mutations.py, if run as a script."""

import tomllib
from collections import Counter
from pathlib import Path

from mutations import MUTATIONS

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "coverage.md"

HEAD = """\
# Coverage: the test of each item

Look up the tests that fail if an item breaks. Each row is an item of the project's checklist, with
its number. `tests/mutations.py` has small defects for most rows, and the last column counts them: a
test of the row fails with each of them. The page is written by the first command from
`tests/coverage.toml`, and the second tries the defects:

```sh
python tests/coverage_page.py
python tests/mutations.py
```
"""
MISTAKES = (
    "The library uses the right form. The test also runs the wrong form, or its consequence, and "
    "shows that it fails."
)
SECTIONS = {
    "items": ("Items", "", "item", [str(k) for k in range(1, 76)]),
    "mistakes": ("Common mistakes", MISTAKES, "the right form", [f"E-{k}" for k in range(1, 43)]),
    "exercises": ("Exercises", "", "exercise", [f"X{k}" for k in range(1, 7)]),
}
NUMBERS = [number for *_, numbers in SECTIONS.values() for number in numbers]


def rows() -> dict[str, tuple[str, list[str]]]:
    """Return the text and the tests of every number of the checklist, as far as they exist.

    Raises:
        ValueError: a row of the file that is not on the checklist.
    """
    content = tomllib.loads((TESTS / "coverage.toml").read_text(encoding="utf-8"))
    every: dict[str, tuple[str, list[str]]] = {number: ("", []) for number in NUMBERS}
    for section in content.values():
        for number, (text, *tests) in section.items():
            if number not in every:
                raise ValueError(f"{number}: not a number of the checklist.")
            every[number] = text, tests
    return every


def missing() -> list[str]:
    """Return the numbers without a test."""
    return [number for number, (_, tests) in rows().items() if not tests]


def page() -> str:
    """Return the page: all numbers of the checklist, and what is missing."""
    every, defects = rows(), Counter(mutation.row for mutation in MUTATIONS)
    count = len(NUMBERS) - len(missing())
    parts = [
        HEAD,
        f"\n{count} of {len(NUMBERS)} rows have a test. Missing: {', '.join(missing())}.\n",
    ]
    for title, lead, column, numbers in SECTIONS.values():
        parts.append(f"\n## {title}\n\n" + f"{lead}\n\n" * bool(lead))
        parts.append(f"| row | {column} | test | defects |\n|---|---|---|---|\n")
        for number in numbers:
            text, tests = every[number]
            cell = "<br>".join(f"`tests/{test}`" for test in tests) or "**missing**"
            parts.append(f"| {number} | {text} | {cell} | {defects[number] or 'none'} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
