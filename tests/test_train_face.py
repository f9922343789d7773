"""Whatever a newcomer passes to ``sf.train`` works, or the error says what to write."""

import dataclasses
import types
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from cases import values_of
from scipy import sparse
from torch import nn

import scorefield as sf
from scorefield._internal.errors import DataError, UsageError
from scorefield.data.config import ColumnsConfig
from scorefield.training.config import CustomConfig, MLPConfig, OptimConfig, TrainConfig, VEConfig

TINY = {"steps": 3, "batch_size": 8, "network": MLPConfig(width=8, depth=1)}
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(20, 3)) * [1.0, 10.0, 100.0] + [0.0, 5.0, -50.0]
KINDS = ["gull", "owl", "gull", "wren"] * 5


def train(data, y=None, **settings):
    return sf.train(data, y, **TINY | settings)


def sampled(run, shape, **condition):
    """Return samples, which have the shape of the data and its units."""
    x = run.sample(64, **condition)
    assert x.shape == (64, *shape)
    missing = any(column.missing for column in run.config.data.columns.kinds)
    assert missing or x.isfinite().all()
    return x


@pytest.mark.parametrize(
    "convert",
    [
        torch.tensor,
        lambda x: torch.tensor(x, dtype=torch.float32),
        lambda x: torch.tensor(x, dtype=torch.bfloat16),
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: x,
        lambda x: x.astype(np.float16),
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(np.int32),
        lambda x: x.tolist(),
        sparse.csr_matrix,
        sparse.coo_array,
    ],
)
def test_points_of_any_real_type_train_and_come_back_in_their_units(convert):
    run = train(convert(POINTS))
    x = sampled(run, (3,))
    assert 20 < float(x[:, 2].std()) < 500
    assert float(x[:, 0].std()) < 5
    assert torch.equal(run.sample(4), train(convert(POINTS)).sample(4))


def test_the_same_values_train_to_the_same_bits_whatever_holds_them():
    expected = train(torch.tensor(POINTS)).sample(4)
    for other in (POINTS, POINTS.tolist(), sparse.csc_array(POINTS), sf.Data(POINTS)):
        assert torch.equal(train(other).sample(4), expected)


def test_images_are_taken_with_their_channels_first_or_last():
    images = RNG.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    last, first = (
        train(x, network="auto", steps=1) for x in (images, images.transpose(0, 3, 1, 2))
    )
    assert sampled(last, (3, 8, 8)).equal(sampled(first, (3, 8, 8)))
    assert last.config.train.network.kind == "unet"


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (torch.tensor([0, 1, 0, 2] * 5), ()),
        (np.array([0, 1, 0, 2] * 5, np.uint8), ()),
        ([0, 1, 0, 2] * 5, ()),
        (KINDS, ("gull", "owl", "wren")),
        (np.array(KINDS), ("gull", "owl", "wren")),
        ([*KINDS[:-1], None], ("gull", "owl", "wren")),
    ],
)
def test_classes_are_learned_if_they_are_given(y, names):
    run = train(POINTS, y)
    assert run.config.train.conditional
    assert run.config.data.classes.count == 3
    assert run.config.data.classes.names == names
    sampled(run, (3,), given=2)
    assert not train(POINTS, y, conditional=False).config.train.conditional


def test_a_class_that_is_not_known_is_minus_one():
    data = sf.Data(POINTS, [*KINDS[:-1], None])
    assert values_of(data).tolist() == [0, 1, 0, 2] * 4 + [0, 1, 0, -1]
    assert values_of(sf.Data(POINTS, [-1, 1, 0, 2] * 5))[0] == -1


def test_data_holds_what_it_is_given():
    x = torch.randn(20, 3)
    assert sf.Data(x).x is x, "a float32 tensor as it is"
    assert sf.Data(x).name == "data"
    data = sf.Data(POINTS, KINDS, "birds")
    (channel,) = data.conditions.channels
    assert (data.name, channel.names, channel.count) == ("birds", ("gull", "owl", "wren"), 3)
    assert data.x.dtype == torch.float32
    np.testing.assert_allclose(data.x, POINTS, rtol=1e-6)
    assert dataclasses.replace(data, name="other").conditions == data.conditions
    assert sf.Data(np.ones((4, 2)) * [[1], [2], [3], [4]]).columns == ColumnsConfig()


def test_samples_may_be_computed_as_they_are_read():
    class Waves:
        shape = (20, 1, 16)

        def __len__(self):
            return 20

        def __getitem__(self, items):
            return torch.sin(torch.arange(16.0) + 0.1 * items[:, None, None])

    source = Waves()
    data = sf.Data(source, name="waves")
    assert (data.x, data.shape) == (source, (1, 16))
    assert torch.equal(train(data).sample(4), train(source[torch.arange(20)]).sample(4))


def test_built_in_names_and_paths_are_data_too(tmp_path):
    np.save(tmp_path / "x.npy", POINTS)
    assert sampled(train("moons"), (2,)).abs().max() < 20
    assert torch.equal(train(tmp_path / "x.npy").sample(4), train(POINTS).sample(4))
    assert not train("digits", network="unet", steps=1).config.train.conditional


def frame(library):
    columns = {"species": KINDS, "mass": POINTS[:, 1], "eggs": [1, 2, 3, None] * 5}
    return pytest.importorskip(library).DataFrame(columns)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_table_trains_by_its_columns(library):
    table = frame(library)
    run = train(table)
    columns = run.config.data.columns
    assert columns.names == ("species", "mass", "eggs")
    species, mass, eggs = columns.kinds
    assert species.labels == ("gull", "owl", "wren")
    assert eggs.step == 1
    assert (mass.missing, eggs.missing) == (False, True)
    x = sampled(run, (3,))
    assert set(x[:, 0].tolist()) <= {0, 1, 2}
    conditional = train(table, "species")
    assert conditional.config.data.columns.names == ("mass", "eggs")
    assert conditional.config.data.conditions[0].names == ("gull", "owl", "wren")
    assert train(table, table["species"]).config.data.classes.count == 3
    again = sf.read(table[:4], like=run.config.data, learn=False)
    assert again.x[:3, 0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_categories_and_truth_values_of_a_table_are_texts(library):
    made = pytest.importorskip(library)
    kinds = made.Series(KINDS, dtype="category" if library == "pandas" else made.Categorical)
    data = sf.Data(made.DataFrame({"kind": kinds, "old": [True, False] * 10, "x": POINTS[:, 0]}))
    kind, old, _ = data.columns.kinds
    assert (kind.labels, old.labels) == (("gull", "owl", "wren"), ("false", "true"))
    assert data.x[:4, 0].tolist() == [0, 1, 0, 2]


def test_the_rows_of_a_table_may_have_names():
    table = frame("pandas").set_index("species")
    assert sf.Data(table).columns.names == ("mass", "eggs")


def test_a_table_with_the_interchange_protocol_alone_is_read():
    @dataclass
    class Table:
        of: object

        def __dataframe__(self, **options):
            return self.of.__dataframe__(**options)

    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": POINTS[:, 0], "b": POINTS[:, 1]})
    assert torch.equal(sf.Data(Table(table)).x, torch.from_numpy(POINTS[:, :2]).double())


def cells(x):
    """Return a stand-in for an AnnData object."""
    obs = {"kind": np.array(KINDS, dtype=object), "depth": POINTS[:, 0]}
    names = [f"gene {k}" for k in range(3)]
    return types.SimpleNamespace(X=x, obs=obs, var_names=names, layers={"counts": 2 * POINTS})


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_cells_train_as_they_come(convert):
    object_ = cells(convert(POINTS))
    run = train(object_, "kind")
    assert run.config.data.columns.names == ("gene 0", "gene 1", "gene 2")
    assert run.config.data.classes.names == ("gull", "owl", "wren")
    assert 20 < float(sampled(run, (3,), given=1)[:, 2].std()) < 500
    assert torch.equal(sf.read(object_, matrix="layers/counts").x, sf.Data(2 * POINTS).x)
    with pytest.raises(DataError, match="no such column"):
        train(object_, "kinds")
    with pytest.raises(DataError, match="has X, layers/counts"):
        sf.read(object_, matrix="layers/spliced")


# --- settings -------------------------------------------------------------------------------------


def test_settings_are_the_fields_of_the_configuration_by_their_own_names():
    settings = {
        "steps": 5, "minutes": 0.0, "lr": 1e-2, "batch_size": 4, "ema": 0.9, "warmup": 2,
        "weight_decay": 0.1, "precision": "float32", "compile": False, "process": "cosine",
        "parametrization": "v", "weighting": "simple", "times": "uniform", "label": "ratio",
        "levels": 0, "conditional": False, "dropout": 0.2, "held_out": 0.1, "seed": 7,
    }  # fmt: skip
    config = sf.train(POINTS, network=MLPConfig(width=8, depth=1), **settings).config.train
    kinds = {"process", "parametrization", "weighting", "times", "label"}
    for name, value in settings.items():
        at = config.optim if name in OptimConfig.model_fields else config
        expected = (value,) if name == "ema" else value
        assert (getattr(at, name).kind if name in kinds else getattr(at, name)) == expected


def test_settings_go_before_a_configuration():
    config = TrainConfig(seed=3, process=VEConfig(), optim=OptimConfig(steps=2, batch_size=4))
    run = sf.train(POINTS, config=config, batch_size=5, network=MLPConfig(width=8, depth=1))
    assert (run.config.train.seed, run.config.train.process.kind) == (3, "ve")
    assert (run.config.train.optim.steps, run.config.train.optim.batch_size) == (2, 5)


def test_y_makes_a_run_conditional_but_not_against_a_configuration():
    assert train(POINTS, KINDS, config=TrainConfig(seed=1)).config.train.conditional
    config = TrainConfig(conditional=False)
    assert not train(POINTS, KINDS, config=config).config.train.conditional


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 3}, "no setting 'epochs': did you mean steps"),
        ({"learning_rate": 3}, "did you mean lr"),
        ({"batchsize": 3}, "did you mean batch_size"),
        ({"heldout": 0.1}, "did you mean held_out"),
        ({"labels": KINDS}, "did you mean conditions"),
        ({"without": ["a"]}, r"train\(scorefield.read\(path, without=...\)\)"),
        ({"zzz": 3}, "settings are accumulate, batch_size"),
    ],
)
def test_an_unknown_setting_is_named_with_the_one_that_was_meant(settings, message):
    with pytest.raises(TypeError, match=message):
        sf.train(POINTS, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"device": "cuda"},
            "device='cuda': not available here; available: cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU"),
        ),
        ({"steps": 0}, "steps=0: input should be greater than 0"),
        ({"batch_size": "big"}, "batch_size='big': "),
        ({"network": "unett"}, "network='unett': the kinds are .*'unet'"),
        ({"process": sf.VP}, r"process=VP: pass an instance, VP\(...\)"),
        ({"network": 5}, "network=5: pass the name of a kind, a configuration, or an object"),
        ({"held_out": 1.0}, "held_out=1.0: input should be less than 1"),
        ({"process": {"kind": "vp", "sigma_max": 3}}, "process.vp.sigma_max=3"),
        ({"config": {"steps": 3}}, "config=.*must be a TrainConfig; pass settings as keywords"),
        ({"conditional": True}, "data has no conditions"),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused_in_one_line(settings, message):
    with pytest.raises(UsageError, match=message) as error:
        train(POINTS, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "y", "message"),
    [
        (POINTS, np.full(20, 0.5), "condition y has the same value for every sample"),
        (
            POINTS,
            np.append(np.linspace(0, 1, 19), np.nan),
            "condition y is not finite in sample 19",
        ),
        (POINTS, [0, 1], "condition y has 2 rows, and the data has 20 samples"),
        (POINTS, KINDS[:5], "condition y has 5 rows, and the data has 20 samples"),
        (POINTS, "species", "conditions=species: no such file"),
        (POINTS, {"a": KINDS, "": KINDS}, "give each condition a name of its own"),
        (POINTS, [0, 400] * 10, "labels from 0 to 400 for 20 samples"),
        (POINTS, [f"{k}" for k in range(20)], "y has 20 different values for 20 samples"),
        (POINTS[:, 0], None, r"Write x\[:, None\]"),
        (POINTS[:1], None, "two or more"),
        (np.full((5, 2), np.nan), None, "not finite"),
        (POINTS + 1j, None, "values of type complex128"),
        (np.array([["a"], ["b"]]), None, "values of type <U1"),
        (object(), None, "values of type object"),
        ("moon", None, "Did you mean moons"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused_in_one_line(data, y, message):
    with pytest.raises(DataError, match=message) as error:
        train(data, y)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda run: run.sample(2, given="crow"),
            "y='crow': give the number of a class, 0 to 2, or one of its names gull, owl, wren",
        ),
        (lambda run: run.sample(3, given=[0, 1]), "condition y has 2 rows for 3 samples"),
        (lambda run: run.sample(2, given=3), "y=3: give the number of a class, 0 to 2"),
        (lambda run: run.sample(2, given={"z": 1}), "given=z: this run has the conditions y"),
        (lambda run: run.guided("2"), "guidance='2': must be a finite number"),
        (lambda run: run.table(POINTS), r"write torch.as_tensor\(x\)"),
        (lambda run: sf.sample(run, 2), r"field=Run\(...\): must be a ScoreField; write run.field"),
        (lambda run: sf.default_plan(run, 5), "such as run.field"),
        (lambda run: sf.ClassifierFree(run, 2.0), "such as run.field"),
    ],
)
def test_wrong_kinds_of_arguments_of_a_run_get_one_clear_error(call, message):
    run = train(POINTS, KINDS)
    with pytest.raises(ValueError, match=message) as error:
        call(run)
    assert "\n" not in str(error.value)


def test_a_class_may_be_bound_to_a_field_as_a_number():
    run = train(POINTS, KINDS)
    z = sf.sample(run.field.condition_on(y=1), 4, nfe=4)
    assert torch.equal(run.to_data(z), run.sample(4, nfe=4, given=1))


def test_a_configuration_in_the_place_of_classes_is_refused():
    with pytest.raises(TypeError, match="pass it as config="):
        sf.train(POINTS, TrainConfig())


# --- objects of one's own -------------------------------------------------------------------------


class Net(nn.Module):
    """A network of one's own, with an embedding that has no class for none."""

    def __init__(self, classes=0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 3))
        self.classes = nn.Embedding(classes, 3) if classes else None

    def forward(self, x, label, y=None):
        out = self.layers(torch.cat([x, label[:, None]], 1))
        return out if y is None else out + self.classes(y)


class Wide(nn.Linear):
    """A network that returns another shape than it is given."""

    def forward(self, x, label):
        return super().forward(x)


@dataclass(frozen=True)
class Linear(sf.Process):
    """A process of one's own: alpha and sigma on a line."""

    t_min: float = 1e-3
    t_max: float = 1.0

    def alpha(self, t):
        return 1 - 0.999 * t

    def sigma(self, t):
        return t


@dataclass(frozen=True)
class Half(sf.Parametrization):
    """A parametrization of one's own: the network predicts half of the noise."""

    def __call__(self, alpha, sigma):
        skip, out, scale = sf.Eps()(alpha, sigma)
        return skip, 2 * out, scale


class Flat(sf.Weighting):
    def __call__(self, at):
        return torch.ones_like(at.t)


class Late(sf.TimeDistribution):
    def __call__(self, process, u):
        return 0.5 + 0.5 * u


def test_everything_may_be_an_object_of_ones_own():
    network = Net()
    before = network.layers[0].weight.detach().clone()
    own = {"process": Linear(), "parametrization": Half(), "weighting": Flat(), "times": Late()}
    run = train(POINTS, network=network, label=lambda process, t: t, **own)
    assert run.field.network is network
    assert not torch.equal(before, network.layers[0].weight), "it is trained in place"
    assert (run.field.process, run.field.parametrization) == (
        own["process"],
        own["parametrization"],
    )
    sampled(run, (3,))
    config = run.config.train
    for name in ("network", "process", "parametrization", "label", "weighting", "times"):
        assert isinstance(getattr(config, name), CustomConfig)
    assert config.network.name.endswith("test_train_face.Net")


def test_an_own_process_learns_what_ours_learns_where_they_are_the_same():
    """A class of one's own that is VP in all but its name: the same bits."""

    @dataclass(frozen=True)
    class Own(sf.VP):
        pass

    assert torch.equal(train(POINTS, process=Own()).sample(4), train(POINTS).sample(4))


def test_objects_of_ours_are_known_by_their_kind():
    given = {
        "process": sf.VE(sigma_max=9.0),
        "parametrization": sf.V(),
        "weighting": sf.MinSNR(3.0),
    }
    config = train(POINTS, **given).config.train
    assert (config.process.kind, config.process.sigma_max) == ("ve", 9.0)
    assert config.parametrization.kind == "v"
    assert (config.weighting.kind, config.weighting.gamma) == ("min-snr", 3.0)


def test_an_own_network_is_tried_before_it_is_trained():
    with pytest.raises(UsageError, match="A hidden class is -1"):
        train(POINTS, KINDS, network=Net(3))
    assert train(POINTS, KINDS, network=Net(3), dropout=0.0).config.data.classes.count == 3
    with pytest.raises(
        UsageError, match=r"Net: network\(x, label\) with x of shape \(2, 2\) fails"
    ):
        train(POINTS[:, :2], network=Net())
    with pytest.raises(UsageError, match=r"returns shape \(2, 5\)"):
        train(POINTS, network=Wide(3, 5))


def test_a_denoiser_brings_all_that_it_is_made_of():
    field = sf.Denoiser(Net(), Linear(), sf.V(), (3,), label=sf.time_label)
    run = train(POINTS, network=field, seed=2)
    assert (run.field.process, run.field.parametrization) == (field.process, field.parametrization)
    assert run.field.label is sf.time_label
    assert run.config.train.label.kind == "time"
