"""Settings drawn at random: taken, and then the same again, or refused in one line.

Half of them are wrong in type, name, kind or size, or no TOML at all.
"""

import datetime
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from shell import end

CHUNKS, EACH = 5, 100
MOST = 200 * 2**20  # what memory may grow by, whatever sizes are asked for

INTEGERS = [1, 2, 3, 8, 16]
NUMBERS = [1e-3, 0.1, 0.5, 1.0, 2, 20.0]
# of each setting, what may be given
GOOD = {
    "process": [
        {"kind": ["vp"], "beta_min": [0.1, 0.2], "beta_max": [10.0, 20], "t_min": [1e-3]},
        {"kind": ["subvp"], "beta_min": [0.1], "t_max": [0.9]},
        {"kind": ["ve"], "sigma_min": [0.01, 0.1], "sigma_max": [5.0, 50.0]},
        {"kind": ["cosine"], "offset": [0.008, 0.1]},
        {"kind": ["flow"], "t_max": [0.9, 0.99]},
        {"kind": ["edm"], "t_min": [0.01], "t_max": [10, 80.0]},
        {"kind": ["tabulated"], "alpha_bar": [[0.9, 0.5, 0.1], [0.999, 0.0]]},
    ],
    "parametrization": [
        {"kind": ["eps", "x0", "score", "v", "velocity"]},
        {"kind": ["preconditioned"], "data_std": NUMBERS},
    ],
    "label": [{"kind": ["noise", "ratio"]}, {"kind": ["time"], "scale": NUMBERS}],
    "weighting": [
        {"kind": ["simple", "likelihood"]},
        {"kind": ["edm"], "data_std": NUMBERS},
        {"kind": ["min-snr"], "gamma": NUMBERS},
    ],
    "times": [{"kind": ["uniform"]}, {"kind": ["log-normal"], "mean": [-1, 0.5], "std": NUMBERS}],
    "network": [
        {"kind": ["auto"]},
        {"kind": ["mlp"], "width": INTEGERS, "depth": INTEGERS},
        {"kind": ["unet"], "width": [8, 16], "multipliers": [[1], [1, 2]], "heads": [1, 2]},
        {"kind": ["song"], "width": [8], "attention": [[], [1]], "taps": [[1, 3, 3, 1]]},
        {"kind": ["adm"], "width": [8, 16], "head": [8], "variances": [True, False]},
        {"kind": ["dit"], "width": [8, 16], "head": [8], "layers": [1, 2], "patch": [1, 2]},
    ],
    "optim": [
        {
            "steps": INTEGERS,
            "batch_size": INTEGERS,
            "lr": NUMBERS,
            "warmup": [0, 5],
            "weight_decay": NUMBERS,
            "clip": NUMBERS,
            "ema": [0.0, 0.9],
            "low_discrepancy": [True, False],
            "precision": ["float32", "bfloat16"],
        }
    ],
    "levels": [0],
    "conditional": [False],
    "dropout": [0.0, 0.5, 1],
    "seed": [0, 7, 2**63 - 1],
}
BAD = [
    "", "fast", "\u202e\u0000\x1b[2J", "é" * 5000, "1e3", True, [], [[]], {}, {"a": {"b": 1}},
    -1, 0, 0.5, 10**12, 10**18, 2**64, 10**30, 10**400, -(10**30), 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"), [1.0] * 20_000, ["a", 1], [10**12] * 3,
    datetime.date(2026, 1, 1), datetime.time(1), "../../etc/passwd", "__import__('os')",
]  # fmt: skip
NAMES = ["speed", "Kind", "", "optim.lr", "é", "__class__", "\n", "\x1b", "a" * 3000, "-", "0"]
TEXTS = ["x" * 100, "[" * 3000, "a." * 3000 + "b=1", "= 1", "[[optim]]", "[optim]\n[optim]", "\x00",
         "seed = 0x", 'seed = """', "network = 3\n[network.mlp]", "🦆 = 1"]  # fmt: skip


def settings(draw):
    """Return settings that are good, or have one fault or several."""
    chosen = {}
    for name, options in GOOD.items():
        if draw.random() < 0.5:
            option = draw.choice(options)
            chosen[name] = option
            if isinstance(option, dict):
                chosen[name] = {
                    key: draw.choice(values)
                    for key, values in option.items()
                    if key == "kind" or draw.random() < 0.6
                }
    for _ in range(draw.choice([0, 0, 1, 1, 3])):
        table = draw.choice([chosen, *(v for v in chosen.values() if isinstance(v, dict))])
        name = draw.choice(NAMES if draw.random() < 0.3 or not table else list(table))
        table[name] = draw.choice(BAD)
    return chosen


def text_of(draw):
    text = tomli_w.dumps(settings(draw))
    if draw.random() < 0.1:
        text += draw.choice(TEXTS)
    if draw.random() < 0.1 and text:
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice('[]{}="\n.#,0') + text[at + draw.choice([0, 1]) :]
    return text


def flags_of(draw):
    """Return settings as flags, those apart that are flags without a word."""
    words = []
    for name, value in settings(draw).items():
        for key, one in value.items() if isinstance(value, dict) else [("", value)]:
            flag = re.sub("_", "-", f"--{name}.{key}".rstrip("."))
            for word in one if isinstance(one, list) else [one]:
                words += [] if isinstance(word, bool) else [flag, f"{word}".replace("\0", "")]
    return words


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    rng = np.random.default_rng(0)
    np.save(folder / "vectors.npy", rng.normal(size=(20, 3)))
    np.save(folder / "images.npy", rng.normal(size=(20, 1, 8, 8)))
    return [folder / "vectors.npy", folder / "images.npy"]


def peak():
    """Reset the peak of memory, and return what is in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(name):
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


def printed(capsys, *arguments):
    """Return the exit code of a command, and what it printed on either side."""
    capsys.readouterr()
    code = end("train", *arguments, "--print-config")
    return code, *capsys.readouterr()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_settings_are_taken_and_printed_as_they_are_or_refused(tmp_path, data, capsys, chunk):
    taken, path, again = 0, tmp_path / "given.toml", tmp_path / "printed.toml"
    linux = sys.platform == "linux"
    for source in data:
        printed(capsys, source)  # so that the modules that a command loads are not counted
    before = peak() if linux else 0
    for seed in range(EACH * chunk, EACH * (chunk + 1)):
        draw = random.Random(seed)
        source = draw.choice(data)
        path.write_text(text_of(draw), encoding="utf-8")
        arguments = flags_of(draw) if draw.random() < 0.3 else ["--config", path]
        code, out, error = printed(capsys, source, *arguments)
        assert code in (0, 2), f"{seed}: {error}"
        assert "Traceback" not in error, seed
        if code == 2:
            assert out == "", seed
            assert error.startswith("scorefield: "), seed
            assert error.endswith("\n"), seed
            assert error[:-1].isprintable(), f"{seed}: {error!r}"
            assert len(error) < 1100, seed
        else:
            assert error == "", seed
            again.write_text(out, encoding="utf-8")
            assert printed(capsys, source, "--config", again) == (0, out, ""), seed
            taken += 1
    assert not linux or memory("VmHWM") - before < MOST
    assert 0.15 * EACH < taken < 0.85 * EACH


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("network.width 1000000000000", "network: weights, gradients, averages and moments take"),
        (
            "network.width 100000",
            "network: weights, gradients, averages and moments take 4.5 TiB",
        ),  # 25 width^2 weights
        ("network.depth 1000000000000", "network: 6,000,000,000,012 tensors, where at most 10,000"),
        (
            "batch-size 1000000000000",
            "--batch-size 1000000000000: samples of shape (3,) take 10.9",
        ),
    ],
)
def test_what_cannot_fit_is_refused_with_what_it_takes_and_what_there_is(
    data, capsys, monkeypatch, setting, message
):
    monkeypatch.setattr("scorefield._internal.sizes.memory", lambda: 2**33)
    name, value = setting.split()
    kind = [] if name == "batch-size" else ["--network.kind", "mlp"]
    code, _, error = printed(capsys, data[0], *kind, f"--{name}", value)
    assert code == 2
    assert message in error
    assert "there are 8.0 GiB of memory" in error or "at most 10,000 are allowed" in error
