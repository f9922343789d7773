"""The command line: what it leaves, what it says, and how it ends."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from shell import TINY, end, failing, finishes, flags, python, tiny

import scorefield as sf
from scorefield.cli import jobs
from scorefield.data import digits
from scorefield.runs.trainer import Training
from scorefield.training.config import SubVPConfig

SHORT = flags(steps=3, batch_size=4, network_kind="unet", network_width=8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with data, a plain run, a conditional run and a run of images."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)) * [1.0, 5.0, 0.2] + [3.0, 0.0, -8.0]
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", np.arange(40) % 3)
    np.save(folder / "images.npy", rng.integers(0, 17, (10, 7, 6), dtype=np.uint8))
    one = x.copy()
    one[3, 1] = np.nan
    np.save(folder / "nan.npy", one)
    np.save(folder / "constant.npy", np.tile([4.0, 0.5, 3.0], (40, 1)))
    np.save(folder / "single.npy", x[:1])
    np.save(folder / "line.npy", x[:, 0])
    np.save(folder / "short.npy", np.arange(7) % 3)
    (folder / "table.xyz").write_text("1,2\n3,4\n")
    finishes("train", folder / "x.npy", "--out", folder / "run", *TINY)
    labels = ["--condition", folder / "y.npy", "--conditional"]
    finishes("train", folder / "x.npy", "--out", folder / "classes", *labels, *TINY)
    finishes("train", folder / "images.npy", "--out", folder / "pictures", *SHORT)
    broken = folder / "broken"
    broken.mkdir()
    for name in ("config.toml", "model.safetensors"):
        (broken / name).write_bytes((folder / "run" / name).read_bytes())
    text = (broken / "config.toml").read_text().replace("width = 8", "width = 12")
    (broken / "config.toml").write_text(text)
    return folder


@pytest.fixture
def fails(files, capsys, monkeypatch):
    return failing(files, capsys, monkeypatch)


# --- help -----------------------------------------------------------------------------------------

WITHOUT_TORCH = """
import sys, time
from scorefield.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert ended.code == 0, ended.code
seconds = time.process_time()
loaded = sorted({"torch", "numpy", "matplotlib", "safetensors"} & set(sys.modules))
print(f"{loaded} {seconds:.3f}", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("--help", ["train", "sample", "info"]),
        ("train --help", ["--out", "--lr", "--process.kind", "--condition"]),
        ("sample --help", ["--solver", "--steps", "--seed", "--overwrite"]),
        ("info --help", ["run folder"]),
        ("--version", [sf.__version__]),
    ],
)
def test_help_answers_at_once_and_without_torch(command, says):
    """About 0.9 s for `train` alone on the machine; the bound leaves room for a busy one."""
    found = []
    for _ in range(2):
        done = python("-c", WITHOUT_TORCH, *command.split())
        assert done.returncode == 0, done.stderr
        loaded, seconds = done.stderr.rsplit(maxsplit=1)
        assert loaded.strip() == "[]"
        found.append(float(seconds))
    assert min(found) < 1.5
    for word in says:
        assert word in done.stdout


def test_help_names_every_default_of_the_training(capsys):
    finishes("train", "--help")
    text = capsys.readouterr().out
    for name in ("steps", "batch-size", "lr", "warmup", "weight-decay", "clip", "ema"):
        assert f"--{name}" in text


# --- end to end -----------------------------------------------------------------------------------


def test_from_a_file_to_samples_and_a_description(tmp_path, capsys, files):
    out = tmp_path / "run"
    finishes("train", files / "x.npy", "--out", out, *tiny(20))
    text = capsys.readouterr().out
    assert "40 samples of shape (3,)" in text
    assert re.search(r"trained in \d+\.\d s, loss \d", text)
    assert f"run folder: {out}\n" in text
    assert "ETA" in text
    names = ["SHA256SUMS", "config.toml", "log.jsonl", "model.safetensors"]
    assert sorted(p.name for p in out.iterdir()) == names

    finishes("sample", out, "--n", 10, "--steps", 4, "--solver", "heun")
    text = capsys.readouterr().out
    file = out / "samples-heun-4-seed0.npy"
    assert "NFE 9 per sample" in text, "four steps of two calls, and the finish"
    assert re.search(r"\d+\.\d\d s, \d+\.\d\d ms per item", text)
    assert f"samples: {file}\n" in text
    x = np.load(file)
    assert x.shape == (10, 3)
    expected = sf.load(out).sample(10, sf.Heun(), sf.balanced(sf.load(out).field.process, 4))
    np.testing.assert_array_equal(x, expected.numpy())
    # an almost untrained run still knows the units: 3 +- 1 and -8 +- 0.2
    assert abs(x[:, 2].mean() + 8) < 0.4

    finishes("info", out)
    text = " ".join(capsys.readouterr().out.split())
    for fact in ("40 samples of shape (3,)", "VP(", "Preconditioned", "20 steps of 8", file.name):
        assert fact in text


def test_from_the_digits_to_a_picture(tmp_path, capsys):
    out = tmp_path / "run"
    finishes("train", "digits", "--out", out, "--conditional", *SHORT)
    assert "1297 samples of shape (1, 8, 8) from digits" in capsys.readouterr().out
    finishes("sample", out, "--n", 6, "--steps", 2, "--given", 3, "--out", tmp_path / "x.npy")
    text = capsys.readouterr().out
    assert f"samples: {tmp_path / 'x.npy'}\n" in text
    assert f"picture: {tmp_path / 'x.png'}\n" in text
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (6, 1, 8, 8)
    mean, std = float(digits()[0].mean()), float(digits()[0].std())
    assert abs(x.mean() - mean) < std, "in the grey levels of the data"
    with Image.open(tmp_path / "x.png") as picture:
        picture.load()
        assert min(picture.size) >= 8
    finishes("info", out)
    assert re.search(r"conditions\s+y, 10 classes", capsys.readouterr().out)


def test_the_same_seed_trains_and_samples_the_same_bits(tmp_path, files):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        finishes("train", files / "x.npy", "--out", tmp_path / name, *TINY, "--seed", seed)
        finishes(
            "sample", tmp_path / name, "--n", 5, "--steps", 3, "--out", tmp_path / f"{name}.npy"
        )
    weights = {n: (tmp_path / n / "model.safetensors").read_bytes() for n in "abc"}
    samples = {n: (tmp_path / f"{n}.npy").read_bytes() for n in "abc"}
    assert weights["a"] == weights["b"] != weights["c"]
    assert samples["a"] == samples["b"] != samples["c"]


def test_a_sample_does_not_depend_on_how_many_are_made(tmp_path, files):
    for n in (3, 70):
        finishes("sample", files / "run", "--n", n, "--steps", 3, "--out", tmp_path / f"{n}.npy")
    finishes(
        "sample", files / "run", "--n", 3, "--steps", 3, "--seed", 1, "--out", tmp_path / "s.npy"
    )
    few, many, other = (np.load(tmp_path / f"{n}.npy") for n in (3, 70, "s"))
    np.testing.assert_array_equal(few, many[:3])
    assert not np.any(few == other)


def test_steps_alone_mean_the_same_as_in_python(tmp_path, files):
    target = tmp_path / "x.npy"
    finishes("sample", files / "run", "--n", 3, "--steps", 4, "--out", target)
    run = sf.load(files / "run")
    assert torch.equal(torch.from_numpy(np.load(target)), run.sample(3, times=4))


def test_a_class_is_sampled_by_its_number(tmp_path, files):
    run = sf.load(files / "classes")
    times = sf.balanced(run.field.process, 3, data_std=run.field.data_std)
    for y in (None, 0, 2):
        given = [] if y is None else ["--given", y]
        target = tmp_path / f"{y}.npy"
        finishes("sample", files / "classes", "--n", 4, "--steps", 3, "--out", target, *given)
        np.testing.assert_array_equal(np.load(target), run.sample(4, times=times, given=y).numpy())
    found = {y: np.load(tmp_path / f"{y}.npy") for y in (None, 0, 2)}
    assert not np.any(found[0] == found[2])
    assert not np.any(found[0] == found[None])


SOLVERS = {
    "--solver multistep": (lambda c: sf.Multistep(3, sf.AnglePrediction(c)), 5),
    "--solver multistep --order 2 --prediction data": (sf.Multistep(2, sf.DataPrediction()), 5),
    "--solver multistep --order 1 --prediction noise": (sf.Multistep(1, sf.NoisePrediction()), 5),
    "--solver ddim": (sf.DDIM(), 5),
    "--solver ddim --eta 0.3": (sf.DDIM(eta=0.3), 5),
    "--solver ddpm": (sf.DDPM(), 5),
    "--solver ddpm --variance forward": (sf.DDPM("forward"), 5),
    "--solver euler": (sf.Euler(), 5),
    "--solver heun": (sf.Heun(), 9),
    "--solver rk4": (sf.RK4(), 17),
    "--solver euler-maruyama": (sf.EulerMaruyama(), 5),
    "--solver euler-maruyama --eta 0.5": (sf.EulerMaruyama(eta=0.5), 5),
}


@pytest.mark.parametrize("given", SOLVERS)
def test_a_solver_by_name_is_the_one_python_knows_and_its_calls_are_counted(
    tmp_path, files, capsys, given
):
    solver, calls = SOLVERS[given]
    target = tmp_path / "x.npy"
    finishes("sample", files / "run", "--n", 3, "--steps", 4, "--out", target, *given.split())
    assert f"NFE {calls} per sample" in capsys.readouterr().out
    run = sf.load(files / "run")
    c = run.field.data_std
    solver = solver if isinstance(solver, sf.Solver) else solver(c)
    expected = run.sample(3, solver, sf.balanced(run.field.process, 4, data_std=c))
    np.testing.assert_array_equal(np.load(target), expected.numpy())


@pytest.mark.parametrize("name", ["balanced", "uniform", "quadratic", "even-log-snr", "karras"])
def test_a_grid_by_name_is_the_one_python_knows(tmp_path, files, name):
    target = tmp_path / "x.npy"
    finishes("sample", files / "run", "--n", 3, "--steps", 4, "--out", target, "--grid", name)
    run = sf.load(files / "run")
    scale = {"data_std": run.field.data_std} if name == "balanced" else {}
    times = getattr(sf, name.replace("-", "_"))(run.field.process, 4, **scale)
    np.testing.assert_array_equal(np.load(target), run.sample(3, times=times).numpy())


def test_flags_reach_the_run(tmp_path, files):
    given = flags(process_kind="subvp", seed=7, lr="3e-4")
    given += ["--process.beta-max", "12"]
    finishes("train", files / "x.npy", "--out", tmp_path / "run", *TINY, *given)
    found = sf.load(tmp_path / "run").config.train
    assert found.process == SubVPConfig(beta_max=12.0, t_min=1e-3, t_max=1.0)
    assert found.optim.lr == 3e-4
    assert found.seed == 7


def test_overwrite_replaces_the_files(tmp_path, files, fails):
    target = tmp_path / "x.npy"
    finishes("sample", files / "run", "--n", 3, "--steps", 2, "--out", target)
    first = target.read_bytes()
    again = ["sample", files / "run", "--n", 3, "--steps", 2, "--seed", 9, "--out", target]
    message = fails(2, *again)
    assert f"{target}: exists already" in message
    assert "--overwrite" in message
    assert target.read_bytes() == first
    finishes(*again, "--overwrite")
    assert target.read_bytes() != first


@pytest.mark.parametrize("name", ["plain", "run[red]x", ":smile: and a space", "l" * 120])
def test_paths_are_printed_as_they_are(tmp_path, files, capsys, name):
    out = tmp_path / name
    finishes("train", files / "x.npy", "--out", out, *TINY)
    assert f"run folder: {out}\n" in capsys.readouterr().out
    finishes("sample", out, "--n", 2, "--steps", 1)
    assert f"samples: {out / 'samples-multistep-1-seed0.npy'}\n" in capsys.readouterr().out


def test_the_module_is_the_command(tmp_path, files):
    done = python("-m", "scorefield", "sample", files / "run", "--n", 2, "--steps", 2,
                  "--out", tmp_path / "x.npy")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"samples: {tmp_path / 'x.npy'}\n" in done.stdout
    run = sf.load(files / "run")
    times = sf.balanced(run.field.process, 2, data_std=run.field.data_std)
    expected = run.sample(2, times=times)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected.numpy())


def test_progress_off_a_terminal_is_a_line_every_tenth(capsys, tmp_path, files):
    finishes("train", files / "x.npy", "--out", tmp_path / "run", *tiny(40))
    text = capsys.readouterr().out
    marks = [int(k) for k in re.findall(r"training (\d+)/40 loss [\d.]+ ETA \d+ s", text)]
    assert marks == list(range(4, 40, 4))
    assert all(b > a for a, b in pairwise(marks))


# --- bad input ------------------------------------------------------------------------------------

BAD_DATA = [
    ("digit", "Did you mean digits?"),
    ("nothing.npy", "no such file"),
    ("nan.npy", "index (3, 1): nan"),
    ("constant.npy", "3 constant feature(s), 0, 1, 2:"),
    ("single.npy", "1 sample(s)"),
    ("line.npy", "shape (40,)"),
    ("table.xyz", "ends in none of .npy"),
]


@pytest.mark.parametrize(("data", "says"), BAD_DATA)
def test_bad_data_ends_with_3(fails, data, says):
    message = fails(3, "train", data, "--out", "new", *TINY)
    assert data in message
    assert says in message


def test_bad_labels_end_with_3(fails):
    for labels in ("short.npy", "nothing.npy"):
        assert labels in fails(
            3, "train", "x.npy", "--condition", labels, "--conditional", "--out", "new", *TINY
        )


BAD_TRAINING = [
    (["--out", "run"], "run exists already"),
    (["--out", "x.npy"], "x.npy exists already"),
    (["--out", "x.npy/new"], "cannot be created"),
    ([], "--out"),
    (["--out", "new", "--lrr", "3"], "Did you mean --lr?"),
    (["--out", "new", "--stesp", "3"], "--stesp"),
    (["--out", "new", "--steps", "0"], "--steps"),
    (["--out", "new", "--lr", "fast"], "--lr"),
    (["--out", "new", "--dropout", "2"], "--dropout"),
    (["--out", "new", "--seed", "-1"], "--seed"),
    (["--out", "new", "--process.kind", "vq"], "--process vq: give one of 'vp'"),
    (
        ["--out", "new", "--process.kind", "vp", "--process.sigma-max", "3"],
        "--process.sigma-max: process of kind vp has no such setting",
    ),
    (["--out", "new", "--process.beta-max", "9"], "together with its settings, by --process.kind"),
    (["--out", "new", "--process.kind", "vp", "--process.t-min", "3"], "t_min < t_max"),
    (["--out", "new", "--process.kind", "flow", "--process.t-max", "1",
      "--parametrization.kind", "eps"], "no finite coefficients"),
    (["--out", "new", "--conditional"], "x.npy has no conditions"),
    (["--out", "new", "--network.kind", "unet"], "takes signals (C, L), images"),
    (["--out", "new", "--network.kind", "unet", "--network.width", "9"], "takes signals"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "says"), BAD_TRAINING, ids=lambda v: " ".join(v)[-40:])
def test_a_training_asked_for_wrongly_ends_with_2(fails, options, says):
    assert says in fails(2, "train", "x.npy", *options)


BAD_SAMPLING = [
    ("run --solver hun", '"hun"'),
    ("run --solver hun", '"heun"'),
    ("run --slover heun", "Did you mean --solver?"),
    (
        "run --solver heun --eta 0.5",
        "--eta has no effect on heun: it belongs to multistep, ddim, euler-maruyama",
    ),
    ("run --order 2 --solver ddim", "--order has no effect on ddim: it belongs to multistep"),
    ("run --solver ddim --variance forward", "it belongs to ddpm"),
    ("run --order 6", "orders 1 to 5"),
    ("run --prediction v", '"angle"'),
    ("run --grid cosine", '"karras"'),
    ("run --solver ddim --eta 2", "--eta 2"),
    ("run --steps 0", "--steps 0"),
    ("run --steps -3", "--steps -3"),
    ("run --steps many", "--steps"),
    ("run --n 0", "--n 0"),
    ("run --batch-size 0", "--batch-size 0"),
    ("run --seed -1", "--seed -1"),
    ("run --given 1", "this run has no conditions; train with --condition"),
    ("classes --given 3", "0 to 2"),
    ("run --out x.npy", "--out x.npy: exists already"),
    ("run --out nowhere/z.npy", "a folder that exists"),
    ("run --out z.txt", "end in .npy"),
    ("", "RUN"),
]


@pytest.mark.parametrize(("options", "says"), BAD_SAMPLING)
def test_a_sampling_asked_for_wrongly_ends_with_2(fails, options, says):
    assert says.lower() in fails(2, "sample", *options.split()).lower()


@pytest.mark.parametrize("command", ["sample", "info"])
def test_a_checkpoint_that_cannot_be_used_ends_with_4(fails, command):
    assert "nothing: this run folder does not exist" in fails(4, command, "nothing")
    assert "x.npy: this run folder does not exist" in fails(4, command, "x.npy")
    message = fails(4, command, "broken")
    assert "broken/model.safetensors" in message
    assert "config.toml describes" in message


def test_an_unknown_command_ends_with_2(fails):
    assert "train, import, sample, likelihood, encode" in fails(2, "simple", "run")


def test_a_loss_that_explodes_ends_with_5_and_leaves_no_run(fails):
    options = [*TINY, "--lr", "1e30", "--checkpoint-every", 0]
    message = fails(5, "train", "x.npy", "--out", "new", *options)
    assert "the loss is" in message
    assert "optim.lr" in message


def test_a_refused_target_costs_no_sampling_and_no_training(fails, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("work was done for nothing")

    monkeypatch.setattr(sf.Run, "sample", never)
    monkeypatch.setattr(Training, "__iter__", never)
    fails(2, "sample", "run", "--out", "nowhere/z.npy")
    fails(2, "sample", "run", "--out", "x.npy")
    fails(2, "train", "x.npy", "--out", "run")
    fails(2, "train", "x.npy", "--out", "x.npy/new")


def test_a_failure_in_a_process_of_its_own_shows_no_traceback_and_no_warning(files):
    for arguments, code in [
        (["train", "nan.npy", "--out", "new"], 3),
        (["train", "x.npy", "--out", "new", "--lrr", "1"], 2),
        (["info", "broken"], 4),
    ]:
        done = python("-m", "scorefield", *arguments, cwd=files)
        assert done.returncode == code
        assert done.stderr.startswith("scorefield: ")
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
    assert not (files / "new").exists()


def test_values_too_large_for_float32_are_refused_in_one_message(files, tmp_path):
    np.save(tmp_path / "huge.npy", np.array([[1.0], [1e300]]))
    done = python("-m", "scorefield", "train", tmp_path / "huge.npy", "--out", tmp_path / "new")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "index (1, 0): 1e+300" in done.stderr


# --- interruption ---------------------------------------------------------------------------------


def interrupted(steps):
    """Iterate as before, but for Ctrl-C in the third step."""
    for k, step in enumerate(steps):
        if k == 2:
            raise KeyboardInterrupt
        yield step


def test_ctrl_c_ends_training_with_130_and_leaves_nothing(fails, monkeypatch):
    whole = Training.__iter__
    monkeypatch.setattr(Training, "__iter__", lambda self: interrupted(whole(self)))
    assert "interrupted" in fails(130, "train", "x.npy", "--out", "new", *TINY)


@pytest.fixture
def cut(tmp_path, files, capsys):
    """Return a function that runs a sampling which fails, and then once more to its end."""

    def run(code, cutting):
        out = tmp_path / "x.npy"
        command = ["sample", files / "run", "--n", 9, "--batch-size", 2, "--steps", 2, "--out", out]
        with pytest.MonkeyPatch.context() as patch:
            cutting(patch)
            assert end(*command) == code
        error = capsys.readouterr().err
        assert error.startswith("scorefield: ")
        assert error.count("\n") == 1
        assert [p.name for p in tmp_path.iterdir()] == [".x.npy.parts"], "no half file"
        finishes(*command)
        assert "parts are there" in capsys.readouterr().out
        assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]
        times = sf.balanced(sf.load(files / "run").field.process, 2,
                            data_std=sf.load(files / "run").field.data_std)  # fmt: skip
        expected = sf.load(files / "run").sample(9, times=times, batch_size=2)
        np.testing.assert_array_equal(np.load(out), expected.numpy())
        return error

    return run


def test_ctrl_c_ends_sampling_with_130_and_the_same_command_goes_on(cut):
    track = jobs.track
    assert "interrupted" in cut(
        130, lambda p: p.setattr(jobs, "track", lambda *a, **k: interrupted(track(*a, **k)))
    )


def test_ctrl_c_while_the_array_is_written_leaves_no_half_file(cut):
    def half(file, head):
        file.write(b"half")
        raise KeyboardInterrupt

    head = "write_array_header_1_0"
    assert "interrupted" in cut(130, lambda p: p.setattr(np.lib.format, head, half))


def test_a_full_disk_ends_with_6_and_loses_nothing(cut):
    def full(file, head):
        raise OSError(28, "No space left on device")

    head = "write_array_header_1_0"
    message = cut(6, lambda p: p.setattr(np.lib.format, head, full))
    assert "no space left on device: it needs 108 bytes, and there is room for" in message
