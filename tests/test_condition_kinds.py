"""Conditions of every kind: read, encoded, hidden, taken by networks, and guided by."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from cases import normal
from shell import end, finishes

import scorefield as sf
from scorefield._internal.errors import DataError, UsageError
from scorefield.data.channels import encode
from scorefield.networks import ADM, MLP, DiT, SongUNet, UNet
from scorefield.networks.conditions import Classes, Images, Numbers, Spatial, Vectors
from scorefield.networks.cross_attention import Context, CrossAttention
from scorefield.runs.trainer import Training
from scorefield.training import config as c
from scorefield.training.batches import draw
from scorefield.training.objective import Objective, Simple, UniformTimes

N = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2)).astype(np.float32)
NAMES = [("ant", "bee", "cow")[k % 3] for k in range(N)]
TABLE = {"ant": [1.0, 0.0], "bee": [0.0, 1.0], "cow": [0.5, 0.5], "dog": [0.9, 0.2]}
SETS = [RNG.normal(size=(1 + k % 4, 3)) for k in range(N)]
SMALL = {"steps": 2, "batch_size": 8, "network": c.MLPConfig(width=8, depth=1)}


def channel_of(values, x=X, **options):
    (channel,) = (
        sf.Data(x, values).conditions.channels
        if not options
        else (sf.read(x, values, **options).conditions.channels)
    )
    return channel


# --- kinds ----------------------------------------------------------------------------------------

PICTURES = RNG.normal(size=(N, 1, 4, 4)).astype(np.float32)
KINDS = {
    "texts": (NAMES, X, "class"),
    "integers": (np.arange(N) % 4, X, "class"),
    "truth values": (np.arange(N) % 2 == 0, X, "class"),
    "numbers": (np.linspace(0, 1, N), X, "numbers"),
    "float32 tensor": (torch.linspace(0, 1, N), X, "numbers"),
    "rows of numbers": (RNG.normal(size=(N, 3)), X, "numbers"),
    "rows of integers": (RNG.integers(0, 9, (N, 2)), X, "numbers"),
    "sets": (SETS, X, "set"),
    "sets of one size": (RNG.normal(size=(N, 4, 3)), X, "set"),
    "images": (RNG.normal(size=(N, 3, 2, 2)), PICTURES, "image"),
    "signals": (RNG.normal(size=(N, 1, 8)), RNG.normal(size=(N, 2, 16)), "image"),
}


@pytest.mark.parametrize(("values", "x", "kind"), KINDS.values(), ids=KINDS)
def test_the_kind_of_values_follows_from_their_type_and_shape(values, x, kind):
    assert channel_of(values, x).kind == kind


def test_numbers_are_scaled_and_come_back():
    dose = 10 ** RNG.uniform(-3, 2, N)
    plain, log = (channel_of({"dose": (kind, dose)}) for kind in ("number", "log"))
    for channel, values in ((plain, dose), (log, np.log(dose))):
        scaled = encode(channel, dose)[:, 0].double().numpy()
        np.testing.assert_allclose(scaled, (values - values.mean()) / values.std(), atol=1e-5)
        assert encode(channel, 0.5).shape == (1, 1)
    assert encode(log, "0.5") == encode(log, 0.5)


def test_names_of_vectors_need_not_be_those_of_the_data():
    channel = channel_of({"animal": NAMES}, embeddings={"animal": TABLE})
    rows = encode(channel, ["ant", "dog"])
    torch.testing.assert_close(rows[1], encode(channel, TABLE["dog"])[0])
    vectors = np.array([*TABLE.values()])
    expected = (vectors[0] - vectors.mean(0)) / vectors.std(0)
    np.testing.assert_allclose(rows[0], expected, atol=1e-6)


def test_sets_of_several_sizes_are_filled_up_with_nan():
    channel = channel_of(SETS)
    rows = encode(channel, SETS[:4])
    assert rows.shape == (4, 4, 3)
    assert (~rows.isnan()).any(2).sum(1).tolist() == [1, 2, 3, 4]
    every = np.concatenate(SETS)
    np.testing.assert_allclose(rows[0, 0], (SETS[0][0] - every.mean(0)) / every.std(0), atol=1e-5)


def test_several_conditions_come_from_a_mapping_or_a_table():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"dose": np.linspace(0, 1, N), "animal": NAMES})
    for conditions in (frame, dict(frame), {"dose": frame.dose.to_numpy(), "animal": NAMES}):
        channels = sf.Data(X, conditions).conditions.channels
        assert [(each.name, each.kind) for each in channels] == [
            ("dose", "numbers"),
            ("animal", "class"),
        ]


def test_a_file_may_have_a_declared_kind(tmp_path):
    """Whole numbers in a file are classes, and numbers where that is declared."""
    codes = np.arange(N) % 4
    np.save(tmp_path / "c.npy", codes)
    for text, kind in (("a={}", "class"), ("a=number:{}", "numbers"), ("a=log:{}", "numbers")):
        if "log" in text:
            np.save(tmp_path / "c.npy", codes + 1)
        (channel,) = sf.Data(X, text.format(tmp_path / "c.npy")).conditions.channels
        assert (channel.name, channel.kind) == ("a", kind)
    assert channel.log
    np.save(tmp_path / "c.npy", codes)
    with pytest.raises(DataError, match="condition a holds 0, which has no logarithm"):
        sf.Data(X, {"a": f"log:{tmp_path / 'c.npy'}"})


# --- refusals -------------------------------------------------------------------------------------

BAD = {
    "another count": ({"a": NAMES[:5]}, "condition a has 5 rows, and the data has 40 samples"),
    "not finite": ({"a": [math.nan] * N}, "condition a is not finite in sample 0"),
    "constant": ({"a": np.full(N, 2.5)}, "condition a has the same value for every sample"),
    "no vectors": ({"a": ("embedding", NAMES)}, "condition a has names, and no vectors for them"),
    "no logarithm": ({"a": ("log", np.linspace(0, 1, N))}, "condition a holds 0, which has no log"),
    "no name": ({"": NAMES}, "give each condition a name of its own"),
    "sizes": (
        {"a": [np.ones((2, 3)), np.ones((2, 4))] * 20},
        "sets of vectors that do not",
    ),
    "one value": ({"a": ("number", 3)}, "condition a is one value: give one for each sample"),
    "none": ({"a": None}, "condition a is None: give values, or leave it out"),
    "same argument": (
        {"x": NAMES, "x_": NAMES},
        "conditions x, x_: two of them have the same",
    ),
    "no kind": ({"a": np.ones((N, 1, 2, 2, 2))}, r"condition a has shape \(40, 1, 2, 2, 2\)"),
}


@pytest.mark.parametrize(("conditions", "message"), BAD.values(), ids=BAD)
def test_values_that_are_unfit_are_rejected(conditions, message):
    with pytest.raises(DataError, match=message) as error:
        sf.Data(X, conditions)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def run():
    conditions = {"dose": np.linspace(0.5, 2, N), "animal": NAMES, "bag": SETS}
    return sf.train(X, conditions, **SMALL)


def test_data_is_read_for_a_run_as_the_run_has_learned(run):
    """The channels are the run's, whatever the new data holds."""
    dose = np.linspace(10, 20, N)
    few = {"dose": dose, "animal": ["cow"] * N, "bag": SETS}
    (scaled,) = (c for c in run.config.data.conditions if c.name == "dose")
    expected = encode(scaled, dose)
    for data in (run.read(X, few), run.read(sf.Data(X, few)), run.read(sf.Data(X), few)):
        assert data.conditions.channels == run.config.data.conditions
        torch.testing.assert_close(data.conditions.values["dose"], expected)
        assert data.conditions.values["animal"].unique().tolist() == [2]
    with pytest.raises(DataError, match="condition size: this run has the conditions dose"):
        run.read(X, {"size": dose})
    with pytest.raises(UsageError, match="animal='elk': give the number of a class"):
        run.read(X, {"animal": ["elk"] * N})


def test_rows_of_conditions_match_the_samples():
    data = sf.Data(X, NAMES)
    with pytest.raises(DataError, match="condition y has 40 rows for 39 samples"):
        dataclasses.replace(data, x=data.x[1:])


def test_forms_of_guidance_replace_each_other_and_are_in_order(run):
    assert run.guided({"dose": 2}).guided(3.0).scales == {}
    assert run.guided(3.0).guided({"dose": 2}).guidance == 1
    one, two = (run.guided(s) for s in ({"dose": 2, "animal": 1.5}, {"animal": 1.5, "dose": 2}))
    assert one.bound != two.bound
    assert "guidance={'dose': 2.0" in repr(one)


def test_a_run_that_was_never_without_conditions_draws_those_of_the_data():
    values = {"a": np.linspace(0, 1, N), "b": NAMES}
    sure = sf.train(X, values, dropout=0.0, **SMALL)
    rows = sure.drawn([0, 1, 2])
    assert rows["a"].unique().numel() > 1
    for key, value in rows.items():
        assert all(bool((row == sure.examples[key]).any()) for row in value)
    given = {"a": rows["a"].numpy() * np.linspace(0, 1, N).std() + 0.5, "b": rows["b"].tolist()}
    torch.testing.assert_close(sure.sample(3, nfe=3), sure.sample(3, nfe=3, given=given))
    with pytest.raises(UsageError, match="needs all conditions; b missing"):
        sure.sample(2, nfe=2, given={"a": 0.5})
    with pytest.raises(UsageError, match="needs all conditions; a, b missing"):
        sure.log_prob(torch.from_numpy(X[:2]))


def test_names_that_are_numbers_are_names():
    numbers = {"5": [1.0, 0.0], "6": [0.0, 1.0], "7": [1.0, 1.0]}
    kinds = np.array([5, 6, 7] * 13 + [5])
    channel = channel_of({"kind": ("embedding", kinds)}, embeddings={"kind": numbers})
    assert torch.equal(encode(channel, ["5"]), encode(channel, [1.0, 0.0]))
    classes = channel_of([str(k) for k in kinds])
    assert encode(classes, np.array([6, 5])).tolist() == [1, 0]


def test_values_of_pandas_are_given_as_they_are(run):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"dose": [0.6, 1.2], "animal": ["cow", "ant"]})
    given = {"dose": [0.6, 1.2], "animal": ["cow", "ant"]}
    found = run.sample(2, nfe=2, given=dict(frame))
    assert torch.equal(found, run.sample(2, nfe=2, given=given))


UNFIT = {
    "unknown": ({"foo": 1}, "given=foo: this run has the conditions dose, animal, bag"),
    "no name": (0.5, "given=0.5: this run has the conditions dose, animal, bag; name them"),
    "class": ({"animal": "elk"}, "animal='elk': give the number of a class, 0 to 2, or one of its"),
    "class number": ({"animal": 3}, "animal=3: give the number of a class, 0 to 2"),
    "text": ({"dose": "much"}, "dose='much': give a number"),
    "nan": ({"dose": math.nan}, "dose=nan: is not finite"),
    "size": ({"dose": [[1.0, 2.0]]}, r"dose=of shape \(1, 2\): give a number"),
    "set": ({"bag": np.ones((2, 4))}, r"bag=of shape \(2, 4\): give vectors of 3 numbers"),
    "no set": ({"bag": 0.3}, "bag=0.3: give vectors of 3 numbers"),
    "text for a set": ({"bag": ["abc"]}, "bag: give vectors of 3 numbers"),
    "rows": ({"dose": [1.0, 2.0]}, "the condition dose has 2 rows for 3 samples"),
    "rows of two": (
        {"dose": [1.0, 2.0], "animal": ["ant", "bee", "cow"]},
        "give one for all samples, or one for each",
    ),
}


@pytest.mark.parametrize(("given", "message"), UNFIT.values(), ids=UNFIT)
def test_what_a_run_has_not_learned_is_rejected(run, given, message):
    with pytest.raises(ValueError, match=message) as error:
        run.sample(3, nfe=2, given=given)
    assert "\n" not in str(error.value)


def test_a_run_without_conditions_takes_none():
    plain = sf.train(X, **SMALL)
    with pytest.raises(UsageError, match="this run has no conditions; train with some"):
        plain.sample(2, given={"dose": 1.0})
    assert torch.equal(plain.sample(2, given=None), plain.sample(2, given={}))


# --- none -----------------------------------------------------------------------------------------


def test_none_and_a_condition_that_is_left_out_are_the_same(run):
    plain = run.sample(3, nfe=3)
    for given in ({}, {"dose": None, "animal": None}, {"animal": -1}):
        assert torch.equal(run.sample(3, nfe=3, given=given), plain)
    some = run.sample(3, nfe=3, given={"dose": 1.0})
    assert torch.equal(some, run.sample(3, nfe=3, given={"dose": 1.0, "animal": -1}))
    assert not torch.equal(some, plain)


def test_every_subset_of_conditions_is_hidden_in_training():
    field = sf.Denoiser(MLP(2, 8, 1), sf.VP(), sf.V(), (2,))
    values = {"y": torch.zeros(20_000, dtype=torch.int64), "a": torch.zeros(20_000, 3)}
    from scorefield.noise import Noise

    key = Noise(0, torch.arange(20_000))
    objective = Objective(Simple(), UniformTimes())
    _, _, drawn = draw(objective, field, normal(20_000, 2), key, values, True, 0.2)
    y, a = drawn["y"] < 0, drawn["a"].isnan().any(1)
    assert torch.equal(a, drawn["a"].isnan().all(1))
    # both by 0.2, and each by 0.2 of the rest
    shares = {(True, True): 0.2 + 0.8 * 0.04, (True, False): 0.8 * 0.16, (False, True): 0.8 * 0.16}
    for (first, second), share in shares.items():
        found = float(((y == first) & (a == second)).double().mean())
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / 20_000)


# --- networks -------------------------------------------------------------------------------------

EVERY = {"y": Classes(3), "dose": Numbers(2), "bag": Vectors(3)}
IMAGE = (2, 8, 8)
NETWORKS = {
    "mlp": (lambda: MLP(6, 16, 2, conditions=EVERY), (6,)),
    "unet": (lambda: UNet(2, 8, conditions=EVERY), IMAGE),
    "song": (lambda: SongUNet(2, 8, conditions=EVERY), IMAGE),
    "adm": (lambda: ADM(2, 8, head=8, conditions=EVERY), IMAGE),
    "dit": (lambda: DiT(2, 64, 1, 32, conditions=EVERY), IMAGE),
    "unet, cross": (lambda: UNet(2, 8, conditions=EVERY, cross_attention=True), IMAGE),
    "dit, cross": (lambda: DiT(2, 64, 2, 32, conditions=EVERY, cross_attention=True), IMAGE),
}
GIVEN = {
    "y": torch.tensor([0, 1, 2, -1]),
    "dose": torch.tensor([[0.0, 1.0], [1.0, 0.0], [torch.nan] * 2, [0.5, 0.5]]),
    "bag": torch.tensor(np.where(np.arange(24).reshape(4, 2, 3) < 9, 0.3, np.nan)).float(),
}


@pytest.mark.parametrize(("make", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_each_network_takes_each_condition_row_by_row(make, shape):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = make().eval()
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    x, label = normal(1, *shape).float().expand(4, *shape), torch.zeros(4)
    with torch.no_grad():
        plain, every = network(x, label), network(x, label, **GIVEN)
        alone = network(x[1:2], label[1:2], **{name: v[1:2] for name, v in GIVEN.items()})
        torch.testing.assert_close(alone[0], every[1], rtol=1e-4, atol=1e-5)
        for name, value in GIVEN.items():
            out = network(x, label, **{name: value})
            gone = (value < 0) if name == "y" else value.isnan().flatten(1).all(1)
            assert torch.equal(out[gone], plain[gone])
            for row in (~gone).nonzero().flatten().tolist():
                assert (out[row] - plain[row]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="z: this network has no such condition; it takes y, dose"):
        network(x, label, z=GIVEN["y"])
    with pytest.raises(ValueError, match=r"dose has shape \(4, 3\): this network takes 2 number"):
        network(x, label, dose=torch.zeros(4, 3))


@pytest.mark.parametrize("name", ["mlp", "unet, cross", "dit, cross"])
def test_a_set_has_no_order_and_no_place_for_vectors_that_are_none(name):
    make, shape = NETWORKS[name]
    network = make().eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    bag, x = normal(2, 5, 3).float(), normal(2, *shape).float()
    longer = torch.cat([torch.full((2, 1, 3), torch.nan), bag[:, [3, 1, 0, 4, 2]]], 1)
    with torch.no_grad():
        one, two = (network(x, torch.zeros(2), bag=b) for b in (bag, longer))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_cross_attention_is_that_of_torch():
    """With the same weights and mask, and with one context for all samples."""
    own = CrossAttention(12, 20, 3)
    torch.nn.init.normal_(own.leave.weight)
    torch.nn.init.normal_(own.none)
    options = {"kdim": 20, "vdim": 20, "add_bias_kv": True, "batch_first": True}
    peer = torch.nn.MultiheadAttention(12, 3, **options)
    key, value = own.enter.weight.chunk(2)
    for name, weight in {"q": own.query.weight, "k": key, "v": value}.items():
        getattr(peer, f"{name}_proj_weight").data = weight.data
    peer.in_proj_bias.data = torch.cat([own.query.bias, own.enter.bias]).data
    peer.bias_k.data, peer.bias_v.data = own.none.data.chunk(2, -1)
    peer.out_proj.load_state_dict(own.leave.state_dict())
    h, vectors = normal(2, 7, 12).float(), normal(2, 5, 20, seed=1).float()
    present = torch.tensor([[False] * 5, [True, False, False, True, False]])
    with torch.no_grad():
        expected, _ = peer(own.norm(h), vectors, vectors, key_padding_mask=~present)
        torch.testing.assert_close(own(h, Context(vectors, present)), expected)
        shared = own(h, Context(vectors[1:], present[1:]))
    torch.testing.assert_close(shared[1], expected[1])


@pytest.mark.parametrize("conditions", [{}, {"dose": Numbers(2)}])
@pytest.mark.parametrize("make", [UNet, DiT])
def test_cross_attention_needs_a_set(make, conditions):
    with pytest.raises(ValueError, match="cross_attention=True: no condition is a set"):
        make(2, 64, conditions=conditions, cross_attention=True)


def test_an_image_joins_the_channels_at_the_size_of_the_sample():
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, x, label):
            seen.append(x)
            return x

    images = {"low": Images(1)}
    network = Spatial(Watched(), images, 2)
    assert Spatial.extra(images) == 2
    low = normal(2, 1, 4, 4).float()
    low[1] = torch.nan
    x = normal(2, *IMAGE).float()
    assert torch.equal(network(x, torch.zeros(2), low=low), x)
    (whole,) = seen
    assert torch.equal(whole[:, :2], x)
    expected = torch.nn.functional.interpolate(low[:1], size=(8, 8), mode="bilinear")
    assert torch.equal(whole[0, 2:3], expected[0])
    assert whole[:, 3].amax((1, 2)).tolist() == [1, 0], "whether there is an image"
    assert not whole[1, 2:].any()
    with pytest.raises(ValueError, match=r"low has shape \(2, 3, 4, 4\)"):
        network(x, torch.zeros(2), low=torch.zeros(2, 3, 4, 4))


# --- guidance -------------------------------------------------------------------------------------


class Sum(sf.ScoreField):
    """The exact field of a Gaussian whose mean is the sum of its conditions; NaN is 0."""

    def estimate(self, x, at, **condition):
        m = sum(torch.as_tensor(v).to(x).nan_to_num().reshape(-1, 1) for v in condition.values())
        share = at.alpha / (at.alpha**2 + at.sigma**2)
        return sf.Estimate.from_x0(x, at, m + share * (x - at.alpha * m))


NONE = {"a": torch.tensor(torch.nan), "b": torch.tensor(torch.nan)}


def test_each_scale_moves_the_contribution_of_its_own_condition():
    """The score is linear in the mean here, so guidance by w_a, w_b has the mean w_a a + w_b b."""
    field, x, t = Sum(sf.VP(), (1,)), normal(5, 1), 0.4
    for scales in ((1.0, 1.0), (3.0, 1.0), (1.0, 0.5), (2.0, 4.0)):
        guided = sf.ClassifierFree(field, dict(zip("ab", scales, strict=True)), negative=NONE)
        a, b = torch.tensor(0.3), torch.tensor(-0.8)
        found = guided.condition_on(a=a, b=b)(x, t).x0
        expected = field(x, t, a=scales[0] * a + scales[1] * b).x0
        torch.testing.assert_close(found, expected)
    one = sf.ClassifierFree(field, {"b": 3.0}, negative=NONE).condition_on(a=a, b=b)(x, t).x0
    torch.testing.assert_close(one, field(x, t, a=a + 3 * b).x0)


def test_scales_of_a_run_are_by_name(run):
    given = {"dose": 1.0, "animal": "bee"}
    plain = run.sample(3, nfe=3, given=given)
    ones = run.guided({"dose": 1.0, "animal": 1.0}).sample(3, nfe=3, given=given)
    torch.testing.assert_close(ones, plain)
    assert not torch.allclose(run.guided({"dose": 4.0}).sample(3, nfe=3, given=given), plain)
    with pytest.raises(UsageError, match="give a finite number for a condition of dose, animal"):
        run.guided({"size": 2.0})
    with pytest.raises(UsageError, match="give a condition, as given="):
        run.guided({"dose": 2.0}).sample(2)


# --- runs and the command line --------------------------------------------------------------------


def test_a_run_of_conditions_comes_back_from_its_folder(run, tmp_path):
    given = {"dose": [0.6, 1.9], "animal": ["cow", "ant"], "bag": SETS[:2]}
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run")
    assert again.config == run.config
    assert torch.equal(again.sample(2, nfe=3, given=given), run.sample(2, nfe=3, given=given))
    assert {key: v.shape for key, v in again.examples.items()} == {
        "dose": (64, 1),
        "animal": (64,),
        "bag": (64, 4, 3),
    }
    assert again.tune(4, tries=2, noises=16).keys() == {4}


def test_a_training_that_was_cut_goes_on_to_the_same_bits(tmp_path):
    values = {"dose": np.linspace(0.5, 2, N), "animal": NAMES, "bag": SETS}
    config = c.TrainConfig(
        conditional=True,
        network=SMALL["network"],
        optim=c.OptimConfig(steps=6, batch_size=8),
    )
    whole, again = (Training(sf.Data(X, values), config) for _ in range(2))
    for progress in whole:
        if progress.step == 3:
            whole.save_checkpoint(tmp_path)
    assert again.resume(tmp_path) == 3
    assert [progress.step for progress in again] == [4, 5, 6]
    one, two = (training.run.field.network.state_dict() for training in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = Training(sf.Data(X, values | {"animal": NAMES[::-1]}), config)
    with pytest.raises(UsageError):
        other.resume(tmp_path)


def test_names_of_columns_may_be_any(tmp_path):
    """Also names of arguments and of attributes of modules, and names with points."""
    names = ("label", "x", "type", "price.usd", "t", "eps", "denoiser", "n", "seed", "x0")
    values = {name: np.linspace(0, 1 + k, N) for k, name in enumerate(names)}
    run = sf.train(X, values, **SMALL)
    run.save(tmp_path / "run")
    given = dict.fromkeys(names, 0.5)
    again = sf.load(tmp_path / "run")
    assert torch.equal(again.sample(2, nfe=2, given=given), run.sample(2, nfe=2, given=given))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table, its vectors, the conditions of six samples, and a run of two of its columns."""
    folder = tmp_path_factory.mktemp("conditions")
    rows = [f"{0.1 * (k + 1):g},{NAMES[k]},{X[k, 0]:.4f}" for k in range(N)]
    (folder / "t.csv").write_text("\n".join(["dose,animal,size", *rows]))
    rows = [",".join([name, *map(str, vector)]) for name, vector in TABLE.items()]
    (folder / "v.csv").write_text("\n".join(["name,a,b", *rows]))
    rows = [f"{'dog' if k % 2 else 'ant'},{k + 1}" for k in range(6)]
    (folder / "g.csv").write_text("\n".join(["animal,dose", *rows]))
    small = ("--steps", 2, "--batch-size", 8, "--network.kind", "mlp", "--network.width", 8)
    columns = ("--condition", "dose=log,animal", "--embeddings", f"animal={folder / 'v.csv'}")
    finishes("train", folder / "t.csv", *columns, *small, "--out", folder / "run")
    return folder


def test_conditions_of_samples_are_columns_of_the_table_that_is_written(folder, tmp_path):
    run = sf.load(folder / "run")
    out = tmp_path / "a.csv"
    given = ("--given", "dose=0.3", "animal=dog", "--nfe", 3)
    finishes("sample", folder / "run", "--n", 2, *given, "--out", out)
    head, *rows = out.read_text().splitlines()
    assert head == "dose,animal,size"
    assert [row.split(",")[:2] for row in rows] == [["0.3", "dog"]] * 2
    table = run.sample_table(2, nfe=3, given={"dose": 0.3, "animal": "dog"})
    assert table["size"].to_pylist() == [float(row.split(",")[2]) for row in rows]
    finishes("sample", folder / "run", "--n", 6, "--given-from", folder / "g.csv", "--out", out,
             "--overwrite", "--nfe", 3)  # fmt: skip
    rows = [row.split(",")[:2] for row in out.read_text().splitlines()[1:]]
    assert rows == [[str(k + 1), "dog" if k % 2 else "ant"] for k in range(6)]
    finishes("likelihood", folder / "run", folder / "t.csv", "--ids", "0:3", "--nfe", 8,
             "--given-from", folder / "g.csv", "--out", tmp_path / "l.csv")  # fmt: skip
    data = run.read(folder / "t.csv")
    exact = run.log_prob(
        data.x[:3], nfe=8, given={"dose": [1, 2, 3], "animal": ["ant", "dog", "ant"]}
    )
    found = [float(row.split(",")[1]) for row in (tmp_path / "l.csv").read_text().splitlines()[1:]]
    np.testing.assert_allclose(found, exact.value, rtol=1e-6)


def test_a_check_takes_the_condition_of_each_item(folder, tmp_path, capsys):
    run, data = sf.load(folder / "run"), folder / "t.csv"
    dose = [round(0.1 * (k + 1), 1) for k in range(N)]
    rows = [f"{name},{value}" for name, value in zip(NAMES, dose, strict=True)]
    (tmp_path / "g.csv").write_text("\n".join(["animal,dose", *rows]))
    given = {"animal": NAMES, "dose": dose}
    assert (
        run.check(data, given=given).interpretations
        == run.check(data, conditions=given).interpretations
    )
    assert run.check(data, given=given).levels != run.check(data, given={}).levels
    end("check", folder / "run", data, "--given-from", tmp_path / "g.csv", "--n", 40)
    one = capsys.readouterr().out.partition("samples,")[2]  # after the lines of progress
    end("check", folder / "run", data, "--condition", "dose,animal", "--n", 40)
    assert capsys.readouterr().out.partition("samples,")[2] == one
    assert "as declared" in one
    assert end("check", folder / "run", data, "--given-from", folder / "g.csv") == 2
    assert "has 6 rows for 40 items" in capsys.readouterr().err


def test_scales_of_guidance_are_given_by_name_at_the_command_line(folder, tmp_path):
    out, given = tmp_path / "a.csv", {"dose": 0.3, "animal": "dog"}
    finishes("sample", folder / "run", "--n", 3, "--nfe", 3, "--given", "dose=0.3", "animal=dog",
             "--guidance", "dose=2,animal=1.5", "--out", out)  # fmt: skip
    guided = sf.load(folder / "run").guided({"dose": 2.0, "animal": 1.5})
    exact = guided.sample_table(3, nfe=3, given=given)["size"].to_pylist()
    rows = [float(row.split(",")[2]) for row in out.read_text().splitlines()[1:]]
    np.testing.assert_allclose(rows, exact)


def test_conditions_that_are_columns_are_drawn_and_written_where_none_is_given(folder, tmp_path):
    run, out = sf.load(folder / "run"), tmp_path / "a.csv"
    table = run.sample_table(200, nfe=2, seed=1)
    dose, animal = table["dose"].to_pylist(), table["animal"].to_pylist()
    pairs = {(round(0.1 * (k + 1), 6), NAMES[k]) for k in range(N)}
    assert {*zip(dose, animal, strict=True)} <= pairs, "rows of the data"
    assert len({*dose}) > 30
    given = run.drawn(range(200), seed=1)
    one = run.sample(200, nfe=2, seed=1, given=given)
    assert table["size"].to_pylist() == run.table(one, given)["size"].to_pylist()
    finishes("sample", folder / "run", "--n", 5, "--nfe", 2, "--seed", 1, "--out", out)
    head, *rows = out.read_text().splitlines()
    assert head == "dose,animal,size"
    assert [row.split(",")[1] for row in rows] == animal[:5]


def test_shards_have_the_conditions_of_their_items(folder, tmp_path):
    command = ("sample", folder / "run", "--nfe", 2, "--batch-size", 2)
    for name, given in (("given", ("--given-from", folder / "g.csv", "--n", 6)), ("n", ("--n", 9))):
        whole, shared = tmp_path / f"{name}.csv", tmp_path / f"{name}-shared.csv"
        finishes(*command, *given, "--out", whole)
        for k in range(2):
            finishes(*command, *given, "--out", shared, "--shard", f"{k}/2")
        finishes("merge", shared)
        assert shared.read_text() == whole.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            "sample run --given animal=dog --guidance animal=2,animal=1",
            2,
            "give a number, or one a",
        ),
        ("sample run --given animal=dog --guidance much", 2, "--guidance much: give a number, or"),
        ("sample run --given animal=dog --guidance size=2", 2, "a condition of dose, animal"),
        ("sample run --guidance dose=2", 2, "--guidance dose: name the condition with --given"),
        ("sample run --given dose=-1", 2, "its logarithm was learned; give numbers above 0"),
        ("sample run --given animal=elk", 2, "no such name in its table, which has ant, bee, cow"),
        ("sample run --given 3", 2, "--given 3: this run has the conditions dose, animal; write"),
        ("sample run --given dose=1 dose=2", 2, "--given dose=2: dose is given twice"),
        ("sample run --given size=1", 2, "this run has the conditions dose, animal"),
        ("sample run --given-from g.csv --n 9", 2, "6 rows, and item 8 needs one of its own"),
        ("sample run --given dose=1 --given-from g.csv --n 2", 2, "dose is given by --given, too"),
        ("sample run --given-from t.npy", 3, "t.npy: no such file"),
        ("sample run --given-from v.csv", 3, "has the columns name, a, b, and the run the"),
        ("sample run --guidance 2", 2, "name the condition with --given"),
        ("train t.csv --condition dos --out new", 3, "--condition dos: no such file, and no such"),
        (
            "train t.csv --condition animal=log --out new",
            3,
            "condition animal holds values",
        ),
        ("train t.csv --condition animal --embeddings v.csv --out new", 3, "name the condition"),
    ],
)
def test_what_the_command_line_refuses(folder, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(folder)
    assert end(*arguments.split()) == code
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert not (folder / "new").exists()


@pytest.mark.slow
def test_every_subset_of_conditions_has_its_own_distribution():
    """x = a + b + noise of independent standard normals: what is not given adds its variance."""
    g, noise, count = torch.Generator().manual_seed(0), 0.3, 4000
    a, b, eps = torch.randn(3, 8000, generator=g)
    run = sf.train(
        (a + b + noise * eps)[:, None],
        {"a": a, "b": b},
        steps=1500,
        batch_size=256,
        lr=2e-3,
        dropout=0.2,
        network=c.MLPConfig(width=64, depth=3),
        end="last",
        held_out=0.0,
    )
    for given in ({"a": 1.0}, {"b": -0.5}, {"a": 1.0, "b": -0.5}, {}):
        x = run.sample(count, nfe=12, given=given, batch_size=1000)
        variance = noise**2 + 2 - len(given)
        assert abs(float(x.mean()) - sum(given.values())) < 4 * (variance / count) ** 0.5
        assert abs(float(x.var()) / variance - 1) < 4 * (2 / count) ** 0.5
