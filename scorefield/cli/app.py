"""The commands, and how each ends: results on stdout, or one message on stderr and an exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter
from docstring_parser.attrdoc import AttributeDocstrings

from scorefield._internal.errors import Stopped
from scorefield._internal.text import one_line
from scorefield.cli.config_file import apply_settings
from scorefield.cli.messages import message

app = App(
    name="scorefield",
    help="Diffusion models in continuous time: train one score field, choose the solver afterwards."
    "\n\n`train` writes a run, a folder with the trained field, and the other commands use it. To "
    "begin: `scorefield train moons --out runs/moons`, then `scorefield sample runs/moons`.",
    help_format="markdown",
    default_parameter=Parameter(consume_multiple=True),  # --without a b, --ema 0.99 0.9
    config=(apply_settings,),  # of `train`
    suppress_keyboard_interrupt=False,  # `main` handles it
)

# the commands, by heading; each is a function in the file of its name
COMMANDS = {
    "Make a run": ("data", "codec", "train", "import_"),
    "Use a run": (
        "sample",
        "likelihood",
        "encode",
        "decode",
        "interpolate",
        "translate",
        "restore",
    ),
    "Examine a run": ("info", "tune", "compare", "check", "audit", "report"),
    "Other": ("tune_pipeline", "merge", "certify"),
}
_attribute_docstrings = AttributeDocstrings.get_attr_docs


@functools.cache
def _remembered(component: Any) -> Any:
    return _attribute_docstrings(AttributeDocstrings(), component)


# cyclopts parses the source of every base of every configuration, each time anew
AttributeDocstrings.get_attr_docs = lambda _, component: _remembered(component)  # type: ignore[assignment, method-assign]

_assembled, _HELP = App.assemble_argument_collection, {"--help", "-h"}
MOST_WORDS = 1000  # the time that cyclopts takes grows as the square of their number

for heading, names in COMMANDS.items():
    group = Group.create_ordered(heading)
    for name in names:
        path = f"scorefield.cli.{name}:{name}"
        app.command(
            path, name=name.rstrip("_").replace("_", "-"), group=group, sort_key=names.index(name)
        )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0, 2 usage, 3 data, 4 checkpoint, 5 numerical, 6 storage, 130."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    # as configuration files and messages have them
    words = [f"--{word[8:]}" if word.startswith("--optim.") else word for word in words]
    try:
        if len(words) > MOST_WORDS:
            raise ValueError(
                f"{len(words):,} words were given; a command line has at most {MOST_WORDS:,}: give "
                "a folder for its files, and settings of `train` as --config settings.toml."
            )
        if not words or words[0].startswith("-"):
            app.resolved_commands()  # whose docstrings the list of commands shows
        elif not _HELP.isdisjoint(words) and words[0] in app and app[words[0]].default_command:
            _show_help(words)
            _leave(0)
        app(words, exit_on_error=False, print_error=False)
    except Stopped as stopped:
        _fail(str(stopped), stopped.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted.", 130)
    except (CycloptsError, ValueError, ImportError) as error:
        _fail(message(error, app, words), getattr(error, "exit_code", 2))
    except OSError as error:
        _fail(f"{error.strerror}: {error.filename}." if error.filename else str(error), 6)
    except (MemoryError, RuntimeError, ArithmeticError) as error:
        _fail(str(error).splitlines()[0] if str(error) else "out of memory.", 5)
    _leave(0)


def _show_help(words: Sequence[str]) -> None:
    """Print the help of a command; without this, cyclopts assembles its arguments three times."""
    once: dict[int, Any] = {}

    def assemble(command: App, **_: Any) -> Any:
        if id(command) not in once:
            once[id(command)] = _assembled(command, parse_docstring=True)
        return once[id(command)]

    App.assemble_argument_collection = assemble  # type: ignore[assignment, method-assign]
    try:
        app.help_print([word for word in words if word not in _HELP])
    finally:
        App.assemble_argument_collection = _assembled  # type: ignore[method-assign]


def _fail(text: str, code: int) -> NoReturn:
    print(f"scorefield: {one_line(text)}", file=sys.stderr)
    _leave(code)


def _leave(code: int) -> NoReturn:
    distributed = sys.modules.get("torch.distributed")
    if "WORLD_SIZE" in os.environ and distributed is not None and distributed.is_initialized():
        # see scorefield.training.distributed.group
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
