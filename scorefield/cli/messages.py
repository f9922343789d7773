"""Messages of the library in the words of a command: `name=value` becomes `--name value`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import App

# a name of Python with its "=", or a parenthesis; that of a call opens after a word
_TOKENS = re.compile(
    r"(?<![\w.=])([a-z]\w*(?:\.\w+)*) ?= ?(?:(None|True|False)\b|(?=[^\s=]))|[(\[]|[)\]]"
)


def message(error: Exception, app: App, words: Sequence[str]) -> str:
    """Return an error's message for the command that ``words`` name, as one line."""
    flags = option_flags(app, words)
    rejected: Any = error.__cause__
    if hasattr(rejected, "errors"):  # of pydantic, which need not be loaded
        return _setting_message(rejected.errors()[0], flags)
    return with_flags(str(error), flags)


def option_flags(app: App, words: Sequence[str]) -> dict[str, str]:
    """Return the flags of a command by their names in Python: ``batch_size``, ``optim.steps``.

    An argument without a flag has an empty one.
    """
    command = app.parse_commands(list(words))[1][-1]
    flags = {}
    for argument in command.assemble_argument_collection() if command.default_command else ():
        if not argument.name.startswith("--"):
            flags[argument.field_info.name] = ""
            continue
        for name in argument.names:  # a truth value has two
            flags[name[2:].replace("-", "_")] = name
        flags[".".join(argument.keys)] = argument.name
    return flags


def with_flags(text: str, flags: Mapping[str, str]) -> str:
    """Return a message with ``name=value`` as ``--name value``, if ``name`` is an option.

    ``name=None``, for an option that is missing, and ``name=True`` become ``--name``, and
    ``name=False`` becomes ``--no-name`` where there is such an option. Arguments
    inside a call, such as ``order`` in ``DDIM(order=2)``, stay as they are.
    """
    calls: list[bool] = []  # the open parentheses, and whether each belongs to a call

    def replaced(match: re.Match[str]) -> str:
        token, name = match.group(), match.group(1)
        if token in ("(", "["):
            before = text[match.start() - 1 : match.start()]
            calls.append(token == "(" and (before.isalnum() or before == "_"))
        elif token in (")", "]"):
            del calls[-1:]
        elif match.group(2) == "False" and f"no_{name}" in flags and not any(calls):
            return flags[f"no_{name}"]
        elif name in flags and not any(calls):
            return (flags[name] or name) if match.group(2) else f"{flags[name]} ".lstrip()
        return token

    return _TOKENS.sub(replaced, text)


def _setting_message(problem: Mapping[str, Any], flags: Mapping[str, str]) -> str:
    """Return one line on a setting that pydantic rejected: the flag, and the value."""
    place = [part for part in problem["loc"] if isinstance(part, str)]
    kind = place.pop(1) if len(place) > 2 else ""  # of a union, which is not part of the flag
    name = ".".join(place)
    flag = flags.get(name, f"--{name.replace('_', '-')}")
    match problem["type"]:
        case "union_tag_not_found":
            return f"{flag}: give the kind together with its settings, by {flag}.kind."
        case "union_tag_invalid":
            context = problem["ctx"]
            return f"{flag} {context['tag']}: give one of {context['expected_tags']}."
        case "extra_forbidden" if kind:
            return f"{flag}: {place[0]} of kind {kind} has no such setting."
    text = problem["msg"]
    return f"{flag} {problem['input']}: {text[0].lower()}{text[1:]}."
