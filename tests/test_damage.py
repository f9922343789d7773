"""Damage and interruptions: what was written before stays, and going on ends at the same bytes.

``pytest tests/test_damage.py --kills 200`` kills twenty times as often as a run of all tests does.
"""

import errno
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import TINY, content, end, finishes, listing, tiny

import scorefield as sf
from scorefield._internal import sizes
from scorefield._internal.errors import CheckpointError, StorageError
from scorefield.cli import main
from scorefield.data import read
from scorefield.runs.jobs.tables import write_array
from scorefield.runs.trainer import Training
from scorefield.training import checkpoint
from scorefield.training.config import TrainConfig

SMALL = TrainConfig.model_validate(
    {
        "network": {"kind": "mlp", "width": 8, "depth": 1},
        "optim": {"steps": 12, "batch_size": 8},
        "seed": 3,
    }
)
LAST, BEFORE = "000000009", "000000006"
LONG = [*tiny(60), "--checkpoint-every", "7"]


def digest(training):
    """Return the digest of the weights of a training that is brought to its end."""
    for _ in training:
        pass
    content = hashlib.sha256()
    for name, value in training.denoiser.network.state_dict().items():
        content.update(name.encode() + value.numpy().tobytes())
    return content.hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, the checkpoints of steps 6 and 9 in ``work``, and runs that nothing disturbed."""
    folder = tmp_path_factory.mktemp("damage")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(40, 3)))
    training = Training(read(folder / "x.npy"), SMALL)
    for progress in training:
        if progress.step in (6, 9):
            training.save_checkpoint(folder / "work")
    finishes("train", folder / "x.npy", "--out", folder / "whole", *LONG)
    finishes("train", folder / "x.npy", "--out", folder / "small", *TINY)
    return folder


@pytest.fixture(scope="module")
def start(folder):
    """Return a function that makes a training of the same data and settings."""
    data = read(folder / "x.npy")
    return lambda: Training(data, SMALL)


@pytest.fixture(scope="module")
def expected(start):
    return digest(start())


# --- damaged checkpoints --------------------------------------------------------------------------


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def overwrite(path, rng):
    content = bytearray(path.read_bytes())
    start = rng.integers(len(content))
    content[start : start + 512] = rng.bytes(min(512, len(content) - start))
    path.write_bytes(content)


def cut(path, rng):
    os.truncate(path, rng.integers(path.stat().st_size))


def lengthen(path, rng):
    path.write_bytes(path.read_bytes() + rng.bytes(8))


def empty(path, rng):
    path.write_bytes(b"")


def remove(path, rng):
    path.unlink()


def swap(path, rng):
    """Put the file of the checkpoint before in its place."""
    shutil.copy(path.parent.parent / BEFORE / path.name, path)


def turn_to_zeros(path, rng):
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = {flip: 64, overwrite: 15, cut: 15, lengthen: 2, empty: 1, remove: 1, swap: 1,
           turn_to_zeros: 1}  # fmt: skip
FILES = ("state.safetensors", "manifest.json")
CASES = [(damage, name, k) for damage, n in DAMAGES.items() for name in FILES for k in range(n)]


def test_of_200_damaged_checkpoints_all_are_noticed_and_the_one_before_serves(
    tmp_path, folder, start, expected
):
    """In the same state as before the damage, from which one in eight goes on to the end."""
    assert len(CASES) == 200
    training = start()
    training.resume(folder / "work")
    for k, (damage, name, number) in enumerate(CASES):
        where = f"{damage.__name__} of {name}, {number}"
        work = tmp_path / f"{k}"
        shutil.copytree(folder / "work", work)
        damage(work / LAST / name, np.random.default_rng(number))
        kept = checkpoint.newest(work)
        assert kept is not None, where
        assert kept.damaged == (LAST,), where
        assert int(kept.tensors["step"]) == 6, where
        if k % 8 == 0:
            again = start()
            assert again.resume(work) == 6, where
            assert again.damaged == (LAST,), where
            assert digest(again) == expected, where
        shutil.rmtree(work)


@pytest.mark.parametrize("name", ["no files", "a renamed folder", "a file for a folder"])
def test_damaged_folders_are_noticed(tmp_path, folder, start, expected, name):
    work = tmp_path / "work"
    shutil.copytree(folder / "work", work)
    if name == "a renamed folder":
        (work / LAST).rename(work / "000000011")
    else:
        shutil.rmtree(work / LAST)
        (work / LAST).mkdir() if name == "no files" else (work / LAST).write_bytes(b"")
    training = start()
    assert training.resume(work) == 6
    assert digest(training) == expected


def test_a_damaged_checkpoint_does_not_count_among_the_last_two(tmp_path, folder, start):
    work = tmp_path / "work"
    shutil.copytree(folder / "work", work)
    empty(work / LAST / "state.safetensors", None)
    training = start()
    training.resume(work)
    next(iter(training))
    training.save_checkpoint(work)
    assert sorted(os.listdir(work)) == [BEFORE, "000000007"]


@pytest.mark.parametrize("change", ["no losses", "other tensors"])
def test_a_checkpoint_that_is_whole_and_of_something_else_is_refused(tmp_path, start, change):
    training = start()
    tensors, facts = training.fit.state(), {**training.facts, "losses": [1.0]}
    if change == "no losses":
        del facts["losses"]
    else:
        tensors = {"step": tensors["step"]}
    checkpoint.save(tmp_path, 5, tensors, facts)
    with pytest.raises(StorageError, match="does not hold a training to continue"):
        start().resume(tmp_path)


# --- kept checkpoints, of which a stranger may have made digests too ------------------------------


@pytest.fixture
def kept(tmp_path, folder):
    """A run with a kept checkpoint, and a function that writes that anew with other contents."""
    run = tmp_path / "kept"
    options = ["--keep-every", 4, "--checkpoint-every", 4, "--ema", 0.9]
    finishes("train", folder / "x.npy", "--out", run, *TINY, *options)
    assert sf.load(run, checkpoint=4)
    state = run / "checkpoints" / checkpoint.name(4)
    found = checkpoint.read(state)

    def write(tensors, facts=None):
        facts = found.facts if facts is None else facts
        checkpoint.save(state.parent, 4, {**found.tensors, **tensors}, facts)

    return state, found.tensors, write


def refusal(state):
    with pytest.raises(CheckpointError) as raised:
        sf.load(state.parent.parent, checkpoint=4)
    return str(raised.value)


LEAVE = "average.0.module.leave.weight"


def test_weights_of_a_kept_checkpoint_are_finite_and_of_the_one_type(kept):
    state, tensors, write = kept
    write({LEAVE: tensors[LEAVE] * torch.nan})
    assert "network.leave.weight holds values that are not finite" in refusal(state)
    write({LEAVE: tensors[LEAVE].double()})
    assert f"{LEAVE}.dtype: Input should be 'F32' or 'I64'" in refusal(state)
    write({LEAVE: tensors[LEAVE].long()})
    assert "network.leave.weight has type I64; weights must be F32" in refusal(state)
    write({LEAVE: tensors[LEAVE].T})
    assert "network.leave.weight has shape (8, 3), but config.toml" in refusal(state)


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json", ""])
def test_nothing_of_a_kept_checkpoint_lies_elsewhere(kept, tmp_path, name):
    state, _, _ = kept
    (state / name).rename(tmp_path / "elsewhere")
    (state / name).symlink_to(tmp_path / "elsewhere")
    assert "leads out of its folder" in refusal(state)


def test_a_kept_checkpoint_is_as_large_as_a_run_makes_it(kept, monkeypatch):
    state, _, write = kept
    write({"optimizer.other": torch.zeros(100_000)})
    assert "holds more than the weights, averages and moments of a run" in refusal(state)
    write({"optimizer.other": torch.zeros(0)}, {"losses": [0.5] * 2**20})
    assert f"{state} is damaged" in refusal(state)
    write({"optimizer.other": torch.zeros(0)})
    assert sf.load(state.parent.parent, checkpoint=4)
    weights = (state.parent.parent / "model.safetensors").stat().st_size
    monkeypatch.setattr(sizes, "memory", lambda: weights)
    assert f"{state / 'state.safetensors'} holds" in refusal(state)


def test_a_folder_beside_kept_checkpoints_that_is_no_number_is_passed_over(kept):
    state, _, _ = kept
    (state.parent / "²").mkdir()
    assert sf.load(state.parent.parent, checkpoint=4)


@pytest.fixture
def cut_run(tmp_path, folder, monkeypatch):
    """The command of a run that stopped after the checkpoints of steps 7 and 14, and its folder."""
    out, save = tmp_path / "run", Training.save_checkpoint

    def stop(training, folder, stays):
        save(training, folder, stays)
        if training.fit.step == 14:
            raise KeyboardInterrupt

    command = ["train", folder / "x.npy", "--out", out, *LONG]
    with monkeypatch.context() as patch:
        patch.setattr(Training, "save_checkpoint", stop)
        assert end(*command) == 130
    return command, out


def test_the_command_line_tells_of_damage_and_ends_at_the_same_bytes(cut_run, folder, capsys):
    command, out = cut_run
    work = checkpoint.folder_of(out)
    empty(work / "000000014" / "manifest.json", None)
    capsys.readouterr()
    finishes(*command)
    told = [line for line in capsys.readouterr().out.splitlines() if "damaged" in line]
    assert told == ["checkpoint 000000014 damaged: resuming from step 7 of 60"]
    assert content(out) == content(folder / "whole")


def test_if_all_are_damaged_the_command_line_says_so_and_leaves_them(cut_run, capsys):
    command, out = cut_run
    work = checkpoint.folder_of(out)
    for name in (path.name for path in work.iterdir() if path.is_dir()):
        empty(work / name / "state.safetensors", None)
    before = listing(work)
    assert end(*command) == 6
    assert "are damaged: remove it to begin again" in capsys.readouterr().err
    assert listing(work) == before


# --- every step of writing fails in turn ----------------------------------------------------------

STEPS = ("mkdir", "open", "fsync", "chmod", "replace", "rmdir", "unlink", "close")


class Failpoints:
    """Counts the calls that change the disk; one of them does something else."""

    def __init__(self, monkeypatch, at=None, failure=None):
        self.count, self.at, self.failure = 0, at, failure
        for name in STEPS:
            monkeypatch.setattr(os, name, self.watched(getattr(os, name)))
        for name in ("write_bytes", "write_text"):
            monkeypatch.setattr(Path, name, self.watched(getattr(Path, name), self.half))
        monkeypatch.setattr(os, "fdopen", self.opened(os.fdopen))

    def watched(self, real, partly=None):
        def call(*arguments, **options):
            self.count += 1
            if self.count == self.at:
                if partly is not None:
                    partly(real, *arguments, **options)
                self.failure()
            return real(*arguments, **options)

        return call

    @staticmethod
    def half(real, path, content, **options):
        real(path, content[: len(content) // 2], **options)

    def opened(self, real):
        """Watch what is written to the file as well."""

        def half_of(write, content):
            write(bytes(content)[: len(bytes(content)) // 2])

        class File:
            def __init__(inner, *arguments):
                inner.file = real(*arguments)
                inner.write = self.watched(inner.file.write, lambda _, c: half_of(_, c))

            def __enter__(inner):
                return inner

            def __exit__(inner, *error):
                inner.file.close()

        return File


@dataclass(frozen=True)
class Writing:
    """Something that is written: the state before, the act, and what may be there afterwards."""

    before: Callable[[Path], object]
    act: Callable[[Path], object]
    check: Callable[[Path], object]


@pytest.fixture
def writings(folder, start, expected):
    training = start()
    training.resume(folder / "work")
    next(iter(training))
    run = sf.load(folder / "small")
    old, new = np.zeros((4, 3), np.float32), np.ones((5, 3), np.float32)

    def goes_on(place):
        """The checkpoint before or the new one is there, and leads to the same weights."""
        again = start()
        assert again.resume(place / "work") in (9, 10)
        assert again.damaged == ()
        assert digest(again) == expected

    def is_whole(place):
        if (place / "run").exists():
            assert listing(place / "run") == listing(folder / "small")
        else:
            run.save(place / "run")

    def is_old_or_new(place):
        assert np.load(place / "x.npy").tolist() in (old.tolist(), new.tolist())

    return {
        "checkpoint": Writing(
            lambda place: shutil.copytree(folder / "work", place / "work"),
            lambda place: training.save_checkpoint(place / "work"),
            goes_on,
        ),
        "run": Writing(lambda place: None, lambda place: run.save(place / "run"), is_whole),
        "samples": Writing(
            lambda place: np.save(place / "x.npy", old),
            lambda place: write_array(place / "x.npy", len(new), [new]),
            is_old_or_new,
        ),
    }


def steps_of(writing, place, monkeypatch):
    """Return how many calls a writing makes."""
    place.mkdir()
    writing.before(place)
    with monkeypatch.context() as patch:
        points = Failpoints(patch)
        writing.act(place)
    writing.check(place)
    return points.count


def failure_of(act, place):
    try:
        act(place)
    except (StorageError, OSError) as error:
        return error
    return None


WHAT = {"checkpoint": 15, "run": 10, "samples": 6}  # and how many steps it takes at least


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_whatever_step_of_writing_fails_the_old_stays_or_the_new_is_whole(
    tmp_path, writings, monkeypatch, what, number
):
    writing = writings[what]
    count = steps_of(writing, tmp_path / "counted", monkeypatch)
    assert count >= WHAT[what]
    failed = 0
    for at in range(1, count + 1):
        place = tmp_path / f"{at}"
        place.mkdir()
        writing.before(place)
        before = listing(place)

        def fail():
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            Failpoints(patch, at, fail)
            error = failure_of(writing.act, place)
        if isinstance(error, StorageError):
            assert number == errno.ENOSPC
            assert "no space left on device: it needs" in str(error)
        else:  # of removing what is old, where nothing needs room, or what came of no use
            assert error is None or error.errno == number
        failed += isinstance(error, StorageError) == (number == errno.ENOSPC) and error is not None
        left = {name for name in listing(place) if Path(name).name.startswith(".")}
        assert not left - set(before), "nothing half-written is left"
        writing.check(place)
    assert failed > count / 2


@pytest.mark.parametrize("what", WHAT)
def test_whatever_step_it_is_killed_at_the_old_stays_or_the_new_is_whole(
    tmp_path, writings, monkeypatch, what
):
    writing = writings[what]
    count = steps_of(writing, tmp_path / "counted", monkeypatch)
    for at in range(1, count + 1):
        place = tmp_path / f"{at}"
        place.mkdir()
        writing.before(place)

        def die():
            os._exit(9)

        def act(place=place, at=at, die=die):
            with pytest.MonkeyPatch.context() as patch:
                Failpoints(patch, at, die)
                writing.act(place)

        assert forked(act).wait() == 9
        writing.check(place)


# --- processes that are killed --------------------------------------------------------------------


class Forked:
    """A copy of this process, warm, that does something else and ends."""

    def __init__(self, work, output=None):
        with warnings.catch_warnings(action="ignore"):  # of the threads that run tests side by side
            self.id = os.fork()
        if self.id:
            return
        code = 70
        try:
            target = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, 1)
            os.dup2(target, 2)
            work()
            code = 0
        except SystemExit as ended:
            code = ended.code
        finally:
            os._exit(code)

    def send(self, number):
        os.kill(self.id, number)

    def wait(self):
        """Return the exit code, or the number of the signal that ended it, negative."""
        return os.waitstatus_to_exitcode(os.waitpid(self.id, 0)[1])


def forked(work, output=None):
    return Forked(work, output)


def command(arguments):
    """Return a function that runs a command with its messages going where Python's do not."""

    def work():
        with open(1, "w", closefd=False) as out, open(2, "w", closefd=False) as error:
            import sys

            sys.stdout, sys.stderr = out, error
            try:
                main([str(word) for word in arguments])
            finally:
                out.flush()
                error.flush()

    return work


def duration(folder, arguments):
    began = time.monotonic()
    assert forked(command([*arguments, "--out", folder])).wait() == 0
    return time.monotonic() - began


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_at_the_same_bytes(tmp_path, folder, request):
    kills, rng = request.config.getoption("kills"), np.random.default_rng(1)
    arguments = ["train", folder / "x.npy", *LONG]
    longest = duration(tmp_path / "timed", arguments)
    done = runs = tries = 0
    finished = False
    while done < kills or not finished:
        out = tmp_path / f"{runs}"
        process = forked(command([*arguments, "--out", out]))
        if done < kills:
            time.sleep(rng.uniform(0, longest))
            process.send(signal.SIGKILL)
        code, tries = process.wait(), tries + 1
        assert code in (0, -signal.SIGKILL)
        done += code == -signal.SIGKILL
        finished = out.exists()
        if finished:
            assert content(out) == content(folder / "whole")
            runs += 1
        assert tries < 20 * kills
    assert done == kills


@pytest.mark.slow
def test_asked_to_stop_at_any_moment_it_keeps_the_step_it_was_at(tmp_path, folder, request):
    asked, rng = request.config.getoption("kills"), np.random.default_rng(2)
    arguments = ["train", folder / "x.npy", *LONG]
    longest = duration(tmp_path / "timed", arguments)
    done = runs = tries = 0
    while done < asked:
        out, said = tmp_path / f"{runs}", tmp_path / "said"
        process = forked(command([*arguments, "--out", out]), said)
        time.sleep(rng.uniform(0, longest))
        process.send(signal.SIGTERM)
        code, text = process.wait(), said.read_text()
        assert code in (0, 143, -signal.SIGTERM), text
        assert "Traceback" not in text
        if code == 143:
            step = int(text.split("stopped after step ")[1].split()[0])
            newest = sorted(checkpoint.folder_of(out).glob("0*"))[-1]
            assert int(newest.name) == step
            done += 1
        if out.exists():
            assert content(out) == content(folder / "whole")
            runs += 1
        tries += 1
        assert tries < 20 * asked


# --- no room --------------------------------------------------------------------------------------


@pytest.fixture(params=["a limit of the process", "a full disk"])
def little_room(request, tmp_path):
    """Return a folder, and a function that runs a command with little room there.

    Files have 6 KiB at most, or all together 12 KiB: a lock and a log take a block of 4 KiB each.
    """
    place = tmp_path / "little"
    place.mkdir()
    if request.param == "a full disk":
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)], capture_output=True
        )
        if mounted.returncode:
            pytest.skip("mounting a small disk needs rights")

    def run(arguments):
        def work():
            if request.param != "a full disk":
                resource.setrlimit(resource.RLIMIT_FSIZE, (6144, 6144))
            command(arguments)()

        filler = place / "filler"
        if request.param == "a full disk":
            free = shutil.disk_usage(place).free
            filler.write_bytes(bytes(max(0, free - 3 * 4096)))
        said = tmp_path / "said"
        code = forked(work, said).wait()
        filler.unlink(missing_ok=True)
        return code, said.read_text().splitlines()[-1]

    yield place, run
    if request.param == "a full disk":
        subprocess.run(["umount", str(place)], check=True)


def is_refused(outcome, what):
    code, line = outcome
    assert code == 6, line
    assert line.startswith("scorefield: ")
    assert what in line
    assert "it needs " in line
    assert ", and there is room for " in line


def test_without_room_for_a_checkpoint_it_stops_and_keeps_the_one_before(
    little_room, folder, cut_run
):
    place, run = little_room
    _, out = cut_run
    shutil.move(checkpoint.folder_of(out), place)
    command = ["train", folder / "x.npy", "--out", place / "run", *LONG]
    before = listing(place)
    is_refused(run(command), "000000021 cannot be written")
    assert listing(place) == before
    finishes(*command)
    assert content(place / "run") == content(folder / "whole")


def test_without_room_for_the_run_nothing_of_it_is_left(little_room, folder):
    place, run = little_room
    wide = [word.replace("8", "40") for word in tiny(2)]  # 20 times as many weights
    is_refused(run(["train", folder / "x.npy", "--out", place / "run", *wide]), "run cannot be")
    assert not (place / "run").exists()
    assert set(listing(place)) <= {".run.training", ".run.training/log.jsonl"}


def test_without_room_for_samples_the_old_ones_stay(little_room, folder):
    place, run = little_room
    out = place / "x.npy"
    np.save(out, np.zeros((2, 3)))
    before = out.read_bytes()
    arguments = [
        "sample",
        folder / "small",
        "--n",
        900,
        "--nfe",
        2,
        "--batch-size",
        900,
        "--out",
        out,
    ]
    code, line = run([*arguments, "--overwrite"])
    assert code == 6
    assert "x.npy" in line
    assert ", and there is room for " in line
    assert out.read_bytes() == before
    finishes(*arguments, "--overwrite")
    assert np.load(out).shape == (900, 3)
    assert set(listing(place)) == {"x.npy"}
