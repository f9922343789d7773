"""The configuration: one set of names and defaults, in files, flags and Python alike."""

import dataclasses
import inspect
import re
import tomllib
import typing

import numpy as np
import pytest
import tomli_w
import torch
from pydantic import ValidationError
from shell import end

import scorefield as sf
from scorefield._internal.errors import UsageError
from scorefield.cli.app import app
from scorefield.data import Data
from scorefield.data.config import ClassChannel, CodecConfig, DataConfig
from scorefield.field import parametrization
from scorefield.networks import ADM, MLP, Diffusers, DiffusersCodec, DiT, SongUNet, UNet
from scorefield.process import builtin as processes
from scorefield.runs import build
from scorefield.runs.trainer import Training
from scorefield.training import config as c, objective

PLAIN = {"eps", "x0", "score", "v", "velocity"}
CLASSES = [
    (c.VPConfig, processes.VP),
    (c.SubVPConfig, processes.SubVP),
    (c.VEConfig, processes.VE),
    (c.CosineConfig, processes.Cosine),
    (c.SigmoidConfig, processes.Sigmoid),
    (c.FlowConfig, processes.Flow),
    (c.EDMConfig, processes.EDM),
    (c.TabulatedConfig, processes.Tabulated),
    (c.PreconditionedConfig, parametrization.Preconditioned),
    (c.EDMWeightingConfig, objective.EDMWeighting),
    (c.MinSNRConfig, objective.MinSNR),
    (c.UniformConfig, objective.UniformTimes),
    (c.LogNormalConfig, objective.LogNormalTimes),
    (c.LogitNormalConfig, objective.LogitNormalTimes),
    (c.MLPConfig, MLP),
    (c.UNetConfig, UNet),
    (c.SongConfig, SongUNet),
    (c.ADMConfig, ADM),
    (c.DiTConfig, DiT),
    (c.DiffusersConfig, Diffusers),
    (CodecConfig, DiffusersCodec),
]
TWO = ClassChannel(name="y", count=2, shares=(0.5, 0.5))
FROM_DATA = {"dim", "dims", "channels", "conditions"}
UNIONS = {
    "process": (c.ProcessConfig, build.PROCESSES),
    "parametrization": (c.ParametrizationConfig, build.PARAMETRIZATIONS),
    "weighting": (c.WeightingConfig, build.WEIGHTINGS),
    "times": (c.TimesConfig, build.TIMES),
    "label": (c.LabelConfig, build.LABELS),
}


def kinds(union):
    """Return every ``kind`` of a union of configurations."""
    members = typing.get_args(typing.get_args(union)[0])
    return [kind for m in members for kind in typing.get_args(m.model_fields["kind"].annotation)]


def parameters(cls):
    """Return a class's own arguments and their defaults."""
    if dataclasses.is_dataclass(cls):
        return {f.name: f.default for f in dataclasses.fields(cls)}
    found = inspect.signature(cls).parameters.items()
    return {name: p.default for name, p in found if name not in FROM_DATA}


@pytest.mark.parametrize(("config", "cls"), CLASSES, ids=lambda cls: cls.__name__)
def test_a_configuration_has_the_arguments_of_its_class_and_their_defaults(config, cls):
    # classless is an argument of its condition, and components of the Wiener filter around it
    own = ("kind", "classless", "components")
    fields = {name: f for name, f in config.model_fields.items() if name not in own}
    expected = parameters(cls)
    assert set(fields) == set(expected)
    for name, field in fields.items():
        if field.is_required():
            assert expected[name] in (dataclasses.MISSING, inspect.Parameter.empty)
        elif field.default is not None:
            assert field.default == expected[name], name


@pytest.mark.parametrize("name", UNIONS)
def test_every_kind_can_be_built_and_nothing_else_is_on_the_list(name):
    union, built = UNIONS[name]
    assert sorted(kinds(union)) == sorted([*built, "custom"])


OBJECTS = {
    "process": (processes.VP(beta_max=9.0), processes.Tabulated((0.9, 0.5, 0.1)), processes.EDM()),
    "parametrization": (parametrization.V(), parametrization.Preconditioned(0.5)),
    "weighting": (objective.Simple(), objective.FlowMatching(), objective.MinSNR(2.0)),
    "times": (
        objective.UniformTimes(),
        objective.LogNormalTimes(0.5, 2.0),
        objective.LogitNormalTimes(0.5, 2.0),
    ),
    "label": (sf.ratio_label, sf.Scaled(sf.time_label, 3.0)),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_of_ours_are_described_by_a_configuration_that_builds_them_again(name):
    for value in OBJECTS[name]:
        config = build.Objects(**{name: value}).described(c.TrainConfig(seed=3))
        assert getattr(config, name).kind != "custom"
        assert config.seed == 3
        if name in ("weighting", "times"):
            again = getattr(build.objective(config), name)
        else:
            again = getattr(build, name)(getattr(config, name))
        assert repr(again) == repr(value)


@dataclasses.dataclass(frozen=True)
class OwnVP(processes.VP):
    """A process of the user's own, though it is like one of ours."""


def test_an_object_of_ones_own_is_named_and_not_built():
    brought = build.Objects(torch.nn.Linear(2, 2), OwnVP(), label=sf.Scaled(sf.noise_label, 2.0))
    config = brought.described(c.TrainConfig())
    assert config.network == c.CustomConfig(name="torch.nn.modules.linear.Linear")
    assert config.process == c.CustomConfig(name="test_config.OwnVP")
    assert config.label.kind == "custom"
    file = tomllib.loads(tomli_w.dumps(config.model_dump(exclude_none=True)))
    assert c.TrainConfig.model_validate(file) == config
    for build_one in (build.process, build.label):
        with pytest.raises(UsageError, match="of your own"):
            build_one(getattr(config, build_one.__name__))
    assert build.process(config.process, brought.process) == OwnVP()
    with pytest.raises(UsageError, match=r"network=torch\.nn\.modules\.linear\.Linear"):
        build.network(build.Design(config.network, (2,)))
    assert build.resolved(config, (2,)) == config


def test_plain_kinds_have_no_arguments_to_configure():
    plain = {k for k, cls in build.PARAMETRIZATIONS.items() if not dataclasses.fields(cls)}
    assert plain == PLAIN
    assert not dataclasses.fields(objective.Simple)
    assert not dataclasses.fields(objective.LikelihoodWeighting)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (c.VPConfig(beta_max=12.0), processes.VP(beta_max=12.0)),
        (c.SubVPConfig(t_min=0.01), processes.SubVP(t_min=0.01)),
        (c.VEConfig(sigma_max=9.0, t_max=0.5), processes.VE(sigma_max=9.0, t_max=0.5)),
        (c.CosineConfig(offset=0.01), processes.Cosine(offset=0.01)),
        (c.SigmoidConfig(tau=0.5), processes.Sigmoid(tau=0.5)),
        (c.FlowConfig(t_max=0.9), processes.Flow(t_max=0.9)),
        (c.EDMConfig(t_max=20.0), processes.EDM(t_max=20.0)),
        (c.TabulatedConfig(alpha_bar=(0.9, 0.5, 0.1)), processes.Tabulated((0.9, 0.5, 0.1))),
    ],
)
def test_the_process_built_is_the_one_configured(config, expected):
    found = build.process(config)
    assert found == expected
    assert (found.t_min, found.t_max) == (expected.t_min, expected.t_max)


def test_the_objective_built_is_the_one_configured():
    config = c.TrainConfig(
        weighting=c.MinSNRConfig(gamma=2.0), times=c.LogNormalConfig(mean=0.5, std=2.0)
    )
    found = build.objective(config)
    assert found.weighting == objective.MinSNR(gamma=2.0)
    assert found.times == objective.LogNormalTimes(mean=0.5, std=2.0)
    assert build.parametrization(c.PreconditionedConfig(data_std=0.5)) == (
        parametrization.Preconditioned(0.5)
    )


@pytest.mark.parametrize("process", [c.VPConfig(), c.TabulatedConfig(alpha_bar=(0.9, 0.5, 0.1))])
@pytest.mark.parametrize(
    ("shape", "kind", "width"),
    [((3,), "mlp", 256), ((2, 5), "unet", 16), ((1, 8, 8), "unet", 32), ((1, 8, 8, 8), "unet", 16)],
)
def test_a_resolved_configuration_leaves_nothing_to_defaults(shape, kind, width, process):
    """So that a run's file says all, and goes on saying it if a default ever changes."""
    found = build.resolved(c.TrainConfig(process=process), shape, 300)
    assert found.network.kind == kind

    def missing(value):
        if isinstance(value, dict):
            return [k for k, v in value.items() if v is None or missing(v)]
        return []

    assert missing(found.model_dump()) == []
    built = build.process(process)
    assert (found.process.t_min, found.process.t_max) == (built.t_min, built.t_max)
    assert found.network.width == width
    assert build.resolved(found, shape, 9) == found, "resolving again changes nothing"
    text = tomli_w.dumps(found.model_dump())
    assert c.TrainConfig.model_validate(tomllib.loads(text)) == found


def test_what_was_given_is_kept_when_the_rest_is_resolved():
    config = c.TrainConfig(
        process=c.VPConfig(beta_max=7.0, t_min=0.03), network=c.MLPConfig(width=24)
    )
    found = build.resolved(config, (3,))
    assert found.process == c.VPConfig(beta_max=7.0, t_min=0.03, t_max=1.0)
    assert found.network == c.MLPConfig(width=24, depth=4)


def test_the_network_built_has_the_size_configured():
    mlp = build.network(build.Design(c.MLPConfig(width=24, depth=3), (2, 5)))
    assert mlp.enter.in_features == 10
    assert mlp.enter.out_features == 24
    assert len(mlp.blocks) == 3
    config = c.UNetConfig(width=16, multipliers=(1, 1, 3), blocks=2)
    classes = (TWO.model_copy(update={"count": 5}),)
    unet = build.network(build.Design(config, (3, 8, 8), classes))
    assert unet.enter.in_channels == 3
    assert unet.attention.norm.num_channels == 48
    assert len(unet.down) == 6
    assert unet.embedding.conditions.y.num_embeddings == 6  # and one for no class


@pytest.mark.parametrize("config", [c.UNetConfig(), c.DiTConfig()])
@pytest.mark.parametrize("shape", [(4,), (2, 3, 3, 3, 3)])
def test_a_network_of_places_for_vectors_or_four_axes_is_refused(config, shape):
    says = rf"takes signals \(C, L\), images .* has shape {re.escape(str(shape))}: use an MLP"
    with pytest.raises(ValueError, match=says):
        build.network(build.Design(config, shape))


@pytest.mark.parametrize("shape", [(4,), (2, 9), (1, 8, 8, 8)])
def test_a_network_of_images_for_other_samples_is_refused(shape):
    with pytest.raises(ValueError, match=r"song takes images \(C, H, W\).*use an MLP or a U-Net"):
        build.network(build.Design(c.SongConfig(), shape))


@pytest.mark.parametrize(
    ("shape", "kind", "levels", "positions"),
    [
        ((5,), "mlp", None, None),
        ((2, 5), "unet", 2, True),
        ((1, 64), "unet", 2, True),
        ((1, 65), "unet", 3, True),
        ((1, 10**8), "unet", 16, True),
        ((1, 150), "unet", 4, True),
        ((3, 500, 500), "unet", 2, False),
        ((1, 16, 16, 16), "unet", 2, False),
        ((1, 20, 16, 33), "unet", 4, False),
    ],
)
def test_the_default_network_follows_from_the_shape(shape, kind, levels, positions):
    found = build.concrete_network(c.AutoNetwork(), shape)
    assert found.kind == kind
    assert len(getattr(found, "multipliers", [])) == (levels or 0)
    assert getattr(found, "positions", None) is positions
    assert found.width == (256 if kind == "mlp" else 32 if len(shape) == 3 else 16)
    wide = build.concrete_network(c.UNetConfig(multipliers=(3,), positions=False), (2, 999))
    assert (wide.multipliers, wide.positions) == ((3,), False)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"stepz": 3}, ("stepz",)),
        ({"optim": {"rate": 3}}, ("optim", "rate")),
        ({"process": {"kind": "vp", "sigma_max": 3}}, ("process", "vp", "sigma_max")),
        ({"process": {"kind": "vpp"}}, ("process",)),
        ({"process": {"kind": "tabulated"}}, ("process", "tabulated", "alpha_bar")),
        ({"network": {"kind": "auto", "width": 8}}, ("network", "auto", "width")),
        ({"network": {"kind": "unet", "multipliers": []}}, ("network", "unet", "multipliers")),
        ({"parametrization": {"kind": "eps", "data_std": 1}}, None),
        ({"weighting": {"kind": "min-snr", "gamma": 0}}, ("weighting", "min-snr", "gamma")),
        ({"times": {"kind": "log-normal", "std": -1}}, ("times", "log-normal", "std")),
        ({"optim": {"steps": 0}}, ("optim", "steps")),
        ({"optim": {"batch_size": -1}}, ("optim", "batch_size")),
        ({"optim": {"lr": 0}}, ("optim", "lr")),
        ({"optim": {"minutes": float("inf")}}, ("optim", "minutes")),
        ({"optim": {"ema": []}}, ("optim", "ema")),
        ({"held_out": 1.0}, ("held_out",)),
        ({"optim": {"lr": "fast"}}, ("optim", "lr")),
        ({"optim": {"ema": 1}}, ("optim", "ema", 0)),
        ({"optim": {"precision": "float64"}}, ("optim", "precision")),
        ({"dropout": 1.5}, ("dropout",)),
        ({"seed": -1}, ("seed",)),
        ({"seed": 2**64}, ("seed",)),
    ],
)
def test_unknown_names_and_impossible_values_are_refused_by_place(values, place):
    with pytest.raises(ValidationError) as raised:
        c.TrainConfig.model_validate(values)
    (error,) = raised.value.errors()
    if place is not None:
        assert error["loc"] == place


def test_a_configuration_cannot_be_changed_only_copied():
    config = c.TrainConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3
    assert config.model_copy(update={"seed": 3}).seed == 3


# --- flags, files and Python agree ----------------------------------------------------------------

FLAGS = [
    ("", c.TrainConfig()),
    (
        "--process.kind ve --lr 3e-4",
        c.TrainConfig(process=c.VEConfig(), optim=c.OptimConfig(lr=3e-4)),
    ),
    (
        "--process.sigma-max 20 --process.kind ve --process.t-min 0.1 --seed 5 --conditional",
        c.TrainConfig(process=c.VEConfig(sigma_max=20.0, t_min=0.1), seed=5, conditional=True),
    ),
    (
        "--process.kind tabulated --process.alpha-bar 0.9 --process.alpha-bar 0.4",
        c.TrainConfig(process=c.TabulatedConfig(alpha_bar=(0.9, 0.4))),
    ),
    (
        "--network.kind unet --network.multipliers 1 --network.multipliers 3 --network.width 16",
        c.TrainConfig(network=c.UNetConfig(multipliers=(1, 3), width=16)),
    ),
    (
        "--network.kind mlp --network.depth 2 --parametrization.kind v --weighting.kind simple",
        c.TrainConfig(
            network=c.MLPConfig(depth=2),
            parametrization=c.PlainParametrization(kind="v"),
            weighting=c.PlainWeighting(kind="simple"),
        ),
    ),
    (
        "--weighting.kind min-snr --weighting.gamma 2 --times.kind uniform --dropout 0.3",
        c.TrainConfig(weighting=c.MinSNRConfig(gamma=2.0), times=c.UniformConfig(), dropout=0.3),
    ),
    (
        "--steps 7 --batch-size 9 --warmup 0 --weight-decay 0 "
        "--clip 2 "
        "--ema 0.5 --no-low-discrepancy --precision bfloat16",
        c.TrainConfig(
            optim=c.OptimConfig(
                steps=7,
                batch_size=9,
                warmup=0,
                weight_decay=0.0,
                clip=2.0,
                ema=0.5,
                low_discrepancy=False,
                precision="bfloat16",
            )
        ),
    ),
]


@pytest.mark.parametrize(("flags", "expected"), FLAGS, ids=[f[0] or "none" for f in FLAGS])
def test_flags_make_the_configuration_that_python_does(flags, expected):
    words = ["train", "moons", "--out", "run", *flags.split()]
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    arguments = dict(bound.arguments)
    settings = arguments.pop("settings", c.TrainConfig())
    assert bound.args == ("moons",)
    assert str(arguments["out"]) == "run"
    assert arguments.keys() == {"data", "out"}
    assert c.TrainConfig(**dict(settings)) == expected


@pytest.mark.parametrize("expected", [f[1] for f in FLAGS])
def test_a_file_makes_the_configuration_that_python_does(expected):
    text = tomli_w.dumps(expected.model_dump(exclude_none=True))
    assert c.TrainConfig.model_validate(tomllib.loads(text)) == expected


def test_a_run_keeps_the_configuration_it_was_given_and_the_data_it_saw():
    data = Data(torch.randn(10, 3), torch.tensor([0, 1] * 5), "some points")
    config = c.TrainConfig(process=c.FlowConfig(), network=c.MLPConfig(width=8), conditional=True)
    found = Training(data, config).run.config
    assert found.train == build.resolved(config, (3,), 10)
    assert found.data == DataConfig(name="some points", shape=(3,), count=10, conditions=(TWO,))
    plain = Training(data, config.model_copy(update={"conditional": False}))
    assert not plain.run.config.data.conditions


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
    tmp_path, capsys, monkeypatch, setting, message
):
    monkeypatch.setattr("scorefield._internal.sizes.memory", lambda: 2**33)
    name, value = setting.split()
    kind = [] if name == "batch-size" else ["--network.kind", "mlp"]
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 3)))
    assert end("train", tmp_path / "x.npy", *kind, f"--{name}", value, "--print-config") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "there are 8.0 GiB of memory" in error or "at most 10,000 are allowed" in error
