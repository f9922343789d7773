"""Networks of the user's own at the command line, by ``--network package.module:factory``."""

import sys

import numpy as np
import pytest
import torch
from shell import failing, finishes, flags, listing, python

import scorefield as sf

MODULE = '''
import torch

import scorefield as sf

NUMBER = 3


class Net(torch.nn.Module):
    """Two layers that know nothing of diffusion."""

    def __init__(self, width=6):
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, width), torch.nn.Linear(width, 3)

    def forward(self, x, label):
        h = torch.cat([x, label.reshape(-1, 1).expand(len(x), 1)], 1)
        return self.last(torch.tanh(self.first(h)))


def make():
    torch.manual_seed(0)
    return Net()


def again():
    return make()


def wide():
    return Net(9)


def flow():
    torch.manual_seed(0)
    return sf.Denoiser(Net(), sf.Flow(), sf.Velocity(), (3,))


def raises():
    raise RuntimeError("no weights here")


def text():
    return "a network"
'''
OWN = ["--network", "mine:make"]
TRAIN = flags(steps=4, batch_size=8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with data, a module of the user's own, and runs trained with its networks."""
    folder = tmp_path_factory.mktemp("own")
    x = np.random.default_rng(0).normal(size=(40, 3)) * [1.0, 5.0, 0.2]
    np.save(folder / "x.npy", x)
    (folder / "mine.py").write_text(MODULE)
    (folder / "broken.py").write_text("import nothing_of_this_name\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        finishes("train", "x.npy", "--out", "run", *OWN, *TRAIN)
        finishes("train", "x.npy", "--out", "flow", "--network", "mine:flow", *TRAIN)
        yield folder


@pytest.fixture
def inside(files, monkeypatch):
    monkeypatch.chdir(files)
    return files


@pytest.fixture
def fails(files, capsys, monkeypatch):
    return failing(files, capsys, monkeypatch)


def test_a_run_of_ones_own_network_is_sampled_as_in_python(inside):
    import mine

    finishes("sample", "run", *OWN, "--n", 5, "--nfe", 4, "--out", "s.npy", "--overwrite")
    run = sf.load("run", network=mine.make)
    np.testing.assert_array_equal(np.load("s.npy"), run.sample(5, nfe=4).numpy())
    trained = run.field.network.first.weight
    assert not torch.equal(trained, mine.make().first.weight), "the weights of the folder"


def test_a_whole_denoiser_brings_its_process(inside):
    import mine

    finishes("sample", "flow", "--network", "mine:flow", "--n", 5, "--nfe", 4, "--out", "f.npy")
    run = sf.load("flow", network=mine.flow())
    assert isinstance(run.field.process, sf.Flow)
    np.testing.assert_array_equal(np.load("f.npy"), run.sample(5, nfe=4).numpy())


COMMANDS = [
    "likelihood run x.npy --ids 0:3 --nfe 8 --out l.csv",
    "encode run x.npy --ids 0:3 --nfe 8 --out c.npy",
    "decode run c.npy --nfe 8 --out d.npy",
    "interpolate run x.npy --pairs 0:1 --nfe 8 --out i.npy",
    "restore run x.npy --mask random:0.5 --corrupt --nfe 4 --ids 0:3 --out r.npy",
    "tune run --nfe 3 --noises 8 --tries 2",
    "compare run --nfe 4 --solvers default heun --n 32 --out f.json",
    "report run x.npy --items 2 --n 4 --out r.html",
    "info run",
]


def test_every_command_takes_the_network(inside, capsys):
    for command in COMMANDS:
        finishes(*command.split(), *OWN, *([] if "info" in command else ["--overwrite"]))
    shown = capsys.readouterr().out
    assert "--network mine:make" in shown, "in the commands that info suggests"
    assert {"l.csv", "c.npy", "d.npy", "i.npy", "r.npy", "f.json", "r.html"} <= listing(
        inside
    ).keys()
    assert (inside / "run" / "plans" / "nfe-3.json").is_file()


def test_parts_of_another_network_are_not_merged(inside, fails):
    job = ["sample", "run", "--n", 6, "--nfe", 3, "--batch-size", 2, "--out", "p.npy"]
    finishes(*job, *OWN, "--shard", "0/2")
    message = fails(2, *job, "--network", "mine:again", "--shard", "1/2")
    assert "differs in" in message
    finishes(*job, *OWN, "--shard", "1/2")
    finishes("merge", "p.npy")
    assert np.load("p.npy").shape == (6, 3)


@pytest.mark.parametrize("name", ["sample", "info", "tune --nfe 4", "report", "check", "compare"])
def test_a_folder_is_not_asked_for_code(inside, fails, monkeypatch, name):
    """Its configuration has the class for readers, and nothing is imported by that."""
    assert 'name = "mine.Net"' in (inside / "run" / "config.toml").read_text()
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    command, *rest = name.split()
    message = fails(2, command, "run", *rest)
    assert "--network: the network of this run is your own ('mine.Net')" in message
    assert "mine" not in sys.modules


BAD = [
    ("mine", "--network mine: give package.module:name"),
    ("nix:make", "--network nix:make: nix cannot be imported: ModuleNotFoundError"),
    ("broken:make", "broken cannot be imported: ModuleNotFoundError: No module named 'nothing"),
    ("mine:nix", "--network mine:nix: module mine has no attribute nix"),
    ("mine:NUMBER", "--network mine:NUMBER: its type is int, which is not callable"),
    ("mine:raises", "the factory raised RuntimeError: no weights here"),
    ("mine:text", "the factory returned a str: return a torch.nn.Module or a Denoiser"),
]


@pytest.mark.parametrize(("network", "says"), BAD)
def test_a_factory_of_no_network_is_refused_in_one_line(fails, network, says):
    assert says in fails(2, "sample", "run", "--network", network)
    if ":" in network:
        assert says in fails(2, "train", "x.npy", "--out", "new", "--network", network)


def test_a_network_of_other_shapes_is_refused(fails):
    assert "first.weight" in fails(4, "sample", "run", "--network", "mine:wide")


def test_modules_of_the_working_directory_are_found_by_the_installed_command(files, tmp_path):
    out = tmp_path / "x.npy"
    code = "import sys; sys.path.remove(''); from scorefield.cli import main; main(sys.argv[1:])"
    words = ["sample", "run", *OWN, "--n", 2, "--nfe", 3, "--out", out]
    done = python("-c", code, *words, cwd=files)
    assert (done.returncode, done.stderr) == (0, "")
    assert np.load(out).shape == (2, 3)


def test_an_own_solver_is_certified(inside, capsys):
    (inside / "rules.py").write_text(
        "import scorefield as sf\n\ndef make():\n    return sf.Heun()\n"
    )
    finishes("certify", "rules:make", "--out", "table.md")
    text = (inside / "table.md").read_text()
    assert text.count("\n| make | 2 |") == 1
    assert "certificates pass" in capsys.readouterr().out
