"""The benchmark for GPUs, on the CPU."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


def numbers(value):
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


@pytest.mark.slow
def test_the_quick_form_measures_every_part_on_the_cpu():
    command = [sys.executable, SCRIPT, "--quick", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"state"')]
    assert [row["state"] for row in rows[-2:]] == ["1 x 4x16x16", "4 x 4x16x16"]
    for row in rows:
        assert {"steps", "noise", "adaptive", "likelihood"} <= row.keys()
        assert all(math.isfinite(v) and v > 0 for v in numbers(row))
