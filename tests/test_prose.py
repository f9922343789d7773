"""The English of docstrings, comments, messages, help and documentation is that of the field."""

import ast
import io
import pathlib
import re
import tokenize

import pytest

import scorefield as sf

ROOT = pathlib.Path(sf.__file__).parent
TOP = ROOT.parent
SOURCES = [*sorted(ROOT.rglob("*.py")), *sorted((TOP / "examples").rglob("*.py"))]
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").rglob("*.md"))]

# a phrase, and what to write in its place
FORBIDDEN = {
    r"\b(tells?|told|telling)\b": "compute, report, return, mean",
    r"\bunless (it is )?(given|told|asked|named|said|set)\b": "the default, or the condition",
    r"\bwhat (is|was|are|were|there|of|the|a|an|it|they|has|no|none|does)\b": "the noun",
    r"(?m)^\s*(Return what|What)\b": "the noun",
    r"\b(is|are|was|were|be) no (?!longer\b|more\b|less\b|fewer\b|greater\b|larger\b)": "is not a",
    r"\bbeside\b": "next to, besides",
    r"\bnone such\b|\bthose that\b|\bso near\b|\bthere is none\b": "name the thing",
    r"\btiles?\b": "batch, batch size",
    r"\b(general plan)\b": "default plan",
    r"(?<!power )(?<!scaling )\blaws?\b": "distribution",
    r"\bat their best in hindsight\b": "best in hindsight",
}
# identifiers are nouns of the domain
PARTICIPLES = {
    *("found", "made", "kept", "held", "told", "known", "seen", "taken", "asked"),
    *("named", "said", "meant", "brought", "gone", "how", "what", "tile", "tiles"),
}


def phrases(text):
    """Return the forbidden phrases of a text; questions may ask what something is."""
    text = re.sub(r"``[^`]*``|`[^`\n]*`", "code", text)
    sentences = re.split(r"(?<=[.:!])\s|\n\s*\n", text)
    statements = [" ".join(s.split()) for s in sentences if not s.rstrip().endswith("?")]
    return [
        f"{match.group().strip()!r} ({better}) in: {statement[:160]}"
        for statement in statements
        for pattern, better in FORBIDDEN.items()
        for match in re.finditer(pattern, statement, 0 if pattern[0] == "(" else re.IGNORECASE)
    ]


def texts(path):
    """Yield the docstrings, messages and comments of a source file, with their lines."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "x" for v in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def identifiers(path):
    """Yield the names that a source file gives to things, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


def every(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(TOP)))


@every(SOURCES)
def test_docstrings_messages_and_comments_are_plain(path):
    problems = [f"{path.name}:{line}: {p}" for line, text in texts(path) for p in phrases(text)]
    assert not problems, "\n".join(problems)


@every(SOURCES)
def test_identifiers_are_nouns(path):
    problems = [
        f"{path.name}:{line}: {name}"
        for line, name in identifiers(path)
        if name.strip("_").lower() in PARTICIPLES
    ]
    assert not problems, "\n".join(problems)


@every(PAGES)
def test_pages_are_plain(path):
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    problems = phrases(prose)
    assert not problems, "\n".join(problems)


def test_the_rules_find_the_sentences_they_were_made_for():
    assert phrases("Tell the log-density of every item.")
    assert phrases("Return what of a plan still holds.")
    assert phrases("20 steps unless given.")
    assert phrases("This is no plan.")
    assert not phrases("Return the log-density of each item. What is a score field?")
