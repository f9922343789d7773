"""Files and flags spoiled at random: taken, or refused in one line with the right code, at no cost.

A tenth of the mutations runs with every test, and the rest with `make test-all`. Commands run in
this process, under a limit of time, on a copy of a small workplace that a folder of secrets lies
next to. Nothing outside the copy is opened or changed.
"""

import contextlib
import datetime
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import save_file
from shell import TINY, end, finishes

import scorefield as sf
from scorefield.training import checkpoint

PARTS = 10  # of the mutations of a kind; the others than the first are exhaustive
SECONDS, WALL = 20, 120  # of computing, and of waiting on a busy machine
MOST = 300 * 2**20  # what memory may grow by
SECRET = "secret-of-another-folder"

NUMBERS = [-1, 0, 0.5, 1, 2, 3, 7.5, 10**9, 10**18, 2**63, 2**64, 10**30, 10**400, -(10**30)]
NUMBERS += [1e-320, 1e300, -1e308, 1e-30, 2**31, 2**32]
STRANGE = [float("nan"), float("inf"), float("-inf"), True, None]
TEXTS = ["", "x", "\x1b[2J", "\x1b]0;title\x07", "\u202eabc", "a\nb", "\0", "é" * 3000, "../../x"]
TEXTS += ["$HOME", "__import__('os')", "nan", "-", "/dev/zero", "🦆", "outside"]
NESTED = [[], [[]], {}, {"a": {"b": 1}}, [1.0] * 20_000, [[1, 2], [3]], ["a", 1]]
BAD = [*NUMBERS, *STRANGE, *TEXTS, *NESTED]


# --- how files are spoiled ------------------------------------------------------------------------


def spoil(draw, path, value=None, inside=True):
    """Change a file: its value if it is JSON, its bytes, or what it is at all."""
    way = draw.random()
    if way < 0.1:
        special(draw, path, inside)
    elif value is not None and way < 0.7:
        for _ in range(draw.choice([1, 1, 2, 4])):
            value = changed(draw, value)
        path.write_text(json.dumps(value).replace("\\u001b", "\x1b" if way < 0.2 else "\\u001b"))
    else:
        path.write_bytes(rewritten(draw, path.read_bytes()))


def special(draw, path, inside):
    """Replace a file by another kind of thing, one ``inside`` a folder by a link out of it too."""
    kinds = ["fifo", "folder", "device", "sparse", "gone", "loop", "empty"]
    kind = draw.choice([*kinds, *["outside"] * (2 * inside)])
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "sparse" | "empty":
            path.touch()
            os.truncate(path, 2**43 if kind == "sparse" else 0)
        case "outside":
            away = Path("..", SECRET, path.name).absolute()
            away.write_bytes(content)
            path.symlink_to(away)
        case "loop":
            path.symlink_to(path.name)


def changed(draw, value):
    """Return a value of JSON with one change, at any depth."""
    if draw.random() < 0.15 or not isinstance(value, list | dict) or not value:
        return draw.choice(BAD)
    key = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
    copy = value.copy()
    match draw.randrange(12):
        case 0:
            del copy[key]
        case 1 if isinstance(copy, dict):
            copy[draw.choice(TEXTS)] = copy[key]
        case 2 if isinstance(copy, list):
            copy = copy * draw.choice([0, 2, 50])
        case _:
            copy[key] = changed(draw, copy[key])
    return copy


def rewritten(draw, content):
    """Return bytes with one change or several."""
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(content) + 1) if draw.random() < 0.6 else draw.randrange(64)
        size = draw.choice([1, 1, 4, 16, 100])
        match draw.randrange(9):
            case 0:
                content[at : at + size] = b""
            case 1:
                content[at:at] = content[at : at + size] * draw.choice([1, 3, 1000])
            case 2:
                content[at : at + size] = draw.randbytes(size)
            case 3:
                content[at:at] = draw.choice(TEXTS).encode()
            case 4:
                del content[at:]
            case 5 | 6 if at < len(content):
                content[at] ^= 1 << draw.randrange(8)
            case 7:
                numbers = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", content[:5000]))
                if numbers:
                    chosen = draw.choice(numbers)
                    content[chosen.start() : chosen.end()] = str(draw.choice(NUMBERS)).encode()
            case 8:
                words = list(re.finditer(rb"[a-z_]{3,}", content[:5000]))
                if words:
                    chosen = draw.choice(words)
                    content[chosen.start() : chosen.end()] = draw.choice(TEXTS).encode()
    return bytes(content)


# --- settings of training -------------------------------------------------------------------------

INTEGERS = [1, 2, 3, 8, 16]
POSITIVE = [1e-3, 0.1, 0.5, 1.0, 2, 20.0]
# of each setting, what may be given
GOOD = {
    "process": [
        {"kind": ["vp"], "beta_min": [0.1, 0.2], "beta_max": [10.0, 20], "t_min": [1e-3]},
        {"kind": ["subvp"], "beta_min": [0.1], "t_max": [0.9]},
        {"kind": ["ve"], "sigma_min": [0.01, 0.1], "sigma_max": [5.0, 50.0]},
        {"kind": ["cosine"], "offset": [0.008, 0.1]},
        {"kind": ["sigmoid"], "tau": [0.3, 1.0]},
        {"kind": ["flow"], "t_max": [0.9, 0.99]},
        {"kind": ["edm"], "t_min": [0.01], "t_max": [10, 80.0]},
        {"kind": ["tabulated"], "alpha_bar": [[0.9, 0.5, 0.1], [0.999, 0.0]]},
    ],
    "parametrization": [
        {"kind": ["eps", "x0", "score", "v", "velocity"]},
        {"kind": ["preconditioned"], "data_std": POSITIVE},
    ],
    "label": [{"kind": ["noise", "ratio"]}, {"kind": ["time"], "scale": POSITIVE}],
    "weighting": [
        {"kind": ["simple", "likelihood"]},
        {"kind": ["edm"], "data_std": POSITIVE},
        {"kind": ["min-snr"], "gamma": POSITIVE},
    ],
    "times": [{"kind": ["uniform"]}, {"kind": ["log-normal"], "mean": [-1, 0.5], "std": POSITIVE}],
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
            "lr": POSITIVE,
            "warmup": [0, 5],
            "weight_decay": POSITIVE,
            "clip": POSITIVE,
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
NAMES = ["speed", "Kind", "", "optim.lr", "é", "__class__", "\n", "\x1b", "a" * 3000, "-", "0"]
NO_TOML = ["x" * 100, "[" * 3000, "a." * 3000 + "b=1", "= 1", "[[optim]]", "[optim]\n[optim]"]
NO_TOML += ["\x00", "seed = 0x", 'seed = """', "network = 3\n[network.mlp]", "🦆 = 1"]
OTHERS = [value for value in BAD if value is not None]  # which TOML cannot hold
OTHERS += [datetime.date(2026, 1, 1), datetime.time(1)]


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
        table[name] = draw.choice(OTHERS)
    return chosen


def settings_text(draw):
    text = tomli_w.dumps(settings(draw))
    if draw.random() < 0.1:
        text += draw.choice(NO_TOML)
    if draw.random() < 0.1 and text:
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice('[]{}="\n.#,0') + text[at + draw.choice([0, 1]) :]
    return text


def settings_flags(draw):
    """Return settings as flags, those apart that are flags without a word."""
    words = []
    for name, value in settings(draw).items():
        for key, one in value.items() if isinstance(value, dict) else [("", value)]:
            flag = re.sub("_", "-", f"--{name}.{key}".rstrip("."))
            for word in one if isinstance(one, list) else [one]:
                words += [] if isinstance(word, bool) else [flag, f"{word}".replace("\0", "")]
    return words


# --- kinds of inputs: each spoils something, and returns a command and the codes it may end with --

KINDS = {}


def kind(count):
    """List a function that returns the words of a command and the codes it may end with."""

    def keep(make):
        KINDS[make.__name__] = (count, make)
        return make

    return keep


def loaded(draw, name):
    return json.loads(Path(name).read_text())


@kind(500)
def configurations(draw):
    source = draw.choice(["x.npy", "images.npy"])
    if draw.random() < 0.3:
        return ["train", source, *settings_flags(draw), "--print-config"], (0, 2)
    path = Path("given.toml")
    path.write_text(settings_text(draw), encoding="utf-8")
    if draw.random() < 0.05:
        special(draw, path, inside=False)
    return ["train", source, "--config", path, "--print-config"], (0, 2)


@kind(200)
def runs(draw):
    spoil(draw, Path("run/config.toml"))
    if draw.random() < 0.5:
        return ["info", "run"], (0, 4)
    return ["sample", "run", "--n", 2, "--nfe", 2, "--out", "new.npy"], (0, 2, 4, 5)


@kind(150)
def weights(draw):
    spoil(draw, Path("run/model.safetensors"))
    return ["sample", "run", "--n", 2, "--nfe", 2, "--out", "new.npy"], (0, 4, 5)


@kind(400)
def plans(draw):
    name = draw.choice(sorted(path.name for path in Path("plans").iterdir()))
    path = Path("plans") / name
    spoil(draw, path, loaded(draw, path), inside=False)
    return ["sample", "run", "--n", 2, "--plan", path, "--out", "new.npy"], (0, 2, 4, 5)


@kind(100)
def tuned_plans(draw):
    spoil(draw, Path("run/plans/nfe-3.json"), loaded(draw, "run/plans/nfe-3.json"))
    return ["sample", "run", "--n", 2, "--nfe", 3, "--out", "new.npy"], (0, 2, 4, 5)


@kind(200)
def frontiers(draw):
    spoil(draw, Path("run/frontier.json"), loaded(draw, "run/frontier.json"))
    how = draw.choice([["--tolerance", 1e6], ["--time-per-sample", 1e6, "--batch-size", 512]])
    return ["sample", "run", "--n", 2, *how, "--out", "new.npy"], (0, 2, 4, 5)


@kind(150)
def parts(draw):
    folder = Path(".whole.npy.parts")
    path = draw.choice(sorted(folder.iterdir()))
    value = loaded(draw, path) if path.name == "settings.json" else None
    spoil(draw, path, value)
    return ["merge", "whole.npy"], (0, 2, 6)


@kind(100)
def checkpoints(draw):
    """Of a training that was stopped, which the same command resumes."""
    folder = Path(".stopped.training")
    spoil(draw, draw.choice(sorted(p for p in folder.rglob("*") if p.is_file())))
    return ["train", "x.npy", "--out", "stopped", *TINY], (0, 2, 4, 6)


@kind(300)
def data(draw):
    path = Path("data") / draw.choice(sorted(os.listdir("data")))
    spoil(draw, path, inside=False)
    if draw.random() < 0.5:
        return ["data", "inspect", path], (0, 2, 3)
    return ["train", path, "--dry-run", *TINY], (0, 2, 3)


@kind(150)
def imports(draw):
    if draw.random() < 0.3:
        path = Path("pipeline") / draw.choice(["scheduler/scheduler_config.json", "config.json"])
        spoil(draw, path, loaded(draw, path))
        return ["import", "pipeline", "--out", "new"], (0, 2, 4)
    source = Path(draw.choice(["dit.pt", "dit.safetensors"]))
    if draw.random() < 0.5:
        spoil(draw, source, inside=False)
    else:
        spoil(draw, Path("dit.json"), loaded(draw, "dit.json"), inside=False)
    return ["import", source, "--config", "dit.json", "--out", "new"], (0, 2, 4)


FLAGS = {
    "sample run --out new.npy": "n nfe steps seed batch-size ids shard rtol atol eta order y "
    "tolerance time-per-sample plan guidance prompt device grid solver",
    "likelihood run x.npy --out new.csv": "nfe draws ids shard seed batch-size",
    "encode run x.npy --out new.npy": "nfe ids shard batch-size",
    "interpolate run x.npy --out new.npy": "points nfe ids",
    "tune run --noises 8 --tries 1 --polish 0": "nfe seed",
    "tune run --nfe 4 --tries 1 --polish 0 --batch-size 64": "noises",
    "tune run --nfe 4 --noises 8 --tries 1 --polish 0": "batch-size",
    "compare run --solvers ddim --n 32 --overwrite": "nfe seed guidance",
    "train x.npy --dry-run": "levels seed steps batch-size held-out ema lr dropout warmup clip out "
    "accumulate minutes keep-every log-every",
    "data inspect x.npy": "missing without layer",
    "info": "",
}


@kind(250)
def flags(draw):
    command = draw.choice(list(FLAGS))
    words, names = command.split(), FLAGS[command].split()
    for _ in range(draw.choice([1, 1, 2])):
        value = draw.choice([*NUMBERS, *STRANGE[:-1], *TEXTS, "0:9", "5:1", "0/0", "3/2", "1e3"])
        words += [f"--{draw.choice(names)}"] if names else []
        words.append(f"{value}".replace("\0", ""))
    if draw.random() < 0.1:
        words[1 if len(words) > 1 else 0] = draw.choice(TEXTS[:-2]).replace("\0", "")
    return words, (0, 2, 3, 4, 5, 6)


# --- the workplace --------------------------------------------------------------------------------

PLANS = {
    "restart": sf.Plan(sf.Restart(sf.DDIM(), 0.1, 1.0, 2, 3), sf.uniform(sf.VP(), 4)),
    "churn": sf.Plan(sf.Churn(sf.Heun(), 2.0, 4, (0.1, 5.0)), sf.uniform(sf.VP(), 4)),
    "langevin": sf.Plan(sf.annealed_langevin(0.1, 2), sf.uniform(sf.VP(), 4)),
    "adaptive": sf.Plan(sf.Dopri5(), sf.Adaptive(0.1, 0.1)),
    "program": sf.Plan(sf.Program((sf.DDIM(1.0), sf.unipc(3)), (1.0,)), sf.uniform(sf.VP(), 4)),
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Return a folder with good files of every kind."""
    folder = tmp_path_factory.mktemp("workplace")
    with contextlib.chdir(folder):
        fill(folder)
    return folder


def fill(folder):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    np.save("x.npy", x)
    np.save("images.npy", rng.normal(size=(20, 1, 8, 8)))
    finishes("train", "x.npy", "--out", "run", *TINY)
    finishes("tune", "run", "--nfe", 3, "--noises", 8, "--tries", 1, "--polish", 0)
    finishes("compare", "run", "--nfe", 3, "--solvers", "ddim", "--n", 32)
    Path("plans").mkdir()
    for name, plan in PLANS.items():
        plan.save(Path("plans") / f"{name}.json")
    two = ["--out", "whole.npy", "--batch-size", 2, "--shard"]
    for shard in ("0/2", "1/2"):
        finishes("sample", "run", "--n", 4, "--nfe", 2, *two, shard)
    stop(folder)
    Path("data").mkdir()
    np.save("data/x.npy", x)
    np.savez("data/x.npz", x=x)
    rows = [f"{a:.3f},{k % 4},{'cat' if k % 3 else 'dog'}" for k, a in enumerate(x[:, 0])]
    Path("data/x.csv").write_text("\n".join(["size,count,kind", *rows]) + "\n")
    write_parquet(Path("data/x.parquet"), x)
    Path("data/x.idx").write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 20, 0, 0, 0, 3]) + bytes(range(60)))
    Path("pipeline/scheduler").mkdir(parents=True)
    scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 10, "beta_end": 0.02}
    Path("pipeline/scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    Path("pipeline/config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    Path("dit.json").write_text(json.dumps({"model": "DiT-S/8", "num_classes": 3}))
    tensors = {f"blocks.{k}.weight": torch.ones(2, 2) for k in range(2)}
    save_file(tensors, "dit.safetensors")
    torch.save({"ema": tensors, "model": tensors}, "dit.pt")


def stop(folder):
    """Leave the checkpoint of a training that has not finished."""
    saved = []
    with pytest.MonkeyPatch.context() as patch:

        def save(*arguments, **options):
            original(*arguments, **options)
            saved.append(shutil.copytree(folder / ".stopped.training", folder / "copy"))

        original = checkpoint.save
        patch.setattr(checkpoint, "save", save)
        finishes("train", "x.npy", "--out", "stopped", *TINY, "--checkpoint-every", 3)
    shutil.rmtree("stopped")
    saved[0].rename(".stopped.training")


def write_parquet(path, x):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {"a": x[:, 0], "count": [k % 4 for k in range(20)], "kind": ["cat", "dog"] * 10}
    parquet.write_table(pyarrow.table(table), path)


# --- a mutation, and what must hold ---------------------------------------------------------------


class Late(BaseException):
    """The command took too long."""


def late(*_):
    raise Late


watch = {"inside": None, "strayed": []}


def audit(event, arguments):
    """Note a file that is opened outside the workplace: any to write, or a secret to read."""
    if event != "open" or watch["inside"] is None or not isinstance(arguments[0], str | bytes):
        return
    path, flags = os.path.realpath(os.fsdecode(arguments[0])), arguments[2]
    if not isinstance(flags, int) or flags & os.O_NOFOLLOW:  # which the system refuses itself
        return
    places = (watch["inside"], "/dev/", "/proc/", os.path.join(tempfile.gettempdir(), "tmp"))
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    if SECRET in path or (writes and not path.startswith(places)):
        watch["strayed"].append(path)


sys.addaudithook(audit)


@contextlib.contextmanager
def limits():
    """Limit the time of a block, and note what it opens."""
    for number, timer, seconds in (
        (signal.SIGALRM, signal.ITIMER_REAL, WALL),
        (signal.SIGPROF, signal.ITIMER_PROF, SECONDS),
    ):
        signal.signal(number, late)
        signal.setitimer(timer, seconds)
    watch["inside"], watch["strayed"] = os.path.realpath(os.curdir), []
    try:
        yield
    finally:
        watch["inside"] = None
        for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)


def memory(name):
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


def outcome(words):
    """Run a command, and return its code, what it printed on either side, and the growth."""
    out, error = io.StringIO(), io.StringIO()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins here
    before = memory("VmRSS")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error), limits():
        code = end(*words)
    return code, out.getvalue(), error.getvalue(), memory("VmHWM") - before


def complaint(words, codes):
    """Return what is wrong with how a command ends, or None."""
    try:
        code, out, error, growth = outcome(words)
    except Late:
        return "takes too long"
    except BaseException as failure:
        return f"raises {type(failure).__name__}: {failure}"
    text = out + error
    if not all(c.isprintable() or c == "\n" for c in text):
        return f"prints control characters: {text!r}"
    if growth > MOST:
        return f"takes {growth / 2**20:.0f} MiB"
    if watch["strayed"]:
        return f"opens {watch['strayed']}"
    if code not in codes:
        return f"ends with {code}: {error}"
    if code and not (error.startswith("scorefield: ") and error.count("\n") == 1):
        return f"prints {error!r}"
    if "Traceback" in error or len(error) > 1100:
        return f"prints {error!r}"
    return again(words, out) if code == 0 and "--print-config" in words else None


def again(words, printed):
    """Return what is wrong with settings that were printed, given again."""
    Path("printed.toml").write_text(printed, encoding="utf-8")
    code, out, error, _ = outcome([*words[:2], "--config", "printed.toml", "--print-config"])
    return None if (code, out, error) == (0, printed, "") else f"printed again: {error}{out}"


def listing(folder):
    return {str(p): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in folder.rglob("*")}


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")


@needs_linux
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "part", [0, *(pytest.param(k, marks=pytest.mark.exhaustive) for k in range(1, PARTS))]
)
def test_spoiled_inputs_are_taken_or_refused_in_one_line(workplace, tmp_path, name, part):
    count, make = KINDS[name]
    outside, work = tmp_path / SECRET, tmp_path / "work"
    complaints, ended = [], set()
    for seed in range(count * part // PARTS, count * (part + 1) // PARTS):
        draw = random.Random(f"{name} {seed}")
        shutil.copytree(workplace, work, symlinks=True)
        with contextlib.chdir(work):
            shutil.rmtree(outside, ignore_errors=True)
            outside.mkdir()
            words, codes = make(draw)
            before = listing(outside)
            fault = complaint([str(word) for word in words], codes)
            if listing(outside) != before:
                fault = "changes files outside"
            ended.add(fault is None)
        if fault:
            complaints.append(f"{name} {seed}: {words} {fault}"[:1500])
        shutil.rmtree(work)
    assert not complaints, "\n".join(complaints)
    assert ended
