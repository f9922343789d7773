"""Training that was cut goes on to the same weights, whenever and however it was cut."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from shell import TINY, end, finishes, listing, tiny

from scorefield.config import TrainConfig
from scorefield.data import read
from scorefield.errors import StorageError, UsageError
from scorefield.training import Training, checkpoint

LONG = [*tiny(60), "--checkpoint-every", "7", "--levels", "5"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data, and the run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("checkpoints")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.integers(0, 5, (40, 3)))
    np.save(folder / "y.npy", rng.integers(0, 5, (40, 3)))
    finishes("train", folder / "x.npy", "--out", folder / "whole", *LONG)
    return folder


def small(steps=12, **options):
    given = {
        "network": {"kind": "mlp", "width": 8, "depth": 1},
        "optim": {"steps": steps, "batch": 8},
    }
    return TrainConfig.model_validate({**given, **options})


@pytest.mark.parametrize("cut", [1, 5, 11, 12])
def test_a_training_restored_after_any_step_ends_at_the_same_weights(tmp_path, files, cut):
    data = read(files / "x.npy")
    whole, first, second = (Training(data, small()) for _ in range(3))
    for _ in whole:
        pass
    steps = iter(first)
    for _ in range(cut):
        next(steps)
    first.save_checkpoint(tmp_path)
    assert second.resume(tmp_path) == cut
    for _ in second:
        pass
    expected, found = (t.denoiser.network.state_dict() for t in (whole, second))
    assert all(torch.equal(found[k], v) for k, v in expected.items())
    assert second.loss == whole.loss


def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path, files):
    training = Training(read(files / "x.npy"), small())
    for progress in training:
        if progress.step % 3 == 0:
            training.save_checkpoint(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["000000009", "000000012"]
    for k, name in enumerate(("state.safetensors", "manifest.json")):
        path = tmp_path / "000000012" / name
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert Training(read(files / "x.npy"), small()).resume(tmp_path) == 9, name
        path.write_bytes(content)
        again = Training(read(files / "x.npy"), small())
        assert again.resume(tmp_path) == 12, k
    for folder in tmp_path.iterdir():
        (folder / "manifest.json").unlink()
    with pytest.raises(StorageError, match="are damaged: remove it to begin again"):
        Training(read(files / "x.npy"), small()).resume(tmp_path)


def test_a_write_that_fails_leaves_the_checkpoints_as_they_were(tmp_path, files, monkeypatch):
    training = Training(read(files / "x.npy"), small())
    steps = iter(training)
    next(steps)
    training.save_checkpoint(tmp_path)
    before = listing(tmp_path)
    next(steps)
    for name in ("fsync", "replace"):

        def full(*arguments):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(StorageError, match="device: it needs 2"):
                training.save_checkpoint(tmp_path)
        assert listing(tmp_path) == before
    training.save_checkpoint(tmp_path)
    assert len(listing(tmp_path)) > len(before)


@pytest.mark.parametrize(
    ("change", "message"), [({"seed": 3}, "settings"), ({"optim": {"steps": 13}}, "settings")]
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, files, change, message):
    training = Training(read(files / "x.npy"), small())
    next(iter(training))
    training.save_checkpoint(tmp_path)
    with pytest.raises(UsageError, match=f"differs in {message}"):
        Training(read(files / "x.npy"), small(**change)).resume(tmp_path)
    with pytest.raises(UsageError, match="differs in data"):
        Training(read(files / "y.npy"), small()).resume(tmp_path)


def start(files, out):
    """Start the command in a process of its own."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "scorefield",
        "train",
        files / "x.npy",
        "--out",
        out,
        *LONG,
    ]
    return subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(out, process):
    """Wait until there is a checkpoint, or the process ends."""
    work = checkpoint.folder_of(out)
    while process.poll() is None and not any(p.name.isdigit() for p in work.glob("*")):
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_keeps_the_step_and_goes_on(tmp_path, files, number, code):
    out = tmp_path / "run"
    process = start(files, out)
    wait_for(out, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=100)
    assert process.returncode == code, error
    assert "the same command goes on" in error
    assert "Traceback" not in error
    stopped = int(error.split("after step ")[1].split()[0])
    newest = sorted(checkpoint.folder_of(out).glob("0*"))[-1]
    assert json.loads((newest / "manifest.json").read_text())["step"] == stopped
    assert not out.exists()
    finishes("train", files / "x.npy", "--out", out, *LONG)
    assert listing(out) == listing(files / "whole")
    assert not checkpoint.folder_of(out).exists()


@pytest.mark.slow
def test_killed_again_and_again_it_ends_at_the_same_bytes(tmp_path, files):
    out, kills = tmp_path / "run", 0
    delays = np.random.default_rng(1).uniform(0, 0.15, 100)
    while not out.exists():
        process = start(files, out)
        wait_for(out, process)
        time.sleep(delays[kills])
        if kills < 4:
            process.kill()
            kills += 1
        process.communicate(timeout=100)
    assert listing(out) == listing(files / "whole")


def test_going_on_is_told_and_needs_the_same_command(tmp_path, files, capsys, monkeypatch):
    out, save = tmp_path / "run", Training.save_checkpoint

    def cut(training, folder):
        save(training, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "save_checkpoint", cut)
        assert end("train", files / "x.npy", "--out", out, *LONG) == 130
    assert end("train", files / "x.npy", "--out", out, *LONG, "--seed", 4) == 2
    assert "holds an unfinished run that differs in settings" in capsys.readouterr().err
    finishes("train", files / "x.npy", "--out", out, *LONG)
    assert "going on from step 7 of 60" in capsys.readouterr().out
    assert listing(out) == listing(files / "whole")


def test_without_checkpoints_nothing_lies_beside_the_run(tmp_path, files):
    finishes("train", files / "x.npy", "--out", tmp_path / "run", *TINY, "--checkpoint-every", 0)
    assert os.listdir(tmp_path) == ["run"]
    assert end("train", files / "x.npy", "--out", tmp_path / "b", "--checkpoint-every", -1) == 2
