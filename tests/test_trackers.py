"""Trackers get the numbers of the log, and are read back as their own packages read them."""

import subprocess
import sys

import numpy as np
import pytest
from shell import end, finishes, tiny

from scorefield.runs import trackers
from scorefield.runs.trainer import Training
from scorefield.training.log import records

OFTEN = [
    "--checkpoint-every",
    "8",
    "--log-every",
    "4",
    "--evaluate-every",
    "10",
    "--held-out",
    "0.2",
]


@pytest.fixture
def data(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 3)))
    return tmp_path / "x.npy"


def series(folder):
    """Return the steps and values of each scalar in a folder of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), purge_orphaned_data=True)
    found.Reload()
    return {
        name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]
    }


def cut(steps):
    for progress in steps:
        if progress.step == 15:
            raise KeyboardInterrupt
        yield progress


def test_tensorboard_has_what_the_log_has_also_after_a_cut(tmp_path, data, monkeypatch):
    command = ["train", data, "--out", tmp_path / "run", *tiny(20), *OFTEN]
    command += ["--tracker", "tensorboard"]
    with monkeypatch.context() as patch:
        whole = Training.__iter__
        patch.setattr(Training, "__iter__", lambda self: cut(whole(self)))
        assert end(*command) == 130
    finishes(*command)
    log, found = records(tmp_path / "run" / "log.jsonl"), series(tmp_path / "run" / "tensorboard")
    for event, name in [("train", "loss"), ("train", "lr"), ("evaluation", "error")]:
        expected = [(r["step"], r[name]) for r in log if r["event"] == event]
        assert [step for step, _ in found[f"{event}/{name}"]] == [step for step, _ in expected]
        values = [value for _, value in found[f"{event}/{name}"]]
        np.testing.assert_allclose(values, [value for _, value in expected], rtol=1e-6)
    levels = [r["levels"][3] for r in log if r["event"] == "evaluation"]
    np.testing.assert_allclose([v for _, v in found["evaluation/level-3"]], levels, rtol=1e-6)


class Service:
    """What wandb and trackio have in common, as their documentation has it."""

    def __init__(self):
        self.calls = []

    def init(self, *, project, name, config):
        self.calls.append((project, name, config["seed"]))

    def log(self, values, *, step):
        self.calls.append((step, values))

    def finish(self):
        self.calls.append("finished")


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_a_service_is_told_once_for_each_record(tmp_path, data, monkeypatch, kind):
    service = Service()
    monkeypatch.setitem(sys.modules, kind, service)
    finishes("train", data, "--out", tmp_path / "run", *tiny(12), *OFTEN, "--tracker", kind)
    first, *told, last = service.calls
    assert first == ("scorefield", "run", 0)
    assert last == "finished"
    log = records(tmp_path / "run" / "log.jsonl")
    assert [step for step, _ in told] == [record["step"] for record in log] == [4, 8, 10, 12, 12]
    assert told[0][1]["train/loss"] == log[0]["loss"]


@pytest.mark.parametrize("kind", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_told_before_anything_is_done(
    tmp_path, data, monkeypatch, capsys, kind
):
    monkeypatch.setitem(sys.modules, kind, None)
    command = ["train", data, "--out", tmp_path / "run", *tiny(5), "--tracker", kind]
    assert end(*command) == 2
    assert f"pip install 'scorefield[{kind}]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_no_tracker_is_loaded_unless_it_is_asked_for():
    heavy = ["tensorboard", "wandb", "trackio"]
    code = f"import {trackers.__name__}, sys; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
