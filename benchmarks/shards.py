"""Samples per second of two processes that share a job, beside one that has it alone.

    python benchmarks/shards.py            about four minutes on two cores

Each process has one thread. A small U-Net for 8 x 8 images, its weights as they are after three
steps of training, draws the same samples by `scorefield sample`: once in one process, and once as
the shards 0/2 and 1/2 started at the same time, put together by `scorefield merge`. The files are
compared byte for byte. The two ways take turns, and the ratios are medians over the turns.

`work` is the time that a process tells itself, from its loaded run to its last part, of two
processes the longer; `wall` is from the start of the processes to the end of the last, with Python
and torch loaded; `cpu` is the time they took of the processors, together. Target: twice the
processes, at least 1.8 times the samples per second of work.

Writes results/shards.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import facts as machine_facts

import scorefield as sf
from scorefield._internal.atomic_files import write
from scorefield.data import read
from scorefield.training.config import OptimConfig, TrainConfig, UNetConfig

TARGET = 1.8
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def timed(commands: list[list[str]]) -> dict[str, float]:
    """Run commands at the same time, and tell how long they took."""
    began, cpu = time.monotonic(), cpu_of_children()
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "scorefield", *command],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    told = [process.communicate()[0] for process in running]
    wall = time.monotonic() - began
    if any(process.returncode for process in running):
        raise RuntimeError(f"a command failed: {told}")
    work = [float(found[1]) for text in told if (found := re.search(r"^([\d.]+) s, ", text, re.M))]
    return {"wall": wall, "work": max(work, default=0.0), "cpu": cpu_of_children() - cpu}


def cpu_of_children() -> float:
    """Return the seconds of processor time that ended processes have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def turn(folder: Path, n: int) -> dict[str, object]:
    """Sample once alone and once in two shards."""
    alone, shared = folder / "alone.npy", folder / "shared.npy"
    command = ["sample", str(folder / "run"), "--n", str(n), "--overwrite", "--out"]
    load = os.getloadavg()[0]
    one = timed([[*command, str(alone)]])
    two = timed([[*command, str(shared), "--shard", f"{i}/2"] for i in range(2)])
    merge = timed([["merge", str(shared), "--overwrite"]])["wall"]
    if alone.read_bytes() != shared.read_bytes():
        raise RuntimeError("the shards' samples are not those of one process")
    ratio = {name: one[name] / two[name] for name in one}
    return {"load before": load, "one": one, "two": two, "merge": merge, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=4000, help="samples")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    network, optim = UNetConfig(width=32), OptimConfig(steps=3, batch_size=8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sf.train(read("digits"), config=TrainConfig(network=network, optim=optim)).save(
            folder / "run"
        )
        turns = [turn(folder, options.n) for _ in range(options.turns)]
    ratio = {k: statistics.median(t["ratio"][k] for t in turns) for k in ("work", "wall", "cpu")}  # type: ignore[index]
    found = {
        "machine": {
            **machine_facts(),
            "threads of a process": 1,
        },
        "versions": {"scorefield": sf.__version__, "torch": torch.__version__},
        "samples": options.n,
        "same bytes": True,
        "one over two": ratio,
        "targets": {f"at least {TARGET} times in work": ratio["work"] >= TARGET},
        "turns": turns,
    }
    text = json.dumps(found, indent=1) + "\n"
    write(Path(__file__).parent / "results" / "shards.json", lambda file: file.write(text.encode()))
    print(f"two processes make {ratio['work']:.2f} times the samples per second of one; with their "
          f"start {ratio['wall']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
