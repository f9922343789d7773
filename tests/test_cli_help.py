"""What every command shows and loads: its help, its modules, and messages in its own words."""

import contextlib
import importlib
import io
import re

import pytest
from shell import finishes, flags, python

from scorefield.cli import app as cli
from scorefield.cli.messages import option_flags, with_flags

COMMANDS = [[k.rstrip("_").replace("_", "-")] for names in cli.COMMANDS.values() for k in names]
SUBCOMMANDS = [*COMMANDS, ["data", "inspect"]]


def every(commands):
    return pytest.mark.parametrize("command", commands, ids=" ".join)


def help_of(*command):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        finishes(*command, "--help")
    return re.sub(r"[│╭╮╰╯─\s]+", " ", text.getvalue())


@every(COMMANDS)
def test_each_command_is_the_function_of_its_file(command):
    (name,) = command
    name = "import_" if name == "import" else name.replace("-", "_")
    module = importlib.import_module(f"scorefield.cli.{name}")
    assert callable(getattr(module, name))
    summary = (getattr(module, name).__doc__ or "Inspect data.").split(":")[0].splitlines()[0]
    assert summary.split(".")[0] in help_of(), "the list of commands shows the first line"


@every(SUBCOMMANDS)
def test_help_is_of_phrases_with_the_defaults_that_the_tool_prints(command):
    text = help_of(*command)
    assert "unless" not in text
    # every option has a text before its choices and its default
    assert not re.search(r"--\S+ (INT|FLOAT|STR|PATH|CHOICE) \[(?!OPTIONS)", text)
    assert not re.search(r"--(no|empty)-(overwrite|grey|bound|sde|ids|without)", text)


def test_options_of_a_sampling_are_read_from_top_to_bottom():
    text = help_of("sample")
    headings = [text.index(f" {name} --") for name in ("What", "Network calls", "Solver", "Where")]
    assert headings == sorted(headings)
    order = ["--n ", "--guidance ", "--nfe ", "--tolerance ", "--solver ", "--eta ", "--out "]
    places = [text.index(f" {option}") for option in order]
    assert places == sorted(places)
    assert "--nfe INT Network calls per sample." in text
    assert "[default: 20]" in text
    assert "--batch-size INT Items per network call." in text


def test_a_restoration_shows_the_options_it_takes():
    text = help_of("restore")
    assert "--mask" in text
    for option in ("--plan", "--tolerance", "--time-per-sample", "--guidance"):
        assert f"{option} " not in text
    assert text.count("[default: multistep with --order 2 --eta 1; --order 1 for repaint]") == 1
    assert "[default: multistep]" not in text
    assert "[default: multistep]" in help_of("sample")


def test_settings_of_a_training_have_flat_names_and_short_kinds():
    text = help_of("train")
    for name in ("steps", "minutes", "batch-size", "lr", "ema", "precision"):
        assert f" --{name} " in text
    assert "--optim" not in text


MODULES = """
import sys
from scorefield.cli import main
try:
    main(sys.argv[1:])
finally:
    print(sorted(name for name in sys.modules if name.split(".")[0] == "scorefield"))
"""


def test_a_sampling_loads_few_modules(tmp_path):
    """133 before commands were imported when they run, and rooms when they are used."""
    run = tmp_path / "run"
    small = flags(network_kind="mlp", network_width=8, network_depth=1, steps=2, batch_size=8)
    finishes("train", "moons", "--out", run, *small)
    done = python("-c", MODULES, "sample", run, "--n", 4)
    names = done.stdout.splitlines()[-1].split("', '")
    assert len(names) <= 82, names
    assert not any("tuning" in name or "likelihood" in name for name in names)


TRANSLATIONS = [
    (
        "batch_size=0: must be a whole number, at least 1.",
        "--batch-size 0: must be a whole number, at least 1.",
    ),
    ("eta = 2: give a number.", "--eta 2: give a number."),
    (
        "nfe=3 cannot be combined with solver='heun'.",
        "--nfe 3 cannot be combined with --solver 'heun'.",
    ),
    ("nfe=None: give a number of calls.", "--nfe: give a number of calls."),
    ("or overwrite=True to replace it.", "or --overwrite to replace it."),
    ("Multistep(order=9, prediction=A(eta=1)) has no order=9.", None),
    ("x=3: is not an option of the command.", "x=3: is not an option of the command."),
    ("noneta=3 and a.nfe=4 and nfe==4", "noneta=3 and a.nfe=4 and nfe==4"),
    ("(seed=1)", "(--seed 1)"),
    ("run=here: not a run.", "here: not a run."),
]


@pytest.mark.parametrize(("text", "expected"), TRANSLATIONS)
def test_arguments_of_python_become_options_of_the_command(text, expected):
    if expected is None:
        expected = text.replace("no order=9", "no --order 9")
    assert with_flags(text, option_flags(cli.app, ["sample", "run"])) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr=0: must be positive.", "--lr 0: must be positive."),
        ("lr=0: must be positive.", "--lr 0: must be positive."),
        ("network.width=0: must be positive.", "--network.width 0: must be positive."),
        ("process.beta_max=-1: give more.", "--process.beta-max -1: give more."),
        ("held_out=2: give a share.", "--held-out 2: give a share."),
    ],
)
def test_settings_become_options_of_the_training(text, expected):
    assert with_flags(text, option_flags(cli.app, ["train", "moons"])) == expected


def test_the_kinds_of_training_are_those_that_an_option_can_name():
    assert "mlp" in help_of("train")
    assert "custom" not in help_of("train")
