"""Plans tuned to a pipeline: saved as its scheduler, resumed, and refused for another pipeline."""

import json

import pytest
import torch
from shell import end, finishes

import scorefield as sf
from scorefield.cli import tune_pipeline as command

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("scipy")

from scorefield.interop import pipeline_tuning  # noqa: E402
from scorefield.interop.diffusers import PipelineTuner, check_plan, tune  # noqa: E402
from scorefield.interop.scheduler import SolverScheduler  # noqa: E402

FEW = {"noises": 8, "tries": 3, "polish": 0, "batch_size": 24}


class Pipeline:
    """A pipeline of another library with the conventions of diffusers: two modes for each prompt.

    The prediction is that of the posterior mean of a mixture of Gaussians.
    """

    def __init__(self, scale=1.0, flow=False):
        if flow:
            self.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
        else:
            self.scheduler = diffusers.DDIMScheduler(clip_sample=False)
        self.flow = flow
        self.network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(self.network.weight, scale)
        self.sizes = []

    @torch.no_grad()
    def __call__(
        self, prompt, num_inference_steps=50, guidance_scale=2.0, latents=None, output_type="pil"
    ):
        x = torch.randn(len(prompt), 2) if latents is None else latents
        self.scheduler.set_timesteps(num_inference_steps)
        place = torch.tensor([float(len(text)) for text in prompt])[:, None]
        for t in self.scheduler.timesteps:
            alpha, sigma = self.coefficients(float(t))
            variance = 0.04 * alpha**2 + sigma**2
            mean = self.network.weight * torch.tanh(x * alpha / variance)
            x0 = guidance_scale * mean * torch.sin(place) + (1 - guidance_scale) * mean
            x0 = x0 + 0.04 * alpha / variance * (x - alpha * x0)
            eps = (x - alpha * x0) / sigma
            self.sizes.append(len(prompt))
            output = eps - x0 if self.flow else eps
            x = self.scheduler.step(output, t, x, return_dict=False)[0]
        return x

    def coefficients(self, t):
        if self.flow:
            return 1 - t / 1000, t / 1000
        table = torch.cat([self.scheduler.alphas_cumprod, torch.ones(1)])
        alpha_bar = torch.lerp(table[int(t)], table[int(t) + 1], t - int(t))
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    pipeline, costs = Pipeline(), []
    before = dict(vars(pipeline))
    plans = tune(pipeline, ["a", "bcd"], [3, 4], folder=folder, report=costs.append, **FEW)
    assert vars(pipeline) == before
    return folder, plans, costs, sum(pipeline.sizes)


def test_a_plan_in_the_pipeline_ends_where_the_plan_ends_on_the_field(tuned):
    folder, plans, _, _ = tuned
    pipeline = Pipeline()
    field = sf.interop.diffusers.field(pipeline, ["a", "bcd"], batch_size=4)
    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    prompt = torch.tensor([0, 1, 1, 0])
    assert plans[1].tuning.error <= plans[0].tuning.error
    for plan, name in zip(plans, ("nfe-3", "nfe-4"), strict=True):
        assert plan.tuning.error < plan.tuning.default
        bound = field.condition_on(prompt=prompt)
        begin = sf.State(z, plan.times[0], None)
        *_, ours = sf.integrate(bound, plan, begin)
        pipeline.scheduler = SolverScheduler.from_pretrained(folder / name)
        pipeline.sizes.clear()
        theirs = pipeline(["a", "bcd", "bcd", "a"], plan.nfe, latents=z)
        assert pipeline.sizes == [4] * plan.nfe
        assert (ours.x - theirs).norm() <= 1e-4 * theirs.norm()


def test_a_plan_in_a_pipeline_of_a_flow_is_as_exact_as_it_says():
    pipeline = Pipeline(flow=True)
    plan = tune(pipeline, "a", 4, noises=32, tries=20, batch_size=192)
    z = torch.randn(128, 2, generator=torch.Generator().manual_seed(0))
    truth = pipeline(["a"] * 128, 1000, latents=z)
    pipeline.sizes.clear()
    config = pipeline.scheduler.config
    pipeline.scheduler = SolverScheduler.from_config(config, solver=plan)
    error = (pipeline(["a"] * 128, 4, latents=z) - truth).norm(dim=1).mean() / 2**0.5
    assert pipeline.sizes == [128] * 4  # without a call that leads from the noise to the plan
    assert error <= 1.5 * plan.tuning.high + 5e-4  # the truth is accurate to 3e-4
    assert plan.tuning.high < 0.02


def test_the_cost_is_reported_before_the_search(tuned):
    _, _, costs, evaluations = tuned
    reported = [int(line.split()[3].replace(",", "")) for line in costs]
    assert [line.split()[0] for line in costs] == ["3", "4"]
    assert 0.95 * evaluations < sum(reported) < 1.05 * evaluations


def test_a_search_resumes_and_a_plan_that_exists_is_returned(tuned, tmp_path, monkeypatch):
    folder, plans, _, _ = tuned
    pipeline = Pipeline()
    again = tune(pipeline, ["a", "bcd"], [3, 4], folder=folder, report=pytest.fail, **FEW)
    assert [plan.tuning for plan in again] == [plan.tuning for plan in plans]

    def stop(error):
        if len((tmp_path / ".nfe-3.tried").read_text().splitlines()) > 2:
            raise KeyboardInterrupt

    tuner = PipelineTuner(pipeline, ["a", "bcd"], noises=8, batch_size=24, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tuner.tune(3, tries=3, polish=0, progress=stop)
    assert tuner.plan(3) is None
    lines = (tmp_path / ".nfe-3.tried").read_text().splitlines()
    assert len(lines) == 3  # the facts and two tries
    resumed = tuner.tune(3, tries=3, polish=0)
    assert resumed.solver == plans[0].solver
    assert [path.name for path in tmp_path.iterdir()] == ["nfe-3"]


def test_a_plan_is_saved_beside_the_files_of_its_folder_or_the_old_one_stays(
    tuned, tmp_path, monkeypatch
):
    tuner, path = (
        PipelineTuner(Pipeline(), ["a", "bcd"], noises=8, batch_size=24, folder=tmp_path),
        tmp_path / "a",
    )
    path.mkdir()
    (path / "thesis.txt").write_text("mine")
    tuner._save(tuned[1][0], path)
    assert (path / "thesis.txt").read_text() == "mine"
    before = (path / "scheduler_config.json").read_bytes()

    def stop(written, place):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline_tuning, "publish", stop)
    with pytest.raises(KeyboardInterrupt):
        tuner._save(tuned[1][1], path)
    assert (path / "scheduler_config.json").read_bytes() == before
    monkeypatch.undo()
    tuner._save(tuned[1][1], path)
    assert SolverScheduler.from_pretrained(path).config.solver != json.loads(before)["solver"]
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_record_is_of_all_numbers_of_its_prompts():
    class Embedded(Pipeline):
        def __call__(self, prompt_embeds, num_inference_steps=50, latents=None, output_type="pil"):
            texts = ["a" * int(rows.sum()) for rows in prompt_embeds]
            return super().__call__(texts, num_inference_steps, latents=latents)

    one = torch.zeros(1, 77, 64)
    one[0, 38, 32] = 1  # the repr of a tensor leaves its middle out
    prompts = [one, 2 * one, one.clone()]
    facts = [PipelineTuner(Embedded(), given, noises=8).facts for given in prompts]
    assert facts[0]["field"] == facts[1]["field"]
    assert facts[0] != facts[1]
    assert facts[0] == facts[2]


OTHERS = {
    "guidance": (Pipeline(), {"guidance_scale": 3.0}),
    "weights": (Pipeline(1.5), {}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_plan_is_refused_for_another_pipeline(other, tuned):
    folder, plans, _, _ = tuned
    pipeline, options = OTHERS[other]
    check_plan(Pipeline(), "any prompt", plans[0])
    with pytest.raises(ValueError, match=r"tuned for the field \w{12}, but this field is \w{12}"):
        check_plan(pipeline, "any prompt", plans[0], **options)
    with pytest.raises(ValueError, match=r"nfe-3: the plan was tuned for the field"):
        tune(pipeline, ["a", "bcd"], 3, folder=folder, **FEW, **options)
    loaded = Pipeline()
    loaded.scheduler = SolverScheduler.from_pretrained(folder / "nfe-3")
    check_plan(loaded, "any prompt")
    loaded.network = pipeline.network
    with pytest.raises(ValueError, match="tuned for the field"):
        check_plan(loaded, "any prompt", **options)
    with pytest.raises(ValueError, match="scheduler=DDIMScheduler: has no plan"):
        check_plan(pipeline, "any prompt")


# the command


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_load", lambda folder, device, dtype: Pipeline())
    (tmp_path / "prompts.txt").write_text("a\n\n bcd \n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    return tmp_path


def options(**more):
    values = {"nfe": "4,3", "noises": 8, "tries": 3, "polish": 0, "batch-size": 24, **more}
    return [str(word) for name, value in values.items() for word in (f"--{name}", value)]


def test_the_command_writes_the_schedulers_of_python(files, tuned, capsys):
    _, plans, _, _ = tuned
    arguments = ["tune-pipeline", files, "--prompts", files / "prompts.txt", *options(nfe=3)]
    finishes(*arguments)
    printed = capsys.readouterr().out
    assert printed.count("evaluations of the field") == 1
    stored = json.loads((files / "plans" / "nfe-3" / "scheduler_config.json").read_text())
    assert stored["_class_name"] == "SolverScheduler"
    scheduler = SolverScheduler.from_pretrained(files / "plans" / "nfe-3")
    assert scheduler.solver == plans[0].solver
    finishes(*arguments)
    assert capsys.readouterr().out.count("exists already") == 1
    assert end(*arguments, "--settings", "guidance_scale=3") == 4
    error = capsys.readouterr().err
    assert "the plan was tuned for the field" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ({"prompts": "empty.txt"}, 3, "the file is empty; give a prompt in each line"),
        ({"prompts": "latin.txt"}, 3, "it is not UTF-8 text"),
        ({"prompts": "none.txt"}, 3, "the file does not exist"),
        ({"settings": "guidance_scale"}, 2, "--settings guidance_scale: give name=value"),
        ({"settings": "scale=1"}, 2, "Pipeline takes prompt, guidance_scale"),
        ({"tries": 0}, 2, "--tries 0"),
        ({"nfe": "4,1"}, 2, "--nfe 1: give at least 2."),
        ({"device": "gpu"}, 2, "--device 'gpu': not"),
        ({"nfe": "x"}, 2, "--nfe x: give whole numbers"),
    ],
)
def test_the_command_ends_in_one_line(files, more, code, message, capsys):
    name = files / more.pop("prompts", "prompts.txt")
    assert end("tune-pipeline", files, "--prompts", name, *options(**more)) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (files / "plans").exists()


def test_a_folder_is_loaded_without_running_its_code(tmp_path):
    from tiny_pipelines import build

    build("dit").pipeline.save_pretrained(tmp_path / "dit")
    loaded = command._load(tmp_path / "dit", "cpu", "float32")
    assert type(loaded) is diffusers.DiTPipeline
    assert not loaded.transformer.training
    index = tmp_path / "dit" / "model_index.json"
    values = json.loads(index.read_text())
    (tmp_path / "dit" / "scheduler" / "own.py").write_text("raise SystemExit('code was run')\n")
    index.write_text(json.dumps({**values, "scheduler": ["own", "Own"]}))
    with pytest.raises(ValueError, match=r"dit cannot be loaded: .*custom code in own.py"):
        command._load(tmp_path / "dit", "cpu", "float32")
    with pytest.raises(ValueError, match=r"model_index.json cannot be read"):
        command._load(tmp_path / "none", "cpu", "float32")
