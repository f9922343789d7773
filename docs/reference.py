"""The pages of the reference: an entry for every public name, from its docstring.

The names are those of ``scorefield/__init__.pyi`` and of the subpackages in `SUBPACKAGES`. The
pages are written to ``docs/api`` when a build begins.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import scorefield

STUB = Path(scorefield.__file__).with_name("__init__.pyi")
TITLES = {
    "process": "Processes and grids",
    "field": "Fields and guidance",
    "inverse": "Inverse problems",
    "solvers": "Solvers",
    "noise": "Noise",
    "sampling": "Sampling, plans and latent codes",
    "likelihood": "Likelihood",
    "tuning": "Tuning and comparing plans",
    "training": "Training",
    "data": "Data",
    "runs": "Runs",
    "report": "Report and pictures",
    "evaluate": "Certificates and checks of networks",
    "metrics": "Metrics",
    "networks": "Networks",
    "interop": "Other libraries",
    "theory": "Theory",
    "spaces": "Manifolds",
    "_internal": "Errors",
}
# Modules whose names are public without being names of `scorefield` itself, and their pages.
SUBPACKAGES = {
    "data": "scorefield.data",
    "training": "scorefield.training",
    "evaluate": "scorefield.evaluate.check",
    "metrics": "scorefield.evaluate.metrics",
    "networks": "scorefield.networks",
    "report": "scorefield.report",
    "theory": "scorefield.theory",
    "spaces": "scorefield.spaces",
}
BRIDGES = ["diffusers", "edm", "score_sde", "scheduler"]


def exported() -> Iterator[tuple[str, str]]:
    """Yield the room and the name of each public name of `scorefield`."""
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if not isinstance(getattr(scorefield, alias.asname or alias.name), ModuleType):
                    yield (node.module or alias.name).split(".")[0], alias.asname or alias.name


def own(module: ModuleType) -> list[str]:
    """Return the public names that a module defines, or lists in its ``__all__``."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def pages() -> dict[str, list[str]]:
    """Return the full names of the entries of each page, in the order of the pages."""
    entries: dict[str, list[str]] = {room: [] for room in TITLES}
    public = []
    for room, name in exported():
        entries.setdefault(room, []).append(f"scorefield.{name}")
        public.append(getattr(scorefield, name))
    modules = {f"interop.{bridge}": f"scorefield.interop.{bridge}" for bridge in BRIDGES}
    for page, path in (SUBPACKAGES | modules).items():
        module = importlib.import_module(path)
        for name in own(module):
            value = getattr(module, name)
            if callable(value) and not any(value is other for other in public):
                entries[page.split(".")[0]].append(f"{path}.{name}")
    return {room: names for room, names in entries.items() if names}


def resolve(path: str) -> Any:
    """Return the object of a full name such as ``scorefield.VP``."""
    parts = path.split(".")[1:]
    value: Any = scorefield
    for k, part in enumerate(parts):
        try:
            value = getattr(value, part)
        except AttributeError:
            value = importlib.import_module(".".join(["scorefield", *parts[: k + 1]]))
    return value


def entry(path: str, documented: list[Any]) -> str:
    """Return the directive of an entry; members of bases without an entry are shown as its own."""
    value = resolve(path)
    if inspect.isclass(value):
        text = f".. autoclass:: {path}\n   :members:\n   :show-inheritance:\n"
        bases = [base for base in value.__mro__[1:] if base.__module__.startswith("scorefield")]
        if bases and not any(base is other for base in bases for other in documented):
            text += "   :inherited-members: Module, BaseModel\n"
        return text
    if callable(value):
        return f".. autofunction:: {path}\n"
    return f".. autodata:: {path}\n"


def page(room: str, names: list[str], documented: list[Any]) -> str:
    """Return the text of a page."""
    title = TITLES.get(room, room.capitalize())
    parts = [f"{title}\n{'=' * len(title)}\n"]
    if room not in ("_internal", "metrics"):
        parts.append(f".. automodule:: scorefield.{room}\n")
    previous = ""
    for path in names:
        module = path.rpartition(".")[0]
        if module != previous and module.count("."):
            parts.append(f"{module}\n{'-' * len(module)}\n")
            previous = module
        parts.append(entry(path, documented))
    return "\n".join(parts)


def commands() -> str:
    """Return the page of the command line: every command with its options."""
    from scorefield.cli.app import app

    text = app.generate_docs(output_format="rst")
    sections = text[text.index(".. _cyclopts-scorefield-train:") :]
    # an option outside of a literal becomes one, or its hyphens would become a dash
    option = re.compile(r"``.*?``|(--[a-z][\w.-]*\w)", re.DOTALL)
    sections = option.sub(lambda m: f"``{m[1]}``" if m[1] else m[0], sections)
    title = "Commands and options"
    return (
        f"{title}\n{'=' * len(title)}\n\nEvery command with its options, as ``--help`` prints "
        f"them.\n\n{sections}"
    )


def write(app: Any) -> None:
    """Write the pages, where their text has changed."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    contents = pages()
    documented = [resolve(path) for names in contents.values() for path in names]
    texts = {room.strip("_"): page(room, names, documented) for room, names in contents.items()}
    texts["commands"] = commands()
    toc = "\n".join(f"   {name}" for name in texts)
    title = "API reference"
    texts["index"] = (
        f"{title}\n{'=' * len(title)}\n\n"
        "Every public name, from its docstring. ``import scorefield as sf`` gives those at the top "
        "of each page.\n\n"
        f".. toctree::\n   :maxdepth: 1\n\n{toc}\n"
    )
    for name, text in texts.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.glob("*.rst"):
        if path.stem not in texts:
            path.unlink()


def skip(app: Any, kind: str, name: str, value: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which the class describes."""
    return True if type(value).__name__ == "_tuplegetter" else None


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
