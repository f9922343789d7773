"""Files are opened by one gate and written by one writer: plain, bounded, and inside their folder.

Each of the places that open or write one is led astray by a link, a pipe, a device or a size.
"""

import dataclasses
import hashlib
import os
import pickle
import random
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import TINY, end, finishes

import scorefield as sf
from scorefield._internal import atomic_files, files
from scorefield._internal.errors import CheckpointError, StorageError
from scorefield.report import image_grid
from scorefield.runs import digests
from scorefield.training.log import Log


def fifo(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def sparse(path):
    path.touch()
    os.truncate(path, 2**43)


def listening(path):
    with socket.socket(socket.AF_UNIX) as end_point:
        end_point.bind(str(path))


SPECIAL = {"fifo": fifo, "device": device, "folder": Path.mkdir, "sparse": sparse}
SPECIAL |= {"socket": listening}


@pytest.mark.parametrize("kind", SPECIAL)
def test_only_plain_files_of_bounded_size_are_opened(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = Path("it")
    SPECIAL[kind](path)
    for way in (files.check, files.opened, files.read):
        with pytest.raises(ValueError, match=r"not a plain file|it has 8.0 TiB, and at most"):
            way(path)


def test_a_link_may_be_named_and_may_not_be_found(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(b"secret")
    (folder / "inside").write_bytes(b"own")
    (folder / "out").symlink_to("../outside")
    (folder / "in").symlink_to("inside")
    assert files.read(folder / "out") == b"secret"
    assert files.read(folder / "in", folder=folder) == b"own"
    with pytest.raises(ValueError, match="it leads out of its folder"):
        files.read(folder / "out", folder=folder)
    with pytest.raises(StorageError, match=r"out leads to .*outside, and nothing is written"):
        atomic_files.write(folder / "out", lambda file: file.write(b"x"))
    with pytest.raises(StorageError, match="remove the link"):
        atomic_files.append(folder / "out", "x")
    assert (tmp_path / "outside").read_bytes() == b"secret"


# --- the files of a run ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with a run that has a plan, a frontier and a log, and with data."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(20, 3)))
    run = folder / "run"
    finishes("train", folder / "x.npy", "--out", run, *TINY)
    finishes("tune", run, "--nfe", 3, "--noises", 8, "--tries", 1, "--polish", 0)
    finishes("compare", run, "--nfe", 3, "--solvers", "ddim", "--n", 32)
    return folder


@pytest.fixture
def own(made, tmp_path, monkeypatch):
    """Return a copy of it, in which the command runs."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def astray(path, kind):
    """Replace a file by something else; return what it is a link to, if it is one."""
    away = Path("..") / "outside" / path.name
    away.parent.mkdir(exist_ok=True)
    if kind == "link":
        path.rename(away)
        path.symlink_to(away.absolute())
    else:
        path.unlink()
        SPECIAL[kind](path)
    return away


READ = {
    "run/config.toml": "info run",
    "run/model.safetensors": "sample run --n 1 --nfe 2",
    "run/plans/nfe-3.json": "sample run --n 1 --nfe 3",
    "run/frontier.json": "sample run --n 1 --tolerance 9",
    "run/log.jsonl": "report run --out new.html",
}


@pytest.mark.parametrize("kind", ["fifo", "device", "sparse", "link"])
@pytest.mark.parametrize("name", READ)
def test_a_file_of_a_run_is_plain_and_its_own(own, capsys, name, kind):
    astray(own / name, kind)
    code = end(*READ[name].split())
    error = capsys.readouterr().err
    assert code == 4, error
    assert Path(name).name in error
    assert error.count("\n") == 1


NAMED = {
    "plan.json": ("sample run --n 1 --plan plan.json", 4),
    "config.toml": ("train x.npy --dry-run --config config.toml", 2),
    "weights.safetensors": ("import weights.safetensors --out new", 4),
    "weights.pt": ("import weights.pt --out new", 4),
    "data.npy": ("data inspect data.npy", 3),
    "data.csv": ("data inspect data.csv", 3),
    "cond.safetensors": ("sample run --n 1 --embeddings cond.safetensors", 3),
}


@pytest.mark.parametrize("kind", ["fifo", "device", "sparse"])
@pytest.mark.parametrize("name", NAMED)
def test_a_named_file_is_plain(own, capsys, name, kind):
    SPECIAL[kind](own / name)
    words, code = NAMED[name]
    assert end(*words.split()) == code
    error = capsys.readouterr().err
    assert name in error
    assert error.count("\n") == 1


def test_parts_are_plain_and_stay_in_their_folder(own, capsys):
    job = "sample run --n 4 --nfe 2 --out x2.npy --batch-size 2"
    assert end(*job.split(), "--shard", "0/2") == 0
    parts = own / ".x2.npy.parts"
    for name in ("settings.json", "shards"):
        astray(parts / name, "link")
        assert end("merge", "x2.npy") == 6
        (parts / name).unlink()
        shutil.copy(own.parent / "outside" / name, parts / name)
    part = next(parts.glob("*.part"))
    part.unlink()
    os.mkfifo(part)
    capsys.readouterr()
    assert end("merge", "x2.npy") == 6
    assert "Missing or damaged" in capsys.readouterr().err


# --- writing --------------------------------------------------------------------------------------

WRITTEN = {
    "run/plans/.nfe-4.tried": "tune run --nfe 4 --noises 8 --tries 1 --polish 0",
    "run/plans/nfe-4.json": "tune run --nfe 4 --noises 8 --tries 1 --polish 0 --overwrite",
    "run/frontier.json": "compare run --nfe 3 --solvers ddim --n 32 --overwrite",
    "run/frontier.png": "compare run --nfe 3 --solvers ddim --n 32 --overwrite",
    "new.npy": "sample run --n 2 --nfe 2 --out new.npy --overwrite",
    "new.html": "report run --out new.html --overwrite",
    ".new.training/log.jsonl": "train x.npy --out new --steps 2",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_nothing_is_written_through_a_link(own, capsys, name):
    path, target = own / name, own.parent / "target"
    target.write_bytes(b"precious")
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    code = end(*WRITTEN[name].split())
    if name.startswith(".new"):  # files of an unfinished run without a checkpoint are removed
        assert code == 0
    else:
        assert code == 6, capsys.readouterr().err
        assert "nothing is written through links" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"


def test_linked_folders_are_not_written_to(own, capsys):
    (own.parent / "outside").mkdir()
    shutil.rmtree(own / "run" / "plans")
    (own / "run" / "plans").symlink_to(own.parent / "outside")
    assert end("tune", "run", "--nfe", 4, "--noises", 8, "--tries", 1, "--polish", 0) == 6
    assert "nothing is written through links" in capsys.readouterr().err
    assert not os.listdir(own.parent / "outside")


def test_pictures_are_whole_or_absent(tmp_path, monkeypatch):
    """A full disk, as the system reports it when the file is synchronised."""
    path = tmp_path / "x.png"
    image_grid(torch.ones(1, 1, 2, 2), path, value_range=(0, 1))
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left on device"):
        image_grid(torch.rand(9, 1, 8, 8), path)
    with pytest.raises(StorageError, match="no space left on device"):
        Log(tmp_path / "log").add("train", 1, {})
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["log", "x.png"]


def full(descriptor):
    raise OSError(28, "No space left on device")


# --- digests --------------------------------------------------------------------------------------


def test_every_flip_of_a_bit_is_noticed(own, capsys):
    """In each file of a run: by opening it where it is used, and by a check of all files."""
    assert end("check", "run", "--files") == 0
    assert "5 files are as they were written" in capsys.readouterr().out
    run, draw = own / "run", random.Random(0)
    listed = [name for name in digests.read(run) if name != "log.jsonl"]
    assert {f"run/{name}" for name in listed} == set(READ) - {"run/log.jsonl"}
    for k in range(120):
        name = listed[k % 4] if k % 5 else "model.safetensors"
        content = (run / name).read_bytes()
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        (run / name).write_bytes(flipped)
        with pytest.raises(CheckpointError, match=name.replace("/", ".")):
            opened(run)
        assert digests.changed(run) == (5, [name])
        (run / name).write_bytes(content)
    opened(run)


def opened(folder):
    """Open everything that a run folder has."""
    run = sf.load(folder)
    return run.plans, run.folder.frontier(run.conditional)


def test_a_change_is_reported_and_may_be_accepted(own, capsys):
    config = own / "run" / "config.toml"
    config.write_text(config.read_text().replace("seed = 0", "seed = 1"))
    assert end("check", "run", "--files") == 4
    assert "1 of 5 files have changed: config.toml" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="if you changed it yourself, remove its line"):
        sf.load(own / "run")
    sums = own / "run" / "SHA256SUMS"
    sums.write_text("".join(x for x in sums.read_text().splitlines(True) if "config" not in x))
    assert sf.load(own / "run").config.train.seed == 1
    sums.unlink()
    assert end("check", "run", "--files") == 4
    assert "has no SHA256SUMS" in capsys.readouterr().err


def test_digests_are_those_of_the_usual_tool(own):
    """Also after a plan was tuned again."""
    words = "tune run --nfe 3 --noises 8 --tries 1 --polish 0 --overwrite"
    assert end(*words.split()) == 0
    for name, digest in digests.read(own / "run").items():
        assert hashlib.sha256((own / "run" / name).read_bytes()).hexdigest() == digest
    tool = shutil.which("sha256sum")
    if tool is not None:
        subprocess.run([tool, "--check", "--strict", "SHA256SUMS"], cwd="run", check=True)


def test_the_list_is_true_whichever_way_a_path_is_spelled(own):
    folder = sf.RunFolder("run")
    path = own / "run" / ".." / "run" / "frontier.json"
    folder.save_frontier(dataclasses.replace(folder.frontier(), machine="another"), path)
    assert digests.changed(folder.path) == (5, [])
    assert folder.frontier().machine == "another"


# --- pickles --------------------------------------------------------------------------------------


class Payload:
    def __reduce__(self):
        return print, ("run",)


def test_the_words_of_pytorch_on_a_pickle_do_not_reach_the_user(tmp_path, capsys):
    path = tmp_path / "weights.pt"
    torch.save({"x": Payload()}, path)
    for content in (path.read_bytes(), pickle.dumps({"x": 1}), b"", b"\x80\x02]"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as refusal:
            sf.interop.dit.load(path)
        for word in ("weights_only", "torch.load", "safe_globals", "trusted"):
            assert word not in str(refusal.value)
    assert capsys.readouterr().out == ""
