"""Imports point one way, and the package loads nothing heavy on its own."""

import ast
import pathlib
import subprocess
import sys

import pytest

import scorefield as sf

ROOT = pathlib.Path(sf.__file__).parent
NUMERIC = {"torch", "numpy"}
# what a part needs besides, where it is used
EXTRAS = {"networks/diffusers.py": {"diffusers"}}

# what each room may import of the package, and nothing else; a room comes after all that it imports
ALLOWED = {
    "_internal": set(),
    "process": set(),
    "field": {"process"},
    "noise": {"field", "process"},
    "networks": set(),
    "theory": {"_internal", "noise", "process"},
    "spaces": {"field", "noise", "process"},
    "solvers": {"field", "noise", "process"},
    "sampling": {"_internal", "field", "noise", "process", "solvers"},
    "likelihood": {"_internal", "field", "noise", "process", "sampling", "solvers"},
    "inverse": {"_internal", "field", "process", "sampling", "solvers"},
    "data": {"_internal", "networks", "noise", "process", "spaces"},
    "training": {"_internal", "data", "field", "noise", "process"},
    "evaluate": {"_internal", "field", "likelihood", "noise", "process", "sampling", "solvers"},
    "tuning": {"_internal", "evaluate", "field", "noise", "process", "sampling", "solvers"},
    "runs": {
        "_internal",
        "data",
        "evaluate",
        "field",
        "inverse",
        "likelihood",
        "networks",
        "noise",
        "process",
        "sampling",
        "solvers",
        "spaces",
        "training",
        "tuning",
    },
}
# rooms that need torch and numpy alone
CORE_ROOMS = set(ALLOWED) - {"_internal", "data", "training", "evaluate", "tuning", "runs"}
# what only the rooms on top may import
TOP = {"cli", "report", "interop", "__main__"}


def part(path):
    """Return the part of the package that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """Return the names of the modules a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import"
            if node.module == "scorefield":
                names |= {f"scorefield.{alias.name}" for alias in node.names}
            else:
                names.add(node.module)
    return names


def imported_parts(path):
    """Return the parts of the package that a file imports, its own left out."""
    own = {name.split(".")[1] for name in imported(path) if name.startswith("scorefield.")}
    return own - {part(path)}


FILES = sorted(ROOT.rglob("*.py"))
ROOMS = [path for path in FILES if part(path) in ALLOWED]
CORE = [path for path in ROOMS if part(path) in CORE_ROOMS]


def every(paths):
    """Parametrize a test by files."""
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(ROOT)))


def test_every_room_is_listed():
    assert {part(path) for path in FILES} - TOP - {"__init__"} == set(ALLOWED)


def test_rooms_import_one_way():
    above = set(ALLOWED)
    for room, below in ALLOWED.items():
        above.discard(room)
        assert not below & (above | {room})


@every(ROOMS)
def test_a_room_imports_only_the_rooms_below(path):
    assert imported_parts(path) <= ALLOWED[part(path)]


@every(CORE)
def test_the_core_needs_only_torch_and_numpy(path):
    foreign = {name.split(".")[0] for name in imported(path)} - {"scorefield"}
    allowed = NUMERIC | EXTRAS.get(path.relative_to(ROOT).as_posix(), set())
    if path.name == "__init__.py":
        allowed |= {"lazy_loader"}  # the names of a room load when they are used
    assert foreign - sys.stdlib_module_names <= allowed


@every([path for path in FILES if part(path) not in TOP])
def test_nobody_imports_the_command_line_or_the_reports(path):
    assert not imported_parts(path) & TOP


def run(code):
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_using_the_core_loads_no_plotting_configuration_or_console_library():
    heavy = "matplotlib pydantic cyclopts rich PIL scipy diffusers"
    code = f"""
import sys
import scorefield as sf
field = sf.Denoiser, sf.Gaussian, sf.sample, sf.Multistep, sf.VP()
print([name for name in {heavy.split()} if name in sys.modules])
"""
    assert run(code) == "[]"


def test_arrays_and_samples_of_them_load_no_library_of_tables():
    code = """
import sys
import torch
import scorefield as sf
run = sf.train(torch.randn(20, 2), steps=1, batch_size=4)
run.sample(2, nfe=2)
print("pyarrow" in sys.modules)
"""
    assert run(code) == "False"


def test_an_objective_loads_few_modules():
    code = """
import sys
import scorefield.training.objective
print(sum(name.split(".")[0] == "scorefield" for name in sys.modules))
"""
    assert int(run(code)) <= 25


def test_the_package_itself_loads_without_torch():
    assert run("import sys, scorefield; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("name", sf.__all__)
def test_every_public_name_exists_and_is_documented(name):
    assert getattr(sf, name).__doc__


def test_public_names_are_listed_once():
    assert len(set(sf.__all__)) == len(sf.__all__)
