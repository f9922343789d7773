"""Plans and schedulers of diffusers on the network of a pipeline, against its own loop."""

from functools import partial
from pathlib import Path

import pytest
import torch

import scorefield as sf

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tiny_pipelines import build, ddim  # noqa: E402

from scorefield.interop import pipeline_schedulers  # noqa: E402
from scorefield.interop.diffusers import compare, tune  # noqa: E402
from scorefield.report import frontier_chart  # noqa: E402
from scorefield.tuning.frontier import Frontier, measure  # noqa: E402

N, CALLS = 4, 5
EXAMPLE = Path(__file__).parents[1] / "examples" / "pipeline.py"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Paths of few steps, which are the same for all that are compared."""
    monkeypatch.setattr(measure, "NODES", 12)


def asked(name):
    """Return a tiny pipeline, and the arguments of a call without the prompt."""
    pipeline, call = build(name)
    return pipeline, {k: v for k, v in call.items() if k not in ("prompt", "output_type")}


def noises(field):
    return sf.Noise(0, torch.arange(N)).draw(field.shape, torch.empty(0))[0]


def test_ddim_of_diffusers_has_the_error_of_ours_on_the_same_grid():
    pipeline, call = asked("sd")
    before = dict(vars(pipeline))
    theirs = ddim(timestep_spacing="trailing", set_alpha_to_one=True)
    theirs.set_timesteps(CALLS)
    ours = sf.Plan(sf.DDIM(), theirs.timesteps.double())
    options = {"plans": {"ours": ours}, "schedulers": {"theirs": theirs}, "n": N}
    found = compare(pipeline, "a fox", CALLS, **options, **call)
    errors = {point.name: point.error.value for point in found.points}
    assert [point.nfe for point in found.points] == [CALLS, CALLS]
    assert errors["theirs"] == pytest.approx(errors["ours"], rel=1e-4)
    field = sf.interop.diffusers.field(pipeline, "a fox", **call)
    alone = sf.frontier(field, {"ours": ours}, n=N).points[0].error.value
    assert errors["ours"] == pytest.approx(alone, rel=1e-4)
    assert vars(pipeline) == before


@pytest.mark.filterwarnings("ignore:__array__")  # of diffusers
@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sd", "EulerDiscreteScheduler", {"use_karras_sigmas": True}),  # in another scale
        ("flux", "FlowMatchEulerDiscreteScheduler", {}),  # of a dynamic shift
    ],
)
def test_a_scheduler_ends_where_it_does_in_the_pipeline(name, kind, settings):
    pipeline, call = asked(name)
    scheduler = getattr(diffusers, kind).from_config(pipeline.scheduler.config, **settings)
    prompts = ["a fox", "zebra!"]
    found = compare(pipeline, prompts, CALLS, schedulers={"theirs": scheduler}, n=N, **call)

    field = sf.interop.diffusers.field(pipeline, prompts, **call)
    z, turns = noises(field), [0, 0, 1, 1]
    paths = measure.Noises(field, z, {"prompt": torch.tensor(turns)}, 8)
    pipeline.scheduler = scheduler
    options = {"num_inference_steps": CALLS, "output_type": "latent", "return_dict": False}
    x = pipeline([prompts[k] for k in turns], latents=z, **options, **call)[0]
    gaps = (x.flatten(1) - measure.path_ends(paths)[0]).norm(dim=1) / x[0].numel() ** 0.5
    assert found.points[0].error.value == pytest.approx(float(gaps.mean()), rel=1e-4)
    assert found.points[0].plan is None


def test_a_table_has_the_plan_and_the_best_schedulers(tmp_path, monkeypatch):
    """In DiT, whose pipeline takes no latents."""
    monkeypatch.setattr(pipeline_schedulers, "_SPACINGS", ("trailing",))
    monkeypatch.setattr(pipeline_schedulers, "_SIGMAS", ())
    pipeline, call = asked("dit")
    del call["class_labels"]
    plan = sf.default_plan(sf.interop.diffusers.field(pipeline, [30], **call), 3)
    every = compare(pipeline, [30], 3, best=None, n=2, **call)
    table = compare(pipeline, [30], 3, plans={"default": plan}, best=2, n=2, **call)

    (ours,) = (point for point in table.points if point.plan)
    others = [point for point in table.points if not point.plan]
    assert (ours.name, ours.nfe) == ("default", 3)
    assert {point.name for point in every.points} >= {"DDIM trailing", "UniPC 3 trailing"}
    least = sorted(point.error.value for point in every.points)[:2]
    assert [point.error.value for point in others] == pytest.approx(least, rel=1e-6)
    frontier_chart(table).save(tmp_path / "schedulers.svg")
    table.save(tmp_path / "schedulers.json")
    again = Frontier.load(tmp_path / "schedulers.json")
    assert str(again) == str(table)
    assert again.within(1e3).name == "default"


@pytest.mark.slow
def test_the_example_of_twelve_lines_runs(tmp_path, monkeypatch, capsys):
    code = EXAMPLE.read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 12
    build("sd").pipeline.save_pretrained(tmp_path / "sd")
    quick = partial(tune, noises=8, tries=2, polish=0)
    monkeypatch.setattr(sf.interop.diffusers, "tune", quick)
    monkeypatch.setattr(sf.interop.diffusers, "compare", partial(compare, n=2))
    monkeypatch.setattr(pipeline_schedulers, "_SIGMAS", ())
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), str(tmp_path / "sd")])
    exec(compile(code, str(EXAMPLE), "exec"), {"__name__": "__main__"})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    names = [row[0] for row in rows if len(row) > 3 and row[0] == "tuned"]
    assert len(names) == 2


def test_what_cannot_be_compared_is_refused():
    pipeline, call = asked("sd")
    broken = ddim()
    broken.step = None
    noisy = sf.Plan(sf.DDPM(), torch.tensor([999.0, 500.0, 0.0]).double())
    with pytest.raises(ValueError, match=r"schedulers: mine does not run in StableDiffusion.*Type"):
        compare(pipeline, "a fox", 3, schedulers={"mine": broken}, n=2, **call)
    with pytest.raises(ValueError, match=r"plans: noisy adds noise"):
        compare(pipeline, "a fox", 3, plans={"noisy": noisy}, n=2, **call)
    with pytest.raises(ValueError, match=r"nfe=0"):
        compare(pipeline, "a fox", 0, **call)
