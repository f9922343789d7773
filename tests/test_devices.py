"""Devices: by name, in every command, and computations on one without float64."""

import pathlib
import subprocess
import sys

import pytest
from shell import end

import scorefield as sf
from scorefield._internal.devices import find_device

TESTS = pathlib.Path(__file__).with_name("on_stand_in.py")


def test_everything_runs_on_a_device_without_float64_and_without_waits():
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize("name", ["cuda:7", "mps", "gpu", "meta"])
def test_a_device_that_is_not_there_is_refused_in_one_line(name):
    with pytest.raises(sf.errors.UsageError, match=f"device='{name}': not available here") as error:
        find_device(name)
    assert "available: cpu" in str(error.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices") / "run"
    sf.train("moons", steps=2, network={"kind": "mlp", "width": 8, "depth": 1}).save(folder)
    return folder


@pytest.mark.parametrize(
    "command", ["sample", "likelihood", "encode", "decode", "interpolate", "restore"]
)
def test_every_command_refuses_a_device_that_is_not_there(run, capsys, command):
    words = {"sample": [], "interpolate": ["moons", "--pairs", "0:1"]}.get(command, ["moons"])
    assert end(command, run, *words, "--device", "cuda:7") == 2
    assert "--device 'cuda:7': not available here" in capsys.readouterr().err
