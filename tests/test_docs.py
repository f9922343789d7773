"""The site of the documentation: an entry for every public name, a place for every page."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import scorefield as sf

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def reference():
    sys.path.insert(0, str(DOCS))
    try:
        import reference
    finally:
        sys.path.remove(str(DOCS))
    return reference


def test_every_public_name_has_an_entry(reference):
    entries = {path for names in reference.pages().values() for path in names}
    public = {name for name in sf.__all__ if not isinstance(getattr(sf, name), ModuleType)}
    assert len(public) > 100
    assert {f"scorefield.{name}" for name in public} <= entries
    assert "scorefield.interop.diffusers.load" in entries
    assert "scorefield.evaluate.metrics.EnergyDistance" in entries


def test_every_entry_has_a_docstring(reference):
    entries = [path for names in reference.pages().values() for path in names]
    assert len(set(entries)) == len(entries)
    values = {path: reference.resolve(path) for path in entries}
    missing = [path for path, value in values.items() if callable(value) and not value.__doc__]
    assert not missing


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = {
        line.strip().rpartition("<")[2].rstrip(">")
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
        for line in block.splitlines()
        if line.strip() and not line.startswith(":")
    }
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}
    pages = {page for page in pages if not page.startswith("api/")}
    assert listed == pages - {"index"} | {"api/index"}


PAGES = [page for page in sorted(DOCS.glob("*.md")) if page.stem != "changelog"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_a_sentence_and_a_block(page):
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    title, first, *_ = text.strip().split("\n\n")
    assert title.startswith("# ")
    assert re.match(r"[A-Z].*[.:]", first, re.DOTALL)
    block = text.index("\n```")
    figures = [text.find(mark) for mark in ("\n## ", "\n|", "\n![")]
    assert all(block < place for place in figures if place >= 0)
