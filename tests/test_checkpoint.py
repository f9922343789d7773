"""Training that was cut goes on to the same weights, whenever and however it was cut."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from shell import TINY, content, end, finishes, listing, tiny

import scorefield as sf
from scorefield._internal.errors import StorageError, UsageError
from scorefield.cli import session
from scorefield.data import read
from scorefield.report import image_grid
from scorefield.runs.trainer import Training
from scorefield.training import checkpoint
from scorefield.training.config import TrainConfig
from scorefield.training.held_out import HeldOut
from scorefield.training.log import WALL_CLOCK, Log, records

OFTEN = "--checkpoint-every 7 --log-every 5 --evaluate-every 10 --sample-every 20 --keep-every 14"
LONG = [*tiny(60), "--levels", "5", "--held-out", "0.2", "--keep-best", *OFTEN.split()]


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
        "optim": {"steps": steps, "batch_size": 8},
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
    ("change", "message"),
    [
        ({"seed": 3}, r"settings \(seed\)"),
        ({"optim": {"steps": 13}}, r"settings \(batch_size, steps\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, files, change, message):
    training = Training(read(files / "x.npy"), small())
    next(iter(training))
    training.save_checkpoint(tmp_path)
    with pytest.raises(UsageError, match=f"differs in {message}"):
        Training(read(files / "x.npy"), small(**change)).resume(tmp_path)
    with pytest.raises(UsageError, match="differs in data"):
        Training(read(files / "y.npy"), small()).resume(tmp_path)


def test_the_same_numbers_as_other_columns_are_another_run(tmp_path, files):
    """An array's numbers are continuous, and those of a table whole where they are."""
    table = np.load(files / "x.npy")
    text = "\n".join(["a,b,c", *(",".join(map(str, row)) for row in table)])
    (tmp_path / "x.csv").write_text(text)
    first, second = read(tmp_path / "x.csv"), read(files / "x.npy")
    assert torch.equal(first.x[:], second.x[:])
    training = Training(first, small())
    next(iter(training))
    training.save_checkpoint(tmp_path / "work")
    with pytest.raises(UsageError, match="differs in columns"):
        Training(second, small()).resume(tmp_path / "work")
    shutil.copy(tmp_path / "x.csv", tmp_path / "y.csv")
    assert Training(read(tmp_path / "y.csv"), small()).resume(tmp_path / "work") == 1


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
    assert "the same command resumes" in error
    assert "Traceback" not in error
    stopped = int(error.split("after step ")[1].split()[0])
    newest = sorted(checkpoint.folder_of(out).glob("0*"))[-1]
    assert json.loads((newest / "manifest.json").read_text())["step"] == stopped
    assert not out.exists()
    finishes("train", files / "x.npy", "--out", out, *LONG)
    assert content(out) == content(files / "whole")
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
    assert content(out) == content(files / "whole")


def test_going_on_is_told_and_needs_the_same_command(tmp_path, files, capsys, monkeypatch):
    out, save = tmp_path / "run", Training.save_checkpoint

    def cut(training, folder, stays):
        save(training, folder, stays)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "save_checkpoint", cut)
        assert end("train", files / "x.npy", "--out", out, *LONG) == 130
    assert end("train", files / "x.npy", "--out", out, *LONG, "--seed", 4) == 2
    assert "holds an unfinished run that differs in settings" in capsys.readouterr().err
    finishes("train", files / "x.npy", "--out", out, *LONG)
    assert "resuming from step 7 of 60" in capsys.readouterr().out
    assert content(out) == content(files / "whole")


def test_without_checkpoints_nothing_lies_beside_the_run(tmp_path, files):
    finishes("train", files / "x.npy", "--out", tmp_path / "run", *TINY, "--checkpoint-every", 0)
    assert os.listdir(tmp_path) == ["run"]
    assert end("train", files / "x.npy", "--out", tmp_path / "b", "--checkpoint-every", -1) == 2


# --- what is kept on the way ----------------------------------------------------------------------


def test_a_log_has_each_interval_and_each_evaluation_once(files):
    log = records(files / "whole" / "log.jsonl")
    steps = {
        event: [record["step"] for record in log if record["event"] == event]
        for event in ("train", "evaluation", "samples")
    }
    assert steps["train"] == list(range(5, 61, 5))
    assert steps["evaluation"] == list(range(10, 61, 10))
    assert steps["samples"] == [20, 40, 60]
    fields = WALL_CLOCK | {"loss", "grad_norm", "lr"}
    for record in log:
        if record["event"] == "train":
            assert all(math.isfinite(record[name]) for name in fields)
        if record["event"] == "evaluation":
            assert len(record["levels"]) == len(record["edges"]) - 1
            assert record["error"] == pytest.approx(np.mean(record["levels"]), rel=1e-12)
        if record["event"] == "samples":
            x = np.load(files / "whole" / record["file"])
            assert x.shape == (64, 3)
            assert set(np.unique(x)) <= set(range(5)), "in the units of the data"
    last = [record for record in log if record["event"] == "train"][-1]
    assert last["lr"] == pytest.approx(1e-3 * 0.6 * math.cos(math.pi * 59 / 120) ** 2, rel=1e-9)
    assert last["loss"] == sf.load(files / "whole").config.loss


def test_what_a_log_has_beyond_the_checkpoint_or_cut_short_is_taken_back(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    for step in (5, 7, 10, 14, 15):
        log.add("train", step, {"loss": step / 2})
    with log.path.open("a") as file:
        file.write('{"event": "train", "step": 2')
    Log(log.path, step=10).add("train", 12, {"loss": 1.0})
    assert [record["step"] for record in records(log.path)] == [5, 7, 10, 12]
    assert records(log.path)[1] == {"event": "train", "step": 7, "loss": 3.5}
    assert log.path.read_text().endswith("\n")
    Log(log.path)
    assert records(log.path) == []


def test_the_checkpoints_asked_for_stay_and_can_be_loaded(files):
    folder = files / "whole"
    log = [r for r in records(folder / "log.jsonl") if r["event"] == "evaluation"]
    best = min(log, key=lambda record: record["error"])["step"]
    kept = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert kept == sorted({14, 28, 42, 56, best})
    stopped = Training(read(files / "x.npy"), sf.load(folder).config.train)
    for progress in stopped:
        if progress.step == 28:
            break
    expected = stopped.averaged.field.network.state_dict()
    found = sf.load(folder, checkpoint=28)
    assert all(torch.equal(v, expected[k]) for k, v in found.field.network.state_dict().items())
    last = sf.load(folder).field.network.state_dict()
    assert not torch.equal(last["leave.weight"], expected["leave.weight"])
    with pytest.raises(
        UsageError, match=r"checkpoint=29: .* has checkpoints of the steps \[14, 28"
    ):
        sf.load(folder, checkpoint=29)


def test_the_best_is_kept_by_held_out_error_and_needs_held_out_data(tmp_path, files, monkeypatch):
    errors = iter([0.5, 0.3, 0.4, 0.6, 0.35, 0.7])
    monkeypatch.setattr(HeldOut, "errors", lambda *_: torch.full((8,), next(errors)).double())
    options = ["--held-out", 0.2, "--keep-best", "--evaluate-every", 10, "--checkpoint-every", 5]
    finishes("train", files / "x.npy", "--out", tmp_path / "run", *tiny(60), *options)
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["000000020"]
    assert end("train", files / "x.npy", "--out", tmp_path / "b", *TINY, "--keep-best") == 2


def test_a_time_budget_fixes_the_steps_once_and_makes_the_run_of_as_many(tmp_path, files, capsys):
    budget = [*LONG, "--minutes", 0.02]
    began = time.monotonic()
    finishes("train", files / "x.npy", "--out", tmp_path / "a", *budget)
    spent = time.monotonic() - began
    count = int(capsys.readouterr().out.split(" steps in 0.02 minutes")[0].split("\n")[-1])
    optim = sf.load(tmp_path / "a").config.train.optim
    assert (optim.steps, optim.minutes) == (count, 0.0)
    assert spent < 20, "of a budget of 1.2 s, and evaluations, samples and checkpoints on top"
    config = tmp_path / "a" / "config.toml"
    rest = ["--config", config, *LONG[LONG.index("--keep-best") :]]
    finishes("train", files / "x.npy", "--out", tmp_path / "b", *rest)
    assert sf.load(tmp_path / "b").config.train.optim.steps == count
    first, second = content(tmp_path / "a"), content(tmp_path / "b")
    first, second = ({k: v for k, v in c.items() if "manifest" not in k} for c in (first, second))
    assert first == second


def test_a_resumed_time_budget_keeps_its_number_of_steps(tmp_path, files):
    config = small(optim={"minutes": 0.01, "batch_size": 8})
    first, second = (Training(read(files / "x.npy"), config) for _ in range(2))
    next(iter(first))
    spent = first.seconds
    first.save_checkpoint(tmp_path)
    assert second.resume(tmp_path) == 1
    assert second.fit.steps == first.fit.steps != config.optim.steps
    assert second.seconds >= spent > 0
    assert len(list(second)) == first.fit.steps - 1


def test_samples_on_the_way_are_those_of_the_averaged_weights(tmp_path):
    """After the last step the average is the run, so its samples are known."""
    x = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "images.npy", x)
    out = tmp_path / "run"
    small = [
        "--network.kind",
        "unet",
        "--network.width",
        "8",
        "--steps",
        "4",
        "--batch-size",
        "4",
        "--seed",
        "3",
    ]
    finishes("train", tmp_path / "images.npy", "--out", out, *small, "--sample-every", 4)
    expected = sf.load(out).sample(range(64), seed=3)
    image_grid(expected, tmp_path / "expected.png")
    found = out / "samples" / "samples-4.png"
    assert found.read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_samples_are_an_array_where_no_picture_can_be_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    path = session._write_samples(tmp_path / "samples-4", torch.ones(2, 1, 3, 3), tmp_path)
    assert path == tmp_path / "samples-4.npy"
    assert np.array_equal(np.load(path), np.ones((2, 1, 3, 3)))
    assert os.listdir(tmp_path) == ["samples-4.npy"]


def test_what_an_aborted_run_left_beside_is_not_taken_into_another(tmp_path, files):
    work = checkpoint.folder_of(tmp_path / "run")
    (work / "samples").mkdir(parents=True)
    (work / "samples" / "samples-3.npy").write_bytes(b"of another run")
    Log(work / "log.jsonl").add("train", 3, {"loss": 9.0})
    finishes("train", files / "x.npy", "--out", tmp_path / "run", *TINY)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"SHA256SUMS", "config.toml", "log.jsonl", "model.safetensors"}
    assert [r["step"] for r in records(tmp_path / "run" / "log.jsonl")] == [5]


def test_a_word_is_printed_where_the_last_bits_may_differ(tmp_path, files, capsys, monkeypatch):
    """A checkpoint of three threads, resumed with another number; and one without conditions."""
    work, out = checkpoint.folder_of(tmp_path / "run"), tmp_path / "run"
    written = checkpoint.save

    def save(folder, step, tensors, facts, *rest):
        own = {"threads": "3", "torch": "9.9\x1b[2J"} if old else {}
        written(folder, step, tensors, {**facts, "conditions": facts["conditions"] | own}, *rest)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save)
    command = ["train", files / "x.npy", "--out", out, *TINY, "--checkpoint-every", 3]
    for old in (True, False):
        assert end(*command) == 130
        assert checkpoint.steps(work) == [3]
        capsys.readouterr()
        monkeypatch.setattr(checkpoint, "save", written)
        finishes(*command)
        printed = capsys.readouterr().out
        here = torch.get_num_threads()
        assert (
            f"threads 3, now {here}; torch 9.9\\x1b[2J, now {torch.__version__}" in printed
        ) == old
        assert ("the last bits may differ" in printed) == old
        shutil.rmtree(out)
        monkeypatch.setattr(checkpoint, "save", save)
