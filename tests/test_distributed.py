"""Several processes make the run that one makes, and none is left behind."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from distributed_states import STEPS, train, training
from safetensors.torch import load_file
from shell import content, end, finishes, tiny

import scorefield as sf
from scorefield.training import checkpoint
from scorefield.training.workers import SingleWorker

TESTS = pathlib.Path(__file__).parent
OPTIONS = [
    "--checkpoint-every",
    "20",
    "--log-every",
    "25",
    "--held-out",
    "0.2",
    "--evaluate-every",
    "100",
]


def command(steps=200):
    small = tiny(steps)
    small[small.index("--batch-size") + 1] = "9"
    return [*small, *OPTIONS]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("distributed") / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 3)))
    return path


def torchrun(*arguments, restarts=1):
    """Start two processes on this machine; torchrun starts them again if one dies, as gloo's may.

    One of some hundred starts has aborted inside a library before it had printed anything.
    """
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    launch += ["--max-restarts", str(restarts)]
    return start(*launch, *arguments)


def start(*arguments, **variables):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"} | variables,
    )


def done(process, timeout=120):
    out, error = process.communicate(timeout=timeout)
    assert process.returncode == 0, f"{out}\n{error}"
    return out


def wait_for_checkpoint(out, process):
    work = checkpoint.folder_of(out)
    while process.poll() is None and not checkpoint.steps(work):
        time.sleep(0.01)


@pytest.fixture(scope="module")
def together(data):
    """What two processes made, undisturbed."""
    out = data.parent / "together"
    text = done(torchrun("-m", "scorefield", "train", data, "--out", out, *command()))
    return out, text


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(data, together):
    """With a batch of 9, of which one process has 4 and the other 5."""
    out, text = together
    finishes("train", data, "--out", data.parent / "alone", *command())
    alone, two = sf.load(data.parent / "alone"), sf.load(out)
    expected = alone.field.network.state_dict()
    for name, value in two.field.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=5e-6)
    assert two.config.loss == pytest.approx(alone.config.loss, rel=1e-6)
    steps = [record["step"] for record in content(out)["log.jsonl"]]
    assert steps == [record["step"] for record in content(data.parent / "alone")["log.jsonl"]]
    assert text.count("run folder:") == 1, "one of them speaks for all"
    assert not checkpoint.folder_of(out).exists()


@pytest.mark.slow
def test_two_processes_learn_conditions_as_one_does(tmp_path):
    """Numbers, classes and sets, each hidden at times, and signals of several lengths."""
    rng, ends = np.random.default_rng(0), np.arange(40) % 3
    x = rng.normal(size=(40, 2, 6)).astype(np.float32)
    for row, cut in zip(x, ends, strict=True):
        row[:, 6 - cut :] = np.nan
    arrays = {"x": x, "dose": rng.normal(size=40), "kind": rng.integers(0, 3, 40)}
    np.savez(tmp_path / "x.npz", bag=rng.normal(size=(40, 3, 2)), **arrays)
    train = ["train", tmp_path / "x.npz", "--sample", "x", *command(40)]
    train += ["--condition", "dose=dose,kind=kind,bag=set:bag", "--dropout", "0.3"]
    done(torchrun("-m", "scorefield", *train, "--out", tmp_path / "two"))
    finishes(*train, "--out", tmp_path / "one")
    one, two = sf.load(tmp_path / "one"), sf.load(tmp_path / "two")
    assert [channel.kind for channel in one.config.data.conditions] == ["numbers", "class", "set"]
    assert [length for length, _ in one.config.data.lengths] == [4, 5, 6]
    expected = one.field.network.state_dict()
    for name, value in two.field.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=5e-6)


@pytest.mark.slow
def test_two_processes_pair_two_sets_as_one_does(data, tmp_path):
    np.save(tmp_path / "b.npy", np.random.default_rng(1).normal(size=(40, 3)))
    train = ["train", data, "--to", tmp_path / "b.npy", *command(40)]
    train += ["--coupling", "entropic", "--bridge", "0.5"]
    done(torchrun("-m", "scorefield", *train, "--out", tmp_path / "two"))
    finishes(*train, "--out", tmp_path / "one")
    one, two = sf.load(tmp_path / "one"), sf.load(tmp_path / "two")
    expected = one.field.network.state_dict()
    for name, value in two.field.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=5e-6)


@pytest.mark.slow
def test_divided_weights_are_saved_whole_and_taken_up_by_any_number(tmp_path):
    train(training()).save_checkpoint(tmp_path / "from-one")
    done(torchrun(TESTS / "distributed_states.py", tmp_path))
    name = checkpoint.name(STEPS)
    for source, target in [("from-one", "through-two"), ("from-two", "through-one")]:
        if target == "through-one":
            again = training()
            assert again.resume(tmp_path / source) == STEPS
            again.save_checkpoint(tmp_path / target)
        first, second = (tmp_path / path / name / "state.safetensors" for path in (source, target))
        assert first.read_bytes() == second.read_bytes()
    whole = load_file(tmp_path / "from-two" / name / "state.safetensors")
    parts = [load_file(tmp_path / f"rank-{rank}.safetensors") for rank in range(2)]
    for key, value in parts[0].items():
        assert torch.equal(torch.cat([value, parts[1][key]]), whole[f"network.{key}"])
        assert len(value) < len(whole[f"network.{key}"]), "a process has a share alone"
    single = load_file(tmp_path / "from-one" / name / "state.safetensors")
    assert set(whole) == set(single)
    for key, value in single.items():
        torch.testing.assert_close(whole[key], value, rtol=1e-4, atol=5e-6)


@pytest.mark.slow
def test_divided_weights_outlast_evaluations_and_samples_on_the_way(data, tmp_path):
    """After which every weight is divided again, those of the averages too."""
    settings = [*tiny(7), "--ema", "0.9", "--ema", "0.5", "--held-out", "0.2"]
    settings += ["--evaluate-every", "2", "--sample-every", "2"]
    alone, two = tmp_path / "alone", tmp_path / "two"
    command = ["-m", "scorefield", "train", data, "--out", two, *settings]
    done(torchrun(*command, "--distributed", "fsdp"))
    finishes("train", data, "--out", alone, *settings)
    for name in ("model.safetensors", "ema-0.5.safetensors"):
        expected, found = load_file(alone / name), load_file(two / name)
        assert set(found) == set(expected)
        for key, value in found.items():
            torch.testing.assert_close(value, expected[key], rtol=0, atol=5e-6, msg=key)
    assert len(list((two / "samples").iterdir())) == 3


@pytest.mark.slow
def test_a_process_whose_peer_is_killed_ends_soon_and_says_so(data, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    call = ["-m", "scorefield", "train", data, "--out", tmp_path / "run", *command(100000)]
    first, second = (start(*call, RANK=str(k), LOCAL_RANK=str(k), **place) for k in range(2))
    wait_for_checkpoint(tmp_path / "run", first)
    second.kill()
    second.communicate(timeout=100)
    began = time.monotonic()
    _, error = first.communicate(timeout=100)
    assert first.returncode == 5, error
    assert "scorefield: " in error
    assert "Traceback" not in error
    assert time.monotonic() - began < 60
    assert checkpoint.newest(checkpoint.folder_of(tmp_path / "run")) is not None
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_killed_and_started_again_they_end_at_the_same_bits(data, together, tmp_path):
    out = tmp_path / "run"
    process = torchrun("-m", "scorefield", "train", data, "--out", out, *command(), restarts=1)
    wait_for_checkpoint(out, process)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"scorefield" in command_line(pid)]
    os.kill(int(workers[1]), signal.SIGKILL)
    assert "resuming from step " in done(process)
    found, expected = content(out), content(together[0])
    assert found == expected


def command_line(pid):
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


# --- without starting any -------------------------------------------------------------------------


class Place(SingleWorker):
    """One of several processes, as far as sharing a batch goes."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


@pytest.mark.parametrize(("count", "size", "pieces"), [(9, 2, 1), (9, 2, 2), (64, 3, 4), (7, 7, 1)])
def test_every_sample_of_a_batch_falls_to_one_process_and_piece(count, size, pieces):
    parts = [
        list(range(count))[Place(rank, size).part(count, piece, pieces)]
        for rank in range(size)
        for piece in range(pieces)
    ]
    assert [item for part in parts for item in part] == list(range(count))
    assert all(parts)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 2


@pytest.mark.parametrize(
    ("options", "launched", "message"),
    [
        ("--distributed fsdp", False, "start the workers with torchrun"),
        ("--distributed fsdp --precision float16", True, "or --distributed ddp"),
        ("--device cuda", False, "not available here"),
    ],
)
def test_what_cannot_be_started_is_refused(
    data, tmp_path, monkeypatch, capsys, options, launched, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if launched:
        monkeypatch.setenv("WORLD_SIZE", "2")
    assert end("train", data, "--out", tmp_path / "run", *options.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
