"""One configuration for files, flags and Python."""

import tomllib

import numpy as np
import pydantic
import pytest
import tomli_w
from shell import TINY, content, end, failing, finishes, listing

import scorefield as sf
from scorefield._internal.frozen import Frozen
from scorefield.data import read
from scorefield.runs import build
from scorefield.training import config as c

# every field in some value that is not its default
CONFIGS = {
    "process": c.TrainConfig(
        process=c.VEConfig(sigma_min=0.02, sigma_max=30.0, t_min=0.01, t_max=0.9),
        parametrization=c.PlainParametrization(kind="eps"),
        weighting=c.MinSNRConfig(gamma=3.0),
        times=c.LogNormalConfig(mean=-0.1, std=1.1),
        coupling="reflow",
        coupling_seed=3,
        network=c.MLPConfig(width=8, depth=2, recompute=True),
    ),
    "optim": c.TrainConfig(
        optim=c.OptimConfig(
            steps=3,
            minutes=0.5,
            batch_size=4,
            lr=3e-4,
            warmup=1,
            weight_decay=0.1,
            clip=0.5,
            accumulate=2,
            ema=(0.9, 0.99),
            low_discrepancy=False,
            precision="bfloat16",
            compile=True,
        ),
        conditional=True,
        dropout=0.25,
        held_out=0.1,
        evaluate_every=7,
        end="last",
        seed=7,
    ),
    "bridge": c.TrainConfig(
        process=c.FlowConfig(),
        parametrization=c.PlainParametrization(kind="velocity"),
        weighting=c.PlainWeighting(kind="flow-matching"),
        times=c.UniformConfig(),
        network=c.MLPConfig(width=8),
        coupling="entropic",
        bridge=0.5,
    ),
    "filter": c.TrainConfig(network=c.MLPConfig(width=8, components=2)),
    "unet": c.TrainConfig(
        network=c.UNetConfig(
            width=8,
            multipliers=(1, 1, 2),
            blocks=2,
            heads=1,
            positions=True,
            recompute=True,
            cross_attention=True,
        ),
        process=c.TabulatedConfig(alpha_bar=(0.99, 0.5, 0.1, 0.001)),
        parametrization=c.PreconditionedConfig(data_std=0.7),
        label=c.TimeLabelConfig(scale=2.0),
        weighting=c.EDMWeightingConfig(data_std=0.7),
        times=c.UniformConfig(),
        levels=17,
        conditional=True,
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(40, 3)))
    np.save(folder / "y.npy", np.arange(40) % 3)
    np.save(folder / "images.npy", rng.integers(0, 17, (10, 8, 8), dtype=np.uint8))
    np.save(folder / "bags.npy", rng.normal(size=(10, 4, 3)))
    (folder / "no.toml").write_text("levels = = 3")
    (folder / "unknown.toml").write_text("[optim]\nspeed = 3\n")
    (folder / "short.toml").write_text("network = 'unett'\n")
    (folder / "flat.toml").write_text("optim = 3\n")
    (folder / "bad.toml").write_text("[optim]\nlr = 'fast'\n")
    return folder


@pytest.fixture
def fails(files, capsys, monkeypatch):
    return failing(files, capsys, monkeypatch)


def flags(config):
    """Return all of a configuration as flags."""
    given = []
    for name, value in config.model_dump(exclude_none=True).items():
        inner = value if isinstance(value, dict) else {None: value}
        for key, one in inner.items():
            table = None if name == "optim" else name  # whose flags have no prefix
            flag = "--" + ".".join(part.replace("_", "-") for part in (table, key) if part)
            if isinstance(one, bool):
                given.append(flag if one else flag.replace("--", "--no-", 1) if "." not in flag
                             else f"--{name}.no-{key.replace('_', '-')}")  # fmt: skip
            elif isinstance(one, tuple):
                given += [word for item in one for word in (flag, str(item))]
            else:
                given += [flag, str(one)]
    return given


def printed(capsys, *arguments):
    """Return the configuration that a command would use."""
    capsys.readouterr()
    finishes("train", *arguments, "--print-config")
    return c.TrainConfig.model_validate(tomllib.loads(capsys.readouterr().out))


def data_of(name, files):
    if name == "unet":
        return [files / "images.npy", "--condition", f"bag=set:{files / 'bags.npy'}"]
    data = [files / "x.npy"]
    if name == "bridge":
        return [*data, "--to", *data]
    return [*data, "--condition", files / "y.npy"] if name == "optim" else data


@pytest.mark.parametrize("name", CONFIGS)
def test_flags_files_and_python_say_the_same(tmp_path, files, capsys, name):
    config, data = CONFIGS[name], data_of(name, files)
    path = tmp_path / "run.toml"
    path.write_text(tomli_w.dumps(config.model_dump(exclude_none=True)))
    x = read(data[0]).x
    expected = build.resolved(config, x.shape[1:], len(x))
    assert printed(capsys, *data, "--config", path) == expected
    assert printed(capsys, *data, *flags(config)) == expected


def test_together_they_set_every_field_there_is():
    """So that a field that flags or files cannot set would be noticed."""

    def fields(model):
        return {
            (type(model).__name__, key)
            for key, value in model
            if key == "kind" or value != type(model).model_fields[key].default
        } | {pair for _, value in model if isinstance(value, Frozen) for pair in fields(value)}

    set_here = set().union(*(fields(config) for config in CONFIGS.values()))
    kinds = [c.TrainConfig, c.OptimConfig, c.VEConfig, c.MLPConfig, c.UNetConfig, c.MinSNRConfig,
             c.LogNormalConfig, c.TabulatedConfig, c.PreconditionedConfig]  # fmt: skip
    wanted = {(kind.__name__, key) for kind in kinds for key in kind.model_fields}
    others = {("TabulatedConfig", "t_min"), ("TabulatedConfig", "t_max")}
    assert wanted - set_here <= others | {("UNetConfig", "components")}


def test_a_flag_goes_before_the_file(tmp_path, files, capsys):
    path = tmp_path / "run.toml"
    path.write_text('seed = 3\n[optim]\nlr = 1e-2\nsteps = 9\n[process]\nkind = "vp"\nbeta_max = 9')
    data = [files / "x.npy", "--config", path]
    found = printed(capsys, *data, "--lr", "3e-4", "--process.beta-max", "7")
    assert (found.seed, found.optim.lr, found.optim.steps) == (3, 3e-4, 9)
    assert found.process.beta_max == 7
    other = printed(capsys, *data, "--process.kind", "ve")
    assert other.process == c.VEConfig(t_min=1e-5, t_max=1.0), "the file's table is of another kind"
    same = printed(capsys, f"--config={path}", files / "x.npy", "--process.kind=vp")
    assert same.process.beta_max == 9


def test_a_run_is_repeated_from_its_own_configuration(tmp_path, files):
    finishes("train", files / "x.npy", "--out", tmp_path / "a", *TINY, "--seed", 5)
    config = tmp_path / "a" / "config.toml"
    finishes("train", files / "x.npy", "--out", tmp_path / "b", "--config", config)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    run = sf.train(read(files / "x.npy"), config=sf.load(tmp_path / "a").config.train)
    assert run.config.train == sf.load(tmp_path / "b").config.train


def test_what_is_printed_is_a_configuration(tmp_path, files, capsys):
    finishes("train", files / "x.npy", *TINY, "--print-config")
    (tmp_path / "run.toml").write_text(capsys.readouterr().out)
    again = printed(capsys, files / "x.npy", "--config", tmp_path / "run.toml")
    assert again == printed(capsys, files / "x.npy", *TINY)


def test_a_dry_run_tells_the_cost_and_writes_nothing(tmp_path, files, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finishes("train", files / "x.npy", *TINY, "--dry-run", "--out", tmp_path / "run")
    text = capsys.readouterr().out
    assert "5 steps about" in text
    assert "MiB" in text
    assert "nothing was written" in text
    assert listing(tmp_path) == {}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train x.npy", "--out: name the run folder"),
        ("train x.npy --config none.toml --dry-run", "--config none.toml: No such file"),
        ("train x.npy --config no.toml --dry-run", "--config no.toml is not TOML"),
        ("train x.npy --config unknown.toml --dry-run", "speed"),
        ("train x.npy --config bad.toml --dry-run", "--lr fast: input should be a valid number"),
        ("train x.npy --config short.toml --dry-run", "--network unett: give one of 'auto'"),
        ("train x.npy --config flat.toml --dry-run", "optim must be a table, [optim]"),
        ("train x.npy --config", "--config"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(fails, command, message):
    assert message in fails(2, *command.split())


def test_a_configuration_cannot_be_changed_and_knows_its_names():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        c.TrainConfig().seed = 3
    with pytest.raises(pydantic.ValidationError, match="speed"):
        c.TrainConfig.model_validate({"speed": 1})
    assert end("train", "moons", "--spee", "3") == 2
