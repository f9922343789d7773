"""One training for one run folder: the lock, the folders, and the ends of a training."""

import math
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import scorefield as sf
from scorefield._internal.errors import CheckpointError, StorageError
from scorefield._internal.lock import NAME, lock
from scorefield.cli.console import console
from scorefield.cli.session import Session
from scorefield.training import checkpoint
from scorefield.training.loop import Fit
from tests.shell import content, end, finishes, listing, tiny


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).normal(size=(40, 3)).astype("f4"))
    return tmp_path


HOLD = "import sys, time\nfrom pathlib import Path\nfrom scorefield._internal.lock import lock\n"
HOLD += "with lock(Path(sys.argv[1]), 'x'):\n    print('locked', flush=True)\n    time.sleep(60)"


def test_a_lock_excludes_other_processes_until_its_own_is_killed(tmp_path):
    folder = tmp_path / "work"
    other = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"locked\n"
    with pytest.raises(StorageError, match=rf"^run is in use .*\(process {other.pid} on "):
        lock(folder, "run").__enter__()
    other.kill()
    other.communicate()
    assert (folder / NAME).exists()  # a kill leaves the file, which is no lock
    with lock(folder, "run") as locked:
        assert locked
        with pytest.raises(StorageError, match=f"process {os.getpid()} "):
            lock(folder, "run").__enter__()
    assert not folder.exists()


def test_a_lock_of_a_folder_that_is_removed_and_made_again_is_of_the_new_one(tmp_path, monkeypatch):
    folder, flock = tmp_path / "work", sys.modules.get("fcntl") or __import__("fcntl")
    before = flock.flock

    def remade(file, flags):
        monkeypatch.setattr(flock, "flock", before)
        shutil.rmtree(folder)  # between the opening of the file and its lock
        before(file, flags)

    monkeypatch.setattr(flock, "flock", remade)
    with lock(folder, "run"), pytest.raises(StorageError):
        lock(folder, "run").__enter__()


@pytest.mark.parametrize("way", ["run", "link", "outer/run"])
def test_a_second_training_to_a_folder_ends_with_6(files, capsys, way):
    (files / "link").symlink_to("run")
    (files / "outer").symlink_to(".")
    with lock(checkpoint.folder_of(files / "run"), "first"):
        before = listing(files)
        assert end("train", "x.npy", "--out", way, *tiny()) == 6
        message = capsys.readouterr().err
        assert message.startswith(f"scorefield: --out {way} is in use by another training")
        assert message.count("\n") == 1
        assert listing(files) == before
    finishes("train", "x.npy", "--out", way, *tiny())
    assert (files / "run" / "config.toml").is_file()
    assert not [p for p in files.rglob("*") if NAME in p.name or p.name.startswith(".")]


def make(folder, kind):
    """Return what to give as --out for a folder that is empty in some way."""
    if kind == "a link to a new one":
        (folder / "link").symlink_to("new")
        return "link", folder / "new"
    (folder / "empty").mkdir()
    if kind == "a link":
        (folder / "link").symlink_to("empty")
        return "link", folder / "empty"
    if kind == "with files of a system":
        (folder / "empty" / "._x").write_text("")
        (folder / "empty" / ".DS_Store").write_text("")
    return "empty", folder / "empty"


@pytest.mark.parametrize(
    "kind", ["plain", "a link", "a link to a new one", "with files of a system"]
)
def test_folders_that_are_empty_become_runs(files, kind):
    out, target = make(files, kind)
    finishes("train", "x.npy", "--out", out, *tiny())
    assert sf.load(target).sample(2).shape == (2, 3)
    names = {path.name for path in target.iterdir() if path.name not in ("._x", ".DS_Store")}
    assert names == {"SHA256SUMS", "config.toml", "model.safetensors", "log.jsonl"}
    assert (files / "link").is_symlink() == ("link" in kind)


def test_the_working_directory_becomes_a_run_and_stays_the_same_folder(files, monkeypatch):
    (files / "here").mkdir()
    inode = (files / "here").stat().st_ino
    monkeypatch.chdir(files / "here")
    finishes("train", "../x.npy", "--out", ".", *tiny())
    assert (files / "here").stat().st_ino == inode
    names = ["SHA256SUMS", "config.toml", "log.jsonl", "model.safetensors"]
    assert sorted(os.listdir()) == names
    finishes("info", ".")
    assert end("train", "../x.npy", "--out", ".", *tiny(), "--seed", 3) == 2


def test_a_finished_command_again_changes_nothing_and_ends_with_0(files, capsys):
    command = ["train", "x.npy", "--out", "run", *tiny()]
    finishes(*command)
    work = checkpoint.folder_of(files / "run")
    (work / "000000003").mkdir(parents=True)  # as a kill after the last step leaves it
    before = listing(files / "run")
    capsys.readouterr()
    finishes(*command)
    assert "which this command has finished before" in capsys.readouterr().out
    assert listing(files / "run") == before
    assert not work.exists()
    for other in (["--seed", 1], ["--lr", 0.01], ["--held-out", 0.1]):
        assert end(*command, *other) == 2
        assert "run exists already" in capsys.readouterr().err
    np.save("x.npy", np.load("x.npy") + 1)
    assert end(*command) == 2


def test_folders_that_a_kill_left_half_written_are_removed(files):
    (files / ".run.writing-abc" / "plans").mkdir(parents=True)
    (files / ".run-archives").mkdir()
    finishes("train", "x.npy", "--out", "run", *tiny())
    assert sorted(path.name for path in files.glob(".*")) == [".run-archives"]


def test_a_kept_checkpoint_of_another_run_is_not_loaded(files):
    for seed in (0, 1):
        keep = ["--keep-every", 2, "--seed", seed]
        finishes("train", "x.npy", "--out", f"run{seed}", *tiny(), *keep)
    sf.load("run0", checkpoint=4)
    shutil.rmtree("run0/checkpoints")
    shutil.copytree("run1/checkpoints", "run0/checkpoints")
    with pytest.raises(CheckpointError, match="000000004 is of a run with other settings"):
        sf.load("run0", checkpoint=4)


def test_a_training_that_diverges_goes_on_at_a_lower_rate(files, capsys, monkeypatch):
    command, tried = ["train", "x.npy", "--out", "run", *tiny(steps=8)], Fit._try

    def overflow(fit, piece):
        result = tried(fit, piece)
        factor = math.nan if fit.step == 4 and fit.optim.lr > 1 else 1.0
        return result._replace(losses=factor * result.losses)

    monkeypatch.setattr(Fit, "_try", overflow)
    assert end(*command, "--lr", "1e30") == 5
    assert "With a lower --lr this continues from step" in capsys.readouterr().err
    shutil.rmtree(checkpoint.folder_of(files / "run"))
    assert end(*command, "--lr", "1.5") == 5
    assert "lower --lr this continues from step 4." in capsys.readouterr().err
    assert not (files / "run").exists()
    assert end(*command, "--lr", "2") == 2
    assert end(*command, "--lr", "1e-3", "--seed", 1) == 2
    assert end(*command, "--lr", "1e-3", "--weight-decay", 0.1) == 2
    assert "differs in settings" in capsys.readouterr().err
    assert end(*command, "--lr", "1e-3") == 0
    assert "resuming from step 4 of 8" in capsys.readouterr().out
    assert sf.load("run").config.train.optim.lr == 1e-3


def test_without_divergence_another_rate_is_another_run(files, capsys, monkeypatch):
    command = ["train", "x.npy", "--out", "run", *tiny(steps=8), "--lr", 0.01]
    with monkeypatch.context() as patch:
        patch.setattr(Session, "finish", lambda session: session.save_checkpoint() or sys.exit(9))
        assert end(*command) == 9
    assert end(*command, "--lr", 0.001) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("times", [1, 2])
def test_signals_to_stop_save_the_step_however_many_come(files, monkeypatch, number, times):
    save, command = Session.save_checkpoint, ["train", "x.npy", "--out", "run", *tiny()]
    log = Session._log_step

    def asked(session, progress):
        if progress.step == 3:
            signal.raise_signal(number)
        log(session, progress)

    def again(session):
        if times == 2:
            signal.raise_signal(number)
        save(session)

    with monkeypatch.context() as patch:
        patch.setattr(console, "quiet", False)
        patch.setattr(Session, "_log_step", asked)
        patch.setattr(Session, "save_checkpoint", again)
        assert end(*command, "--log-every", 1) == 128 + number
    assert checkpoint.steps(checkpoint.folder_of(files / "run")) == [4]
    finishes(*command, "--log-every", 1)
    finishes("train", "x.npy", "--out", "whole", *tiny(), "--log-every", 1)
    assert content(files / "run") == content(files / "whole")


def test_a_signal_that_is_ignored_stays_ignored(files, monkeypatch):
    log = Session._log_step
    monkeypatch.setattr(
        Session, "_log_step", lambda *a: signal.raise_signal(signal.SIGHUP) or log(*a)
    )
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    try:
        finishes("train", "x.npy", "--out", "run", *tiny(), "--log-every", 1)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_terminal_that_is_lost_stops_the_training_with_its_step_saved(files):
    command = ["-m", "scorefield", "train", "x.npy", "--out", "run", *tiny(steps=100000)]
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, *map(str, command)])
    work = checkpoint.folder_of(files / "run")
    while not checkpoint.steps(work):
        os.read(terminal, 10000)
        time.sleep(0.001)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGHUP
    assert checkpoint.steps(work)[-1] % 500  # the step that it was at
    with lock(work, "run"):
        pass
