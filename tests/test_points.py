"""Points of spaces in the columns of data: their units, their runs and their commands."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from shell import content, end, failing, finishes

import scorefield as sf
from scorefield.data.config import PointsConfig
from scorefield.data.points import Points, declared, described
from scorefield.runs.trainer import Training
from scorefield.spaces import SO3, Euclidean, Product, Sphere, Torus, name_of, parse
from scorefield.training.config import TrainConfig

F64 = torch.float64
NETWORK = ["--network", "mlp", "--network.width", "8", "--network.depth", "1"]


def points(space, count, angles=None, **changes):
    config = declared(space, count, angles, "data")
    return Points(config.model_copy(update=changes), (count,))


def rotations(count=50):
    return Rotation.random(count, random_state=0)


def spread(space, count):
    return space.uniform(sf.Noise(3, torch.arange(count)), torch.zeros(count, 1, dtype=F64))[0]


def test_latitudes_and_longitudes_are_those_of_a_globe():
    encoding = points("sphere", 2)
    x = torch.tensor([[0.0, 0.0], [0.0, 90.0], [90.0, 12.0], [-30.0, 180.0]], dtype=F64)
    truth = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [-math.sqrt(0.75), 0, -0.5]]
    assert (encoding.base(x) - torch.tensor(truth, dtype=F64)).abs().max() < 1e-15
    radians = points("sphere", 2, "radians")
    assert (radians.base(x * math.pi / 180) - encoding.base(x)).abs().max() < 1e-15


@pytest.mark.parametrize(
    ("form", "columns"),
    [
        ("quaternion", lambda r: r.as_quat(scalar_first=True)),
        ("matrix", lambda r: r.as_matrix().reshape(-1, 9)),
        ("euler", lambda r: r.as_euler("ZYX", degrees=True)),
    ],
)
def test_rotations_are_those_of_scipy(form, columns):
    x = torch.from_numpy(np.ascontiguousarray(columns(rotations())))
    encoding = points(f"so3:{form}", x.shape[1], "degrees")
    truth = torch.from_numpy(rotations().as_matrix())
    assert (encoding.base(x) - truth).abs().max() < 1e-14
    back = encoding.inverse(truth)
    assert (encoding.base(back) - truth).abs().max() < 1e-13
    sign = torch.sign((x * back).sum(1, keepdim=True)) if form == "quaternion" else 1.0
    assert (sign * back - x).abs().max() < 1e-10


def test_columns_come_back_in_their_units_and_turns():
    space = "sphere:latlon,torus:2,euclidean:1"
    x = torch.tensor([[10.0, 350.0, -170.0, 5.0, 7.5], [-80.0, 0.5, 20.0, 355.0, -2.0]])
    for angles, unit in (("degrees", 1.0), ("radians", math.pi / 180)):
        units = torch.tensor([unit] * 4 + [1.0])
        data = sf.read(x * units, space=space, angles=angles)
        assert data.points.positive == (1, 3)
        encoding = Points(data.points, data.shape)
        assert (encoding.inverse(encoding.base(data.x)) - x * units).abs().max() < 1e-4


@pytest.mark.parametrize("space", [Sphere(3), Torus(2), SO3(), Product(SO3(), Euclidean(3))])
def test_spaces_have_names(space):
    assert parse(name_of(space)) == space
    assert name_of(Product(Product(Torus(1), Torus(1)), SO3())) is None
    config = declared(space, math.prod(space.shape), None, "data")
    assert declared(described(config), math.prod(space.shape), config.angles, "data") == config


def test_forms_of_many_parts_are_counted_without_trying_all():
    """A part takes 3, 4 or 9 columns: 12 parts take 37 in 12 ways, the first of them late."""
    for count, forms in ((36, ("euler",) * 12), (108, ("matrix",) * 12)):
        assert declared(",".join(["so3"] * 12), count, "degrees", "data").forms == forms
    with pytest.raises(ValueError, match="several forms fit"):
        declared(",".join(["so3"] * 12), 37, "degrees", "data")


@pytest.mark.parametrize(
    ("space", "angles", "row", "message"),
    [
        ("sphere", None, [91.5, 3.0], r"item 2, column 0: 91.5, .* at most 90 degrees"),
        ("sphere", None, [1.0, 400.0], r"item 2, column 1: 400, .* at most 360 degrees"),
        ("sphere", "radians", [1.0, 40.0], r"item 2, column 1: 40, .* at most 6.28319 radians"),
        ("torus:2", "radians", [90.0, 0.0], r"item 2, column 0: 90, .* radians"),
        ("torus:2", "degrees", [0.0, math.nan], r"first at index \(2, 1\): nan"),
        ("sphere", None, [0.0, 0.5, 0.5], r"item 2, columns 0, 1, 2: .* of length 1"),
        ("so3", None, [1.0, 0.0, 0.0, 0.1], r"item 2, columns 0, 1, 2, 3: .* quaternion"),
        ("so3", None, [1.0, 0, 0, 0, 1, 0, 0, 0, -1], r"item 2, .* rotation matrix"),
        ("torus:2", None, [1.0, 2.0], "give angles, degrees or radians"),
        ("sphere,so3", None, [0.0] * 6, "several forms fit"),
        ("sphere", None, [0.0] * 4, r"do not fit: sphere:2 has 3 columns \(xyz\) or 2"),
        ("blob", None, [0.0] * 2, "give sphere, torus:2"),
        ("sphere:quaternion", None, [0.0] * 4, "they do not fit"),
        ("torus:2", "grades", [1.0, 2.0], "angles='grades'"),
        (Product(Sphere(2), Torus(1)), None, [0.0] * 3, "give angles, degrees or radians"),
        (",".join(["torus"] * 200), "degrees", [0.0] * 200, "a name of 1599 characters"),
    ],
)
def test_columns_that_are_not_points_are_rejected_with_their_row(space, angles, row, message):
    valid = torch.zeros(1, len(row))
    valid[0, 0] = 1.0
    if len(row) == 9:
        valid = torch.eye(3).reshape(1, 9)
    x = torch.cat([valid, -valid if len(row) in (2, 3) else valid, torch.tensor([row])])
    with pytest.raises(ValueError, match=message):
        sf.read(x, space=space, angles=angles)


def test_a_table_of_points_is_rejected_with_row_and_column(tmp_path):
    path = tmp_path / "quakes.csv"
    path.write_text("place,lat,lon\na,10,20\nb,11,21\nc,95,22\n")
    with pytest.raises(ValueError, match="item 2, column lat: 95"):
        sf.read(path, space="sphere", columns="lat,lon")
    with pytest.raises(ValueError, match="has no such column"):
        sf.read(path, space="sphere", columns="lat,long")
    with pytest.raises(ValueError, match="column place: it holds values of type string"):
        sf.read(path, space="sphere:xyz")
    path.write_text("lat,lon,depth\n10,20,5\n11,21,5\n")
    with pytest.raises(ValueError, match="column depth: its values are all 5"):
        sf.read(path, space="sphere,euclidean:1")
    assert len(sf.read(path, space="sphere,euclidean:1", learn=False).x) == 2
    path.write_text("lat,lon\n10,20\n,21\n")
    with pytest.raises(ValueError, match="item 1, column lat"):
        sf.read(path, space="sphere")


def test_the_order_of_columns_is_noted_and_names_of_another_are_rejected(tmp_path):
    path, turns = tmp_path / "quakes.csv", tmp_path / "turns.csv"
    for first, second in (("lon", "lat"), ("Longitude", "y"), ("a", "Latitude")):
        path.write_text(f"{first},{second}\n1,2\n3,4\n")
        with pytest.raises(ValueError, match="latitude, then longitude, but their names say"):
            sf.read(path, space="sphere")
    path.write_text("lat,lon\n1,2\n3,4\n")
    small = "angles are read as degrees, though none is beyond 6.2832; angles declares radians"
    notes = sf.read(path, space="sphere").notes
    assert notes[-2:] == ("latitude = lat, longitude = lon, in degrees", small)
    assert sf.read(path, space="sphere", angles="degrees").notes == notes[:-1]
    path.write_text("lat,lon\n1,2\n3,7\n")
    assert small not in sf.read(path, space="sphere").notes
    turns.write_text("qx,qy,qz,qw\n1,0,0,0\n0,1,0,0\n")
    with pytest.raises(ValueError, match="w, x, y, z of a quaternion, but"):
        sf.read(turns, space="so3")
    order = sf.read(turns, space="so3", columns="qw,qx,qy,qz")
    assert order.notes[-1] == "quaternion w, x, y, z = qw, qx, qy, qz"


def tiny(x, steps=20, **settings):
    network = {"kind": "mlp", "width": 16, "depth": 1}
    return sf.train(x, steps=steps, network=network, **settings)


def test_numbers_next_to_directions_are_standardized_and_keep_their_density(tmp_path):
    """A density of numbers in other units differs by the logarithm of the unit."""
    where, depth = spread(Sphere(2), 60), torch.randn(60, 1, dtype=F64) + 4
    encoding = points("sphere", 2)
    runs = []
    for unit in (1.0, 1024.0):
        x = torch.cat([encoding.inverse(where), unit * depth], 1).float()
        runs.append((tiny(x, space="sphere,euclidean:1"), x))
    (one, x), (other, y) = runs
    gap = one.log_prob(x[:3], nfe=24).value - other.log_prob(y[:3], nfe=24).value
    assert (gap - math.log(1024)).abs().max() < 1e-3
    samples = one.sample(5)
    assert (other.sample(5) / torch.tensor([1.0, 1.0, 1024.0]) - samples).abs().max() < 0.01
    assert (samples[:, 0].abs() <= 90).all()
    one.save(tmp_path / "run")
    again = sf.load(tmp_path / "run")
    assert again.field.process.space == Product(Sphere(2), Euclidean(1))
    assert torch.equal(again.sample(5), samples)


@pytest.mark.parametrize("space", [Torus(2), SO3(), Product(SO3(), Euclidean(2))], ids=str)
def test_a_run_keeps_its_space_and_a_sample_does_not_depend_on_its_batch(tmp_path, space):
    process = sf.spaces.Brownian(space)
    z, _ = sf.Noise(1, torch.arange(80)).draw(space.shape, torch.zeros(1, dtype=F64))
    run = tiny(process.prior(0.0, 1.0, torch.tensor(1.0)).draw(z).float(), 5, space=space)
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run")
    assert again.field.process == process
    for solver in (sf.Heun(), sf.EulerMaruyama()):
        batch = again.sample(7, solver, 6, batch_size=3)
        space.check(batch)
        alone = again.sample([5], solver, 6, batch_size=3)
        assert torch.equal(alone[0], batch[5])


def test_a_network_of_your_own_is_one_of_coordinates(tmp_path):
    x = spread(Sphere(2), 40).float()
    network = sf.networks.MLP(3, 8, 1)
    run = sf.train(x, space="sphere", network=network, steps=3)
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run", network=sf.networks.MLP(3, 8, 1))
    assert torch.equal(again.sample(3), run.sample(3))
    with pytest.raises(ValueError, match="network=None"):
        sf.load(tmp_path / "run")
    wrapped = sf.Run.of(run.field, x)
    assert wrapped.config.data.points == PointsConfig(space="sphere:2", forms=("xyz",))
    assert torch.equal(wrapped.sample(3), run.sample(3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"process": "vp"}, "process=vp"),
        ({"parametrization": "x0"}, "parametrization=x0"),
        ({"network": "unet"}, "network=unet"),
        ({"coupling": "ot"}, "coupling=ot"),
        ({"levels": 9}, "levels=9"),
        ({"network": {"kind": "mlp", "components": 2}}, "network.components=2"),
        ({"process": {"kind": "brownian", "space": "torus:3"}}, "process.space='torus:3'"),
        ({"to": torch.eye(3)}, "translations add vectors"),
        ({"process": {"kind": "brownian", "t_min": 0.003}}, r"t_min=0.003: .* 0.0032 or more"),
    ],
)
def test_settings_without_meaning_on_a_space_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        sf.train(spread(Sphere(2), 20).float(), space="sphere", **{"steps": 2, **settings})


def test_spheres_of_many_dimensions_need_a_later_first_time():
    x = spread(Sphere(4), 40).float()
    with pytest.raises(ValueError, match=r"process.t_min=0.01: .* give 0.55 or more"):
        tiny(x, 2, space="sphere:4")
    run = tiny(x, 2, space="sphere:4", process={"kind": "brownian", "t_min": 0.55})
    Sphere(4).check(run.sample(3, nfe=4))


def test_data_in_memory_and_sets_by_name_are_points_too():
    x = spread(Sphere(2), 30).float()
    one = tiny(sf.Data(x), 3, space="sphere")
    other = tiny(sf.read(x, space="sphere"), 3)
    assert one.config.data.points == other.config.data.points != PointsConfig()
    assert torch.equal(one.sample(3), other.sample(3))
    assert sf.read("moons", space="torus:2", angles="radians").points.forms == ("angles",)


def test_a_table_that_was_read_without_its_space_is_rejected(quakes):
    table = sf.read(quakes, without="place")
    for settings in ({"space": "sphere"}, {"process": {"kind": "brownian", "space": "sphere"}}):
        with pytest.raises(ValueError, match="read as a table without a space"):
            sf.train(table, steps=2, **settings)


def test_advice_on_data_of_points_suits_points(quakes, capsys):
    quakes.write_text("lat,lon\n1,20\n0,30\n")
    finishes("data", "inspect", quakes, "--space", "sphere")
    shown = " ".join(capsys.readouterr().out.split())
    assert "levels" not in shown
    assert "each feature of the Euclidean parts of sphere:2" in shown
    with pytest.raises(ValueError, match="names of columns are those of points, which need space"):
        sf.read(quakes, columns="lat,lon")
    quakes.write_text("lat,lon\n1,20\n,30\n")
    with pytest.raises(ValueError, match=r'Use missing="drop" \(without these items\)\.'):
        sf.read(quakes, space="sphere")
    with pytest.raises(ValueError, match='or missing="keep"'):
        sf.read(quakes, missing="refuse")


def test_angles_without_a_space_are_rejected():
    for function in (sf.read, sf.train):
        with pytest.raises(ValueError, match=r"angles='degrees': .* give it too"):
            function(torch.rand(9, 2), angles="degrees")


def test_brownian_motion_needs_a_space():
    with pytest.raises(ValueError, match="process=brownian: give the space"):
        Training(sf.Data(torch.randn(9, 3)), TrainConfig(process={"kind": "brownian"}))


@pytest.fixture
def quakes(tmp_path):
    rng = np.random.default_rng(0)
    rows = zip(rng.normal(30, 20, 300).clip(-89, 89), rng.normal(0, 30, 300) % 360, strict=True)
    text = "".join(f"p{k},{a:.4f},{b:.4f}\n" for k, (a, b) in enumerate(rows))
    (tmp_path / "quakes.csv").write_text("place,lat,lon\n" + text)
    return tmp_path / "quakes.csv"


def test_commands_train_on_columns_and_write_samples_with_them(quakes, tmp_path, capsys):
    run, columns = tmp_path / "run", ["--space", "sphere", "--columns", "lat,lon"]
    finishes("train", quakes, *columns, *NETWORK, "--steps", 30, "--out", run)
    finishes("info", run)
    assert "sphere:2 as latlon, in degrees" in capsys.readouterr().out
    finishes("sample", run, "--n", 40, "--nfe", 8, "--out", tmp_path / "new.csv")
    lines = (tmp_path / "new.csv").read_text().splitlines()
    assert lines[0] == "lat,lon"
    values = np.array([line.split(",") for line in lines[1:]], float)
    assert values[:, 1].min() >= 0
    assert 180 < values[:, 1].max() <= 360
    assert np.abs(values[:, 0]).max() <= 90
    finishes("encode", run, quakes, "--ids", "0:3", "--nfe", 160, "--out", tmp_path / "codes.npy")
    finishes("decode", run, tmp_path / "codes.npy", "--nfe", 160, "--out", tmp_path / "back.csv")
    back = np.genfromtxt(tmp_path / "back.csv", delimiter=",", skip_header=1)
    truth = np.genfromtxt(quakes, delimiter=",", skip_header=1, usecols=(1, 2))[:3]
    assert np.abs(back - truth).max() < 1
    out = tmp_path / "nats.csv"
    finishes("likelihood", run, quakes, "--ids", "0:3", "--nfe", 40, "--out", out)
    nats = np.genfromtxt(out, delimiter=",", names=True)["log_prob"]
    items = sf.load(run).log_prob(sf.load(run).read(quakes).x[:3], nfe=40).value
    assert np.abs(nats - items.numpy()).max() < 1e-3
    finishes("report", run, quakes, "--held-out")
    assert "--space sphere:2:latlon --angles degrees" in (run / "report.html").read_text()
    again = ["train", quakes, *columns, "--config", run / "config.toml", "--out", tmp_path / "b"]
    finishes(*again)
    assert torch.equal(sf.load(tmp_path / "b").sample(4), sf.load(run).sample(4))
    table = tmp_path / "two.csv"  # whose space the settings name
    lines = quakes.read_text().splitlines()
    table.write_text("\n".join(line.partition(",")[2] for line in lines))
    for settings in (
        ["--config", run / "config.toml"],
        ["--process.kind", "brownian", "--process.space", "sphere", *NETWORK, "--steps", 2],
    ):
        finishes("train", table, *settings, "--out", tmp_path / f"c{len(settings)}")
    assert torch.equal(sf.load(tmp_path / "c2").sample(4), sf.load(run).sample(4))


def test_samples_have_the_columns_of_their_conditions(tmp_path):
    rows = [f"{10 * k % 80},{7 * k},{'ab'[k % 2]},{k + 0.5}" for k in range(30)]
    path, new = tmp_path / "q.csv", tmp_path / "new.csv"
    path.write_text("\n".join(["lat,lon,kind,depth", *rows]))
    columns = ["--space", "sphere", "--columns", "lat,lon", "--condition", "kind,depth"]
    finishes("train", path, *columns, *NETWORK, "--steps", 2, "--out", tmp_path / "run")
    given = ["--given", "kind=b", "depth=7.5"]
    finishes("sample", tmp_path / "run", "--n", 3, "--nfe", 4, *given, "--out", new)
    first, *others = (line.split(",") for line in new.read_text().splitlines())
    assert first == ["lat", "lon", "kind", "depth"]
    assert [(kind, float(depth)) for *_, kind, depth in others] == [("b", 7.5)] * 3


def test_a_training_on_a_space_resumes_bit_for_bit(quakes, tmp_path, monkeypatch):
    command = ["train", quakes, "--space", "sphere", "--columns", "lat,lon", *NETWORK]
    command += ["--steps", 12, "--checkpoint-every", 4, "--evaluate-every", 6]
    finishes(*command, "--out", tmp_path / "whole")
    save, steps = Training.save_checkpoint, []

    def stop(self, folder, *arguments):
        save(self, folder, *arguments)
        steps.append(self.fit.step)
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "save_checkpoint", stop)
    assert end(*command, "--out", tmp_path / "parts") != 0
    monkeypatch.undo()
    finishes(*command, "--out", tmp_path / "parts")
    assert steps == [4]
    whole, parts = (content(tmp_path / name) for name in ("whole", "parts"))
    assert whole["model.safetensors"] == parts["model.safetensors"]
    assert whole["config.toml"] == parts["config.toml"]


def test_commands_without_meaning_on_a_space_fail_by_name(quakes, tmp_path, capsys, monkeypatch):
    columns = ["--space", "sphere", "--columns", "lat,lon"]
    finishes("train", quakes, *columns, *NETWORK, "--steps", 2, "--out", tmp_path / "run")
    (tmp_path / "holes.csv").write_text("lat,lon\n,20\n10,\n")
    fails = failing(tmp_path, capsys, monkeypatch)
    for command in (
        ["tune", "run", "--nfe", 5],
        ["compare", "run", "quakes.csv", "--held-out"],
        ["check", "run"],
        ["audit", "run", "quakes.csv"],
        ["restore", "run", "holes.csv"],
        ["interpolate", "run", "quakes.csv", "--pairs", "0:1"],
        ["likelihood", "run", "quakes.csv", "--bound"],
    ):
        assert "adds vectors" in fails(2, *command)
    assert "cannot step on a manifold" in fails(2, "sample", "run", "--solver", "multistep")
    (tmp_path / "off.npy").write_bytes(b"")
    np.save(tmp_path / "off.npy", np.ones((2, 3), np.float32))
    assert "not a point of Sphere" in fails(2, "decode", "run", "off.npy")
    new = ["train", "quakes.csv", "--out", "new", *columns]
    assert "--process vp" in fails(2, *new, "--process", "vp")
    assert "--to quakes.csv: translations" in fails(2, *new, "--to", "quakes.csv")
