"""Running commands in tests: in this process, or in one of their own."""

import json
import re
import subprocess
import sys

import pytest

from scorefield.cli import main
from scorefield.training.log import NAME, WALL_CLOCK, records


def flags(**options):
    """Return options as flags: ``network_width=3`` is ``--network.width 3``."""
    nested = re.compile("^(process|parametrization|label|weighting|times|network)_")
    names = {k: nested.sub(r"\1.", k).replace("_", "-") for k in options}
    return [word for k, v in options.items() for word in (f"--{names[k]}", str(v))]


def tiny(steps=5):
    return flags(
        network_kind="mlp",
        network_width=8,
        network_depth=1,
        steps=steps,
        batch_size=8,
        times_kind="uniform",
    )


TINY = tiny()


def listing(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


def content(run):
    """Return what is in a run folder, without what a clock or the memory told."""

    def lasting(values):
        return {k: v for k, v in values.items() if k not in WALL_CLOCK}

    found = listing(run) | {NAME: [lasting(record) for record in records(run / NAME)]}
    found.pop("SHA256SUMS", None)  # which covers the clock's facts too
    for name in found:
        if name.endswith("manifest.json"):
            manifest = json.loads(found[name])
            # whose digest covers the clock's facts too
            found[name] = {"step": manifest["step"], "facts": lasting(manifest["facts"])}
    return found


def end(*arguments):
    """Run a command in this process and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return ended.value.code


def finishes(*arguments):
    assert end(*arguments) == 0


def failing(files, capsys, monkeypatch):
    """Return a function that runs a failing command and returns its message.

    Whatever fails: one message on stderr, no traceback, and no file made, changed or lost.
    """
    monkeypatch.chdir(files)

    def run(code, *arguments):
        before = listing(files)
        capsys.readouterr()
        found = end(*arguments)
        error = capsys.readouterr().err
        assert found == code, error
        assert error.startswith("scorefield: ")
        assert error.endswith("\n")
        assert error.count("\n") == 1, "one message on one line"
        assert error.count("scorefield: ") == 1
        assert "Traceback" not in error
        assert listing(files) == before
        return error

    return run


def python(*arguments, cwd=None, stdin=None):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, input=stdin, timeout=200
    )
