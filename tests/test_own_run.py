"""Runs of a network and a process of one's own: saved, loaded again, and used like all others."""

import subprocess
import sys

import own_networks
import pyarrow
import pytest
import torch
from own_networks import Net, Straight

import scorefield as sf
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.field import digest
from scorefield.runs.folder import config_text

DATA = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 0.5])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was trained on an own process, and its folder."""
    run = sf.train(DATA, network=Net(), process=Straight(), lr=5e-3, steps=300, held_out=0.2)
    folder = tmp_path_factory.mktemp("own") / "run"
    run.save(folder)
    return run, folder


def load(folder):
    """Return the run of a folder, with the network and the process it was trained with."""
    return sf.load(folder, network=Net, process=Straight())


def refusal(folder, error, **objects):
    """Return the message with which a folder is rejected."""
    with pytest.raises(error) as caught:
        sf.load(folder, **objects)
    return str(caught.value)


def test_a_run_comes_back_bit_for_bit(trained):
    run, folder = trained
    again = load(folder)
    assert again.config == run.config
    assert torch.equal(again.sample(5, nfe=6), run.sample(5, nfe=6))
    assert torch.equal(again.log_prob(DATA[:4], nfe=10).value, run.log_prob(DATA[:4], nfe=10).value)
    assert again.field.network.again is again.field.network.enter


def test_samples_and_densities_are_those_of_the_data(trained):
    run, _ = trained
    x = run.sample(2000, nfe=10)
    torch.testing.assert_close(x.std(0), DATA.std(0), rtol=0.15, atol=0)
    gaussian = torch.distributions.Normal(torch.zeros(2), torch.tensor([2.0, 0.5]))
    exact = gaussian.log_prob(DATA[:64]).sum(1).mean()
    assert float(run.log_prob(DATA[:64]).value.mean()) == pytest.approx(float(exact), abs=0.25)


@pytest.mark.parametrize("network", [Net, own_networks.denoiser, Net()], ids=["class", "f", "self"])
def test_a_network_is_passed_as_a_module_or_as_its_factory(trained, network):
    whole = network is own_networks.denoiser
    objects = {} if whole else {"process": Straight()}
    again = sf.load(trained[1], network=network, **objects)
    assert torch.equal(again.sample(3, nfe=4), trained[0].sample(3, nfe=4))


def test_everything_serves_it(trained):
    """Codes, restoration, tuned plans, the frontier, the check and tables."""
    run = load(trained[1])
    codes = run.encode(DATA[:3])
    torch.testing.assert_close(run.decode(codes).x, DATA[:3], atol=1e-3, rtol=0)
    assert run.interpolate(DATA[:1], DATA[1:2], points=3).x.shape == (1, 3, 2)
    measured = DATA[:2].clone()
    measured[:, 1] = torch.nan
    restored = run.restore(measured, n=2)
    assert torch.equal(restored[:, :, 0], DATA[:2, :1].expand(2, 2))
    assert run.sample_table(4).column_names == ["0", "1"]


def test_another_process_of_the_system_loads_it(trained):
    """In a script, whose own class is `__main__.Net`, the same field has the same plans."""
    _, folder = trained
    path = f"{own_networks.__file__}"
    code = (
        f"exec(open({path!r}).read())\n"
        f"run = sf.load({str(folder)!r}, network=Net, process=Straight())\n"
        "from scorefield.field import digest\n"
        "print(digest(run.field), run.sample(3, nfe=5).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    run = load(folder)
    assert done.stdout.strip() == f"{digest(run.field)} {run.sample(3, nfe=5).tolist()}"


def test_a_missing_object_is_asked_for_by_its_argument(trained):
    folder = trained[1]
    assert refusal(folder, UsageError).startswith("network=None: the network of this run is your")
    message = refusal(folder, UsageError, network=Net)
    assert message.startswith("process=None")
    assert f"load('{folder}', process=...)" in message


def test_objects_that_are_not_those_of_the_run_are_rejected(trained):
    folder, own = trained[1], {"network": Net, "process": Straight()}
    assert "of kind custom" in refusal(folder, UsageError, **own | {"process": sf.VP()})
    assert "of kind preconditioned" in refusal(folder, UsageError, **own, parametrization=sf.V())
    message = refusal(folder, CheckpointError, **own | {"network": Net(8)})
    assert "has shape (16, 3), but network=Net describes (8, 3)" in message
    message = refusal(folder, UsageError, **own | {"network": own_networks.number})
    assert message.startswith("network=<function number")
    message = refusal(folder, UsageError, **own | {"network": torch.nn.Linear})
    assert message.endswith("pass an instance, Linear(...).")
    other = torch.nn.Identity()
    assert "does not match network=Identity" in refusal(
        folder, CheckpointError, **own | {"network": other}
    )


def test_nothing_that_a_folder_names_is_imported(trained, tmp_path):
    """A name is information; a folder that names a function of the system is not believed."""
    run, folder = trained
    text = (folder / "config.toml").read_text()
    copy = tmp_path / "hostile"
    run.save(copy)
    (copy / "SHA256SUMS").unlink()
    for name in ("os:system", "own_networks.Net", "tests.evil_module:run"):
        (copy / "config.toml").write_text(text.replace("own_networks.Net", name))
        assert name in refusal(copy, UsageError)
        assert torch.equal(load(copy).sample(2, nfe=4), run.sample(2, nfe=4))
    assert "tests.evil_module" not in sys.modules


def test_weights_that_are_not_finite_are_rejected(trained, tmp_path):
    network = Net()
    network.leave.bias.data.fill_(torch.inf)
    sf.Run.of(sf.Denoiser(network, Straight(), sf.X0(), (2,))).save(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"network.leave.bias holds values that are not fin"):
        load(tmp_path / "run")


def test_a_run_of_any_denoiser_has_the_units_of_its_data(tmp_path):
    denoiser = own_networks.denoiser()
    run = sf.Run.of(denoiser, DATA + 3, held_out=0.25, seed=2)
    assert run.config.data.count == 400
    torch.testing.assert_close(run.field.mean, DATA.mean(0) + 3, atol=1e-4, rtol=0)
    torch.testing.assert_close(run.field.variance, DATA.var(0, correction=0), rtol=1e-4, atol=0)
    assert torch.equal(run.to_field(DATA), DATA)
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run", network=denoiser)
    assert again.config == run.config
    assert len(again.folder.held_out(sf.Data(DATA))) == 100


def test_a_run_without_data_keeps_the_moments_of_its_field(tmp_path):
    denoiser = sf.Denoiser(Net(), sf.VP(), sf.V(), (2,), 1.0, 4.0)
    run = sf.Run.of(denoiser, name="simulations")
    assert run.config.data.name == "simulations"
    assert float(torch.as_tensor(run.field.variance).mean()) == 4
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run", network=Net)
    assert again.field.process == sf.VP()
    assert again.field.parametrization == sf.V()
    assert torch.equal(again.sample(3), run.sample(3))


def test_a_table_of_an_own_network_has_its_columns(tmp_path):
    path = tmp_path / "birds.csv"
    path.write_text("size,kind\n" + "1.5,gull\n2.5,tern\n3.25,gull\n" * 6)
    run = sf.train(path, steps=1, network=own_networks.Constant())
    table = run.sample_table(9)
    assert table.schema == pyarrow.schema({"size": "float64", "kind": "string"})
    assert set(table["kind"].to_pylist()) <= {"gull", "tern"}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: sf.Run.of(own_networks.denoiser(), torch.randn(9, 3)), "denoiser: its samples"),
        (lambda: sf.Run.of(own_networks.denoiser(), conditional=True), "conditional=True: pass"),
    ],
)
def test_a_denoiser_that_does_not_fit_its_data_is_rejected(make, match):
    with pytest.raises((ValueError, UsageError), match=match):
        make()


def test_weights_that_a_folder_cannot_hold_are_rejected_when_saved(tmp_path):
    denoiser = sf.Denoiser(Net().bfloat16(), Straight(), sf.X0(), (2,))
    with pytest.raises(UsageError, match=r"network.enter.weight has type torch.bfloat16"):
        sf.Run.of(denoiser).save(tmp_path / "run")


def test_plans_of_a_run_follow_it_into_its_folder(trained, tmp_path):
    """In memory, then in the folder; `sample` uses them, and a search is not made twice."""
    run = sf.Run.of(own_networks.denoiser(), DATA)
    plans = run.tune([4, 5], tries=10, noises=32)
    assert run.plan(4) is plans[4]
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run", network=own_networks.denoiser())
    again.field.network.load_state_dict(run.field.network.state_dict())
    assert list(again.plans) == [4, 5]
    assert torch.equal(again.sample(3, nfe=4), sf.sample(run.field, 3, plans[4]))
    errors = []
    more = again.tune([4, 6], tries=10, polish=0, noises=32, progress=errors.append)
    assert len(errors) == 10, "the plan of 4 calls was there"
    assert errors == sorted(errors, reverse=True)
    assert list(again.plans) == [4, 5, 6]
    assert more[4].tuning.error == plans[4].tuning.error
    assert again.plan(7).tuning is None


def test_a_run_is_printed_in_one_line(trained):
    run = load(trained[1])
    text = repr(run)
    assert "\n" not in text
    assert len(text) < 250
    assert text.startswith(f"Run({run.config.data.name!r}, shape={run.config.data.shape}")
    assert repr(run.field.process) in text
    assert f"folder={str(trained[1])!r}" in text
    assert text == str(run)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("sample", {"plan": 3}), ("compare", {"solvers": 3}), ("check", {"m": 3})],
)
def test_an_unknown_argument_names_the_method(trained, name, arguments):
    argument = next(iter(arguments))
    with pytest.raises(TypeError, match=rf"Run\.{name}\(\) got an unexpected .*'{argument}'"):
        getattr(trained[0], name)(**({"n": 2} if name == "sample" else {}), **arguments)
    with pytest.raises(TypeError, match=r"write_report\(\) got an unexpected .*'itemss'"):
        sf.write_report(trained[0], itemss=3)


def test_a_run_is_compared_with_held_out_data_and_checked(trained):
    run = load(trained[1])
    frontier = run.compare(DATA, held_out=True, nfe=[6], n=32)
    assert {"default", "heun", "ddpm"} <= {point.name for point in frontier.points}
    kept = run.folder.frontier(run.field)
    assert [p.error for p in kept.points] == [p.error for p in frontier.points]
    only = run.compare(plans={"mine": sf.default_plan(run.field, 4)}, n=32)
    assert [(p.name, p.nfe) for p in only.points] == [("mine", 4)]
    assert run.check(DATA).declared.error < 1.05
    with pytest.raises(UsageError, match=r"data=.*the training data of the run"):
        run.compare("data")


def test_a_run_spends_network_calls_on_the_steps_of_a_solver(trained):
    run, _ = trained
    # four steps of two calls each, and the denoiser at the end
    assert torch.equal(run.sample(3, sf.Heun(), nfe=9), run.sample(3, sf.Heun(), 4))


def test_a_run_that_was_imported_does_not_change_how_others_are_saved(tmp_path):
    run = sf.Run.of(own_networks.denoiser(), DATA, seed=2)
    before = config_text(run.config)
    config_text(run.config.model_copy(update={"source": "elsewhere"}))
    assert config_text(run.config) == before
