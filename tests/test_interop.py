"""Networks of diffusers as runs: what they make is what diffusers makes of them.

Networks are random, so that no accident of training hides a difference, and in float64 where states
are compared.
"""

import copy
import functools
import inspect
import json
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from cases import normal
from safetensors.torch import load_file, save_file
from shell import end, failing, finishes, listing
from test_diffusers import Replay, Wide

import scorefield as sf
from scorefield.field import digest

diffusers = pytest.importorskip("diffusers")

from scorefield.interop.diffusers import load  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SMALL = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
SCHEDULES = {
    "linear": {"beta_schedule": "linear"},
    "scaled linear": {"beta_schedule": "scaled_linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "zero terminal": {"rescale_betas_zero_snr": True},
}
PREDICTIONS = ["epsilon", "sample", "v_prediction"]
TABLES = [(p, s) for s in SCHEDULES for p in PREDICTIONS if (p, s) != ("epsilon", "zero terminal")]
every_table = pytest.mark.parametrize(("prediction", "schedule"), TABLES)


@pytest.fixture
def _double(monkeypatch):
    """Let the schedulers compute in float64, so that their rounding hides no difference."""
    for kind in ("DDIMScheduler", "DDPMScheduler", "HeunDiscreteScheduler"):
        module = sys.modules[getattr(diffusers, kind).__module__]
        for name in ("torch", "np"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, Wide(getattr(module, name)))


double = pytest.mark.usefixtures("_double")


@functools.cache
def network(**options):
    """Return a network of diffusers with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return diffusers.UNet2DModel(**{**SMALL, **options}).eval()


def ddpm(**options):
    return diffusers.DDPMScheduler(clip_sample=False, **options)


@functools.cache
def saved(folder, prediction, schedule):
    """Return the folder of a pipeline."""
    path = folder / f"{prediction}-{schedule}"
    made = ddpm(prediction_type=prediction, **SCHEDULES[schedule])
    diffusers.DDPMPipeline(network(), made).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pipelines")


def field_of(source, **options):
    """Return the field of a source, in float64."""
    return load(source, **options).field.double()


@functools.cache
def wide(**options):
    return copy.deepcopy(network(**options)).double()


@torch.no_grad()
def theirs(made, x, generator=None, **options):
    """Return the states of a scheduler's run with the network itself."""
    states = [x]
    for t in made.timesteps:
        seen = made.scale_model_input(x, t) if hasattr(made, "scale_model_input") else x
        output = wide(**options)(seen, t).sample
        drawn = {} if generator is None else {"generator": generator}
        x = made.step(output, t, x, **drawn).prev_sample
        states.append(x)
    return torch.stack(states)


@torch.no_grad()
def ours(field, solver, x, times, noise=None):
    """Return the states at all times, and at last the posterior mean of the data."""
    path = list(sf.integrate(field, solver, sf.State(x, times[0], noise), times))
    return torch.stack([at.x for at in path] + [field(path[-1].x, path[-1].t).x0])


def close(found, expected):
    """Assert equality to 1e-5 of the values' size, state by state."""
    size = expected.flatten(1).abs().amax(1)
    assert size.isfinite().all()
    error = (found - expected).flatten(1).abs().amax(1)
    assert (error <= 1e-5 * size).all(), (error / size).max()


def betas_of(field):
    """Return the betas of a field's table, of which a scheduler makes the same table again."""
    table = torch.tensor(field.process.alpha_bar, dtype=torch.float64)
    return (1 - table / torch.cat([torch.ones(1), table[:-1]])).numpy()


X = normal(2, 1, 8, 8)


# --- solvers on imported networks -----------------------------------------------------------------


@double
@every_table
@pytest.mark.parametrize(
    ("kind", "solver"),
    [("DDIMScheduler", sf.DDIM(eta=0.0)), ("DDPMScheduler", sf.DDIM(eta=1.0))],
    ids=["DDIM", "DDPM"],
)
def test_a_run_of_ddim_and_of_ddpm_on_the_same_noise_equals_the_schedulers(
    folder, prediction, schedule, kind, solver
):
    field = field_of(saved(folder, prediction, schedule))
    options = {"prediction_type": prediction, "timestep_spacing": "trailing"}
    made = getattr(diffusers, kind)(trained_betas=betas_of(field), clip_sample=False, **options)
    made.set_timesteps(8)
    expected = theirs(made, X, torch.Generator().manual_seed(7))
    close(ours(field, solver, X, made.timesteps.double(), Replay(7)), expected)


@double
@pytest.mark.parametrize(
    ("prediction", "schedule"), [pair for pair in TABLES if pair[1] != "zero terminal"]
)
def test_a_run_of_heun_equals_the_schedulers(folder, prediction, schedule):
    """Whose table never ends at ``alpha = 0``."""
    field = field_of(saved(folder, prediction, schedule))
    options = {"prediction_type": prediction, "timestep_spacing": "leading", "steps_offset": 1}
    made = diffusers.HeunDiscreteScheduler(trained_betas=betas_of(field), **options)
    made.set_timesteps(6)
    x = made.init_noise_sigma * X
    levels = torch.unique_consecutive(made.sigmas)[:-1].double()
    edm = sf.EDM(t_min=float(levels[-1]), t_max=float(levels[0]))
    states = theirs(made, x)
    expected = torch.cat([states[:-1:2], states[-1:]])  # two calls a step, but one for the last
    close(ours(field.under(edm), sf.Heun(), x, levels), expected)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_run_of_euler_on_a_flow_equals_the_schedulers(shift):
    """The shift moves the grid, and no field."""
    made = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    made.set_timesteps(8)
    field = field_of((network(), made))
    assert field.process == sf.Flow(t_min=1e-3, t_max=1.0)
    close(ours(field, sf.Euler(), X, made.sigmas[:-1].double()), theirs(made, X))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("FlowMatchHeunDiscreteScheduler", {"shift": 2.0}),
        ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction"}),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}),
    ],
)
def test_the_field_is_the_same_whatever_scheduler_of_a_flow_comes_with_it(kind, options):
    euler = diffusers.FlowMatchEulerDiscreteScheduler()
    one, other = (load((network(), m)) for m in (getattr(diffusers, kind)(**options), euler))
    assert digest(one.field) == digest(other.field)
    with pytest.raises(sf.errors.UsageError, match="invert_sigmas=True"):
        load((network(), diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)))


def test_a_run_of_edms_euler_equals_the_schedulers():
    made = diffusers.EDMEulerScheduler(sigma_data=0.7)
    made.set_timesteps(8)
    field = field_of((network(), made))
    assert field.process == sf.EDM(t_min=0.002, t_max=80.0)
    x = made.init_noise_sigma * X
    close(ours(field, sf.Euler(), x, made.sigmas[:-1].double()), theirs(made, x))


def test_steps_of_the_reverse_diffusion_of_song_equal_the_schedulers():
    fourier = {"time_embedding_type": "fourier", "norm_eps": 1e-6}
    made = diffusers.ScoreSdeVeScheduler(num_train_timesteps=20, sigma_max=50.0)
    run = load((network(**fourier), made))
    field, levels = run.field.double(), made.discrete_sigmas.double()
    assert field.label == sf.ratio_label
    for k in (19, 10, 2):
        x, drawn = levels[k] * X, {"generator": torch.Generator().manual_seed(7)}
        with torch.no_grad():
            output = wide(**fourier)(x, levels[k].expand(2)).sample
            at = sf.State(x, levels[k], Replay(7))
            found = sf.ReverseDiffusion().advance(field, at, levels[k - 1]).x
        expected = made.step_pred(output, k / 19 + 1e-6, x, **drawn).prev_sample
        close(found[None], expected[None])
    white = run.transform.forward(run.encoding.middle(torch.full((1, 1, 8, 8), 255.0)))
    black = run.transform.forward(run.encoding.middle(torch.zeros(1, 1, 8, 8)))
    assert (float(black.mean()), float(white.mean())) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert float(run.field.mean.mean()) == 0.5


@pytest.mark.parametrize(
    "kind",
    [
        "DDIMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_the_field_is_the_same_whatever_scheduler_of_the_table_comes_with_it(kind):
    table = {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.015}
    takes = inspect.signature(getattr(diffusers, kind)).parameters
    for more in ({}, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}):
        if more.keys() <= takes.keys():
            one, other = (
                load((network(), getattr(diffusers, k)(**table, **more)))
                for k in (kind, "DDPMScheduler")
            )
            assert digest(one.field) == digest(other.field)
            assert (one.field.process.alpha_bar[-1] == 0) == bool(more)


def test_a_pipeline_itself_makes_the_pictures_that_the_run_does():
    """By DDIM, from the pipeline's own noise, to its last level of grey."""
    made = diffusers.DDIMScheduler(clip_sample=False, prediction_type="sample")
    pipeline = diffusers.DDIMPipeline(network(), made)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    drawn = pipeline(batch_size=4, generator=generator, num_inference_steps=10, output_type="np")
    expected = np.round(255 * drawn.images).transpose(0, 3, 1, 2)
    run, x = load(pipeline), torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    z = ours(run.field, sf.DDIM(eta=0.0), x, pipeline.scheduler.timesteps.double())[-1]
    found = run.encoding.inverse(run.transform.inverse(z)).numpy()
    assert np.abs(found - expected).max() <= 1  # where a value lies between two levels
    assert (found != expected).mean() < 0.01
    assert (expected % 255 > 0).mean() > 0.2, "most of what is compared is not clipped"


# --- what is told, and what comes out -------------------------------------------------------------


def test_classes_are_the_networks_own():
    inner, made = network(num_class_embeds=4), ddpm()
    run = load((inner, made))
    x, t = X.float(), torch.tensor(500.0)
    for y in range(4):
        expected = inner(x, t, class_labels=torch.tensor([y, y])).sample
        assert torch.equal(run.toward(y)(x, 500.0).eps, run.field(x, 500.0, y=torch.tensor(y)).eps)
        torch.testing.assert_close(run.toward(y)(x, 500.0).eps, expected)
    assert run.config.data.classes.count == 4
    with pytest.raises(ValueError, match="needs a class; give one from 0 to 3"):
        run.sample(2)
    with pytest.raises(sf.errors.UsageError, match="trained with dropout=0"):
        run.guided(2.0)


@pytest.mark.parametrize("none", [0, 2, 3])
def test_a_class_that_stands_for_none_is_taken_out_of_the_count(none):
    inner = network(num_class_embeds=4)
    run, x = load((inner, ddpm()), unconditional=none), X.float()
    rows = [k for k in range(4) if k != none]
    assert run.config.data.classes.count == 3
    for y, row in enumerate(rows):
        expected = inner(x, torch.tensor(500.0), class_labels=torch.tensor([row, row])).sample
        torch.testing.assert_close(run.toward(y)(x, 500.0).eps, expected)
    expected = inner(x, torch.tensor(500.0), class_labels=torch.tensor([none, none])).sample
    torch.testing.assert_close(run.field(x, 500.0).eps, expected)
    assert run.guided(2.0).sample(1, given=1, batch_size=2).isfinite().all()


TEXT = {
    "in_channels": 4,
    "out_channels": 4,
    "cross_attention_dim": 6,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}


def test_what_a_network_is_told_by_cross_attention_is_bound_to_the_field(
    tmp_path, capsys, monkeypatch
):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = diffusers.UNet2DConditionModel(**{**SMALL, **TEXT}).eval()
    run, x, told = load((inner, ddpm())), normal(3, 4, 8, 8).float(), normal(1, 5, 6).float()
    expected = inner(x, 500, told.expand(3, 5, 6)).sample
    bound = run.field.condition_on(encoder_hidden_states=told)
    torch.testing.assert_close(bound(x, 500.0).eps, expected)
    plan = sf.default_plan(run.field, 4)
    assert not torch.equal(
        sf.sample(bound, 2, plan, batch_size=2),
        sf.sample(run.field.condition_on(encoder_hidden_states=2 * told), 2, plan, batch_size=2),
    )
    with pytest.raises(ValueError, match=r"bind it with run.condition_on\(encoder_hidden_states="):
        run.sample(2, plan)
    run.save(tmp_path / "run")
    refuses = failing(tmp_path, capsys, monkeypatch)
    told_by = "encoder_hidden_states=None: this network needs the embedding of a text"
    assert told_by in refuses(2, *["sample", "run", "--n", "1", "--nfe", "4"])
    assert told_by in refuses(2, *["tune", "run", "--nfe", "4", "--noises", "8", "--tries", "1"])


def test_transformers_know_a_class_that_stands_for_none(tmp_path):
    options = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8}
    options |= {"in_channels": 4, "out_channels": 8, "num_embeds_ada_norm": 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = diffusers.DiTTransformer2DModel(**options).eval()
    pipeline = diffusers.DiTPipeline(inner, codec("AutoencoderKL"), ddpm())
    run, x, t = load(pipeline), normal(2, 4, 8, 8).float(), torch.tensor([500.0, 500.0])
    assert run.config.data.classes.count == 3
    for y, given in ((0, 0), (2, 2), (3, None)):
        expected = inner(x, t, class_labels=torch.tensor([y, y])).sample[:, :4]
        other = inner(x, t, class_labels=torch.tensor([1, 1])).sample[:, :4]
        torch.testing.assert_close(run.toward(given)(x, 500.0).eps, expected)
        assert (expected - other).abs().max() > 1e-2
    assert (
        run.guided(3.0).sample(1, sf.default_plan(run.field, 4), given=1, batch_size=2).shape[1]
        == 3
    )
    with pytest.raises(sf.errors.CheckpointError, match=r"9 by 8 pixels: both .* multiples of 2"):
        load(pipeline, shape=(3, 18, 16))  # whose latents are cut into patches of 2
    pipeline.save_pretrained(tmp_path)
    config = tmp_path / "transformer" / "config.json"
    settings = json.loads(config.read_text()) | {"_class_name": "Transformer2DModel"}
    config.write_text(json.dumps(settings))  # what the class was called once
    assert digest(load(tmp_path).field) == digest(run.field)


def test_of_a_network_that_predicts_a_variance_too_the_first_half_is_taken():
    inner = network(out_channels=2)
    found = load((inner, ddpm(variance_type="learned_range"))).field(X.float(), 500.0).eps
    torch.testing.assert_close(found, inner(X.float(), torch.tensor(500.0)).sample[:, :1])


def test_pictures_are_whole_numbers_and_the_network_sees_them_from_minus_one_to_one():
    run = load((network(), ddpm()))
    x = torch.arange(256.0)[:, None, None, None].expand(-1, 1, 8, 8)
    seen = run.transform.forward(run.encoding.middle(x))
    torch.testing.assert_close(seen, x / 127.5 - 1)
    assert torch.equal(run.encoding.inverse(run.transform.inverse(seen)), x)
    continuous = load((network(), ddpm()), levels=0)
    assert torch.equal(continuous.transform.forward(seen), seen)
    assert (run.field.data_std, float(run.field.mean.abs().max())) == (0.5, 0.0)


def test_moments_are_measured_where_data_is_given():
    x = torch.randint(0, 256, (50, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    field = load((network(), ddpm()), data=x).field
    seen = (x.double() + 0.5) / 127.5 - 128 / 127.5
    torch.testing.assert_close(field.mean.double(), seen.mean(0), rtol=1e-5, atol=1e-6)
    spread = seen.var(0, correction=0) + 1 / 12 / 127.5**2
    torch.testing.assert_close(field.variance.double(), spread, rtol=1e-5, atol=1e-6)


# --- folders --------------------------------------------------------------------------------------


def test_a_run_folder_of_a_network_comes_back_bit_for_bit(folder, tmp_path):
    run = load(saved(folder, "v_prediction", "zero terminal"))
    run.save(tmp_path / "one")
    again = sf.load(tmp_path / "one")
    again.save(tmp_path / "two")
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    assert again.config == run.config
    assert digest(again.field) == digest(run.field)
    assert again.field.process.alpha_bar[-1] == 0
    state, expected = again.field.network.state_dict(), network().state_dict()
    assert all(torch.equal(state[f"inner.{name}"], expected[name]) for name in expected)
    plan = sf.default_plan(run.field, 6)
    assert torch.equal(again.sample(3, plan, batch_size=4), run.sample(3, plan, batch_size=4))


def test_weights_of_half_precision_and_under_older_names_are_taken(folder, tmp_path):
    path = saved(folder, "epsilon", "linear")
    expected = {k: v.half().float() for k, v in network().state_dict().items()}
    flat = tmp_path / "flat"
    flat.mkdir()
    for part in ("unet/config.json", "scheduler/scheduler_config.json"):
        (flat / part.split("/")[1]).write_bytes((path / part).read_bytes())
    older = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")]
    weights = {}
    for name, value in expected.items():
        for new, old in older:
            name = name.replace(f".{new}.", f".{old}.")
        weights[name] = value.half()
    assert "mid_block.attentions.0.query.weight" in weights
    save_file(weights, flat / "diffusion_pytorch_model.fp16.safetensors")
    found = load(flat).field.network.inner.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_pickle_is_read_only_if_asked_for_and_runs_nothing(folder, tmp_path):
    path = saved(folder, "epsilon", "linear")
    copied = tmp_path / "pipeline"
    diffusers.DDPMPipeline(network(), ddpm()).save_pretrained(copied, safe_serialization=False)
    with pytest.raises(sf.errors.CheckpointError, match=r"pytorch_model.bin is a pickle"):
        load(copied)
    assert digest(load(copied, pickle=True).field) == digest(load(path).field)

    class Payload:
        def __reduce__(self):
            return (tmp_path / "canary").touch, ()

    bad = copied / "unet" / "diffusion_pytorch_model.bin"
    torch.save({"conv_in.weight": Payload()}, bad)
    with pytest.raises(sf.errors.CheckpointError, match="cannot be read"):
        load(copied, pickle=True)
    bad.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(sf.errors.CheckpointError, match="cannot be read"):
        load(copied, pickle=True)
    assert not (tmp_path / "canary").exists()


# --- latents --------------------------------------------------------------------------------------

CODEC = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "sample_size": 16,
}
CODECS = {
    "AutoencoderKL": {"latent_channels": 4, "scaling_factor": 0.7, "shift_factor": 0.3},
    "VQModel": {"latent_channels": 4, "scaling_factor": 1.3, "num_vq_embeddings": 32},
}
every_codec = pytest.mark.parametrize("kind", CODECS)


@functools.cache
def codec(kind, **options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return getattr(diffusers, kind)(**{**CODEC, **CODECS[kind], **options}).eval()


@functools.cache
def latent_pipeline(kind):
    """Return a pipeline of latents without a text: of another class where diffusers has none."""
    unet = network(in_channels=4, out_channels=4)
    if kind == "VQModel":
        return diffusers.LDMPipeline(codec(kind), unet, ddim())
    pipeline = diffusers.DiffusionPipeline()
    pipeline.register_modules(vae=codec(kind), unet=unet, scheduler=ddim())
    return pipeline


def ddim():
    return diffusers.DDIMScheduler(clip_sample=False, prediction_type="sample")


def test_a_latent_pipeline_itself_makes_the_pictures_that_the_run_does():
    pipeline = latent_pipeline("VQModel")
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    drawn = pipeline(batch_size=2, generator=generator, num_inference_steps=10, output_type="np")
    expected = np.round(255 * drawn.images).transpose(0, 3, 1, 2)
    run, x = load(pipeline), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    z = ours(run.field, sf.DDIM(eta=0.0), x, pipeline.scheduler.timesteps.double())[-1]
    found = run.encoding.inverse(run.transform.inverse(z)).numpy()
    assert found.shape == (2, 3, 16, 16)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01
    assert (expected % 255 > 0).mean() > 0.2, "most of what is compared is not clipped"


@every_codec
def test_pictures_are_encoded_and_decoded_as_the_autoencoder_does(kind):
    run, inner, facts = load(latent_pipeline(kind)), codec(kind), CODECS[kind]
    x = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        found = inner.encode(x / 127.5 - 1)
        latents = found.latents if kind == "VQModel" else found.latent_dist.mean
        pictures = inner.decode(latents).sample
    shift = facts.get("shift_factor", 0.0)
    z = run.transform.forward(run.encoding.middle(x))
    torch.testing.assert_close(z, (latents - shift) * facts["scaling_factor"])
    decoded = run.encoding.inverse(run.transform.inverse(z))
    exact = 255 * (pictures / 2 + 0.5).clamp(0, 1)
    assert (decoded - exact).abs().max() <= 0.51
    assert torch.equal(run.encoding.inverse(z[1:2])[0], decoded[1]), "whatever the others are"
    assert run.encoding.middle(x.double()).dtype == torch.float64
    assert run.encoding.middle(x[:0]).shape == (0, 4, 8, 8)
    assert run.encoding.inverse(z[:0]).shape == (0, 3, 16, 16)
    assert run.field.data_std == 1.0


@every_codec
def test_a_run_of_latents_comes_back_bit_for_bit(kind, tmp_path):
    run = load(latent_pipeline(kind))
    run.save(tmp_path / "one")
    again = sf.load(tmp_path / "one")
    again.save(tmp_path / "two")
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    assert digest(again.codec) == digest(run.codec)
    plan = sf.default_plan(run.field, 4)
    x = run.sample(3, plan, batch_size=4)
    assert x.shape == (3, 3, 16, 16)
    assert torch.equal(again.sample(3, plan, batch_size=4), x)
    codes = again.encode(x, nfe_plan(again), ids=[0, 1, 2], batch_size=4)
    assert codes.z.shape == (3, 4, 8, 8)
    strip = again.interpolate(x[:1], x[1:2], nfe_plan(again), points=3, batch_size=4)
    assert strip.x.shape == (1, 3, 3, 16, 16)


def nfe_plan(run):
    return sf.round_trip_plan(run.field, 8)


def test_the_moments_of_latents_are_measured_where_pictures_are_given():
    pipeline = latent_pipeline("AutoencoderKL")
    x = torch.randint(0, 256, (20, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    run = load(pipeline, data=x)
    z = run.transform.forward(run.encoding.middle(x)).double()
    torch.testing.assert_close(run.field.mean.double(), z.mean(0), rtol=1e-4, atol=1e-5)
    variance = z.var(0, correction=0)
    torch.testing.assert_close(run.field.variance.double(), variance, rtol=1e-4, atol=1e-6)
    with pytest.raises(sf.errors.DataError, match="standard deviation cannot be measured"):
        load(pipeline, data=x[:1])


def test_a_likelihood_through_an_autoencoder_is_refused_and_that_of_latents_told():
    run = load(latent_pipeline("AutoencoderKL"))
    with pytest.raises(sf.errors.UsageError, match="data has no density under them"):
        run.log_prob(torch.zeros(1, 3, 16, 16))
    z = normal(2, 4, 8, 8).float()
    assert sf.log_prob(run.field, z, nfe=8, probes=2).value.isfinite().all()


def test_pictures_are_restored_through_an_autoencoder_by_dps_as_the_message_says():
    run = load(latent_pipeline("AutoencoderKL"))
    with pytest.raises(sf.errors.UsageError, match="is not linear in them"):
        run.restore(torch.full((1, 3, 16, 16), torch.nan))
    x = run.sample(1, sf.default_plan(run.field, nfe=4))

    def top(z):
        return run.codec.decode(run.transform.inverse(z))[:, :, :8]

    with torch.no_grad():
        y = top(run.transform.forward(run.encoding.middle(x)))
    z = sf.restore(
        run.field, y, sf.Nonlinear(top), method="dps", solver=sf.default_plan(run.field, 4)
    )
    assert z.shape == (1, 1, 4, 8, 8)
    assert z.isfinite().all()


@pytest.fixture(scope="module")
def latent_work(tmp_path_factory):
    path = tmp_path_factory.mktemp("latents")
    draw = np.random.default_rng(0)
    np.save(path / "x.npy", draw.integers(0, 256, (4, 3, 16, 16), dtype=np.uint8))
    latent_pipeline("VQModel").save_pretrained(path / "pipeline")
    finishes("import", path / "pipeline", "--out", path / "run")
    return path


def test_the_commands_serve_a_run_of_latents(latent_work, capsys, monkeypatch):
    run = latent_work / "run"
    finishes("info", run)
    assert "of latents by VQModel" in capsys.readouterr().out
    finishes("sample", run, "--n", 2, "--nfe", 4, "--out", latent_work / "samples.npy")
    assert np.load(latent_work / "samples.npy").shape == (2, 3, 16, 16)
    assert (latent_work / "samples.png").exists()
    finishes("encode", run, latent_work / "x.npy", "--nfe", 8, "--any-scale")
    assert np.load(run / "codes-x.npy").shape == (4, 4, 8, 8)
    finishes("decode", run, run / "codes-x.npy", "--nfe", 8)
    assert np.load(run / "codes-x-decoded.npy").shape == (4, 3, 16, 16)
    refuses = failing(latent_work, capsys, monkeypatch)
    assert "For latents z, use scorefield.log_prob" in refuses(2, "likelihood", "run", "x.npy")
    message = refuses(2, "restore", "run", "x.npy", "--mask", "top", "--corrupt")
    assert "method='dps'" in message


def test_a_network_that_contradicts_the_latents_is_refused_with_both(latent_work, capsys):
    unet, pipeline = network(), diffusers.DiffusionPipeline()
    pipeline.register_modules(vae=codec("AutoencoderKL"), unet=unet, scheduler=ddim())
    with pytest.raises(sf.errors.CheckpointError) as raised:
        load(pipeline)
    assert "UNet2DModel has 1 channels, and the latents of AutoencoderKL have 4" in str(
        raised.value
    )
    with pytest.raises(sf.errors.CheckpointError, match="sides that are multiples of 2"):
        load(latent_pipeline("VQModel"), shape=(3, 15, 16))


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(folder, tmp_path_factory):
    """Return a folder with a pipeline, data for it, and a run imported by the command."""
    path = tmp_path_factory.mktemp("work")
    draw = np.random.default_rng(0)
    np.save(path / "x.npy", draw.integers(0, 256, (4, 1, 8, 8), dtype=np.uint8))
    np.save(path / "large.npy", draw.integers(0, 256, (4, 1, 16, 16), dtype=np.uint8))
    np.save(path / "same.npy", np.full((4, 1, 8, 8), 0.3))
    np.save(path / "huge.npy", draw.normal(0.0, 1e30, (4, 1, 8, 8)))
    diffusers.DDPMPipeline(network(), ddpm(prediction_type="v_prediction")).save_pretrained(
        path / "pipeline"
    )
    finishes("import", path / "pipeline", "--out", path / "run")
    return path


def test_what_a_terminal_would_obey_is_written_out(work, tmp_path, capsys):
    shutil.copytree(work / "pipeline", tmp_path / "a\x1b[31mb")
    finishes("import", tmp_path / "a\x1b[31mb", "--out", tmp_path / "run")
    out = capsys.readouterr().out
    assert "a\\x1b[31mb: UNet2DModel" in out.replace("\n", "")
    assert "\x1b" not in out


def test_import_tells_what_it_found(work, capsys):
    finishes("import", work / "pipeline", "--out", work / "told", "--data", work / "x.npy")
    out = capsys.readouterr().out
    numbers = sum(p.numel() for p in network().parameters())
    assert "UNet2DModel with DDPMScheduler" in out
    assert f"{numbers:,} parameters" in out
    assert "V()" in out
    assert "whole numbers in 256 levels" in out
    assert f"run folder: {work / 'told'}" in out


def test_data_is_as_wide_as_the_network_was_told_that_its_own_is(work, capsys, monkeypatch):
    x = np.random.default_rng(0).integers(126, 130, (16, 1, 8, 8), dtype=np.uint8)
    np.save(work / "narrow.npy", x)
    np.save(work / "wide.npy", np.uint8(128 + 60 * (x - 127.5)))
    given = "--out", work / "narrow", "--data", work / "narrow.npy"
    finishes("import", work / "pipeline", *given)
    finishes("encode", work / "narrow", work / "narrow.npy", "--nfe", 2)
    refuses = failing(work, capsys, monkeypatch)
    # deviations of sqrt(1.25 + 1/12) and of sqrt(60^2 1.25 + 1/12) levels
    assert "wide.npy spreads 58" in refuses(3, "encode", "narrow", "wide.npy", "--nfe", "2")


@pytest.mark.slow
def test_the_commands_serve_an_imported_run(work, capsys):
    run = work / "run"
    finishes("sample", run, "--n", 3, "--nfe", 5, "--out", work / "samples.npy")
    expected = sf.load(run).sample(3, sf.default_plan(sf.load(run).field, 5))
    np.testing.assert_array_equal(np.load(work / "samples.npy"), expected.numpy())
    finishes("likelihood", run, work / "x.npy", "--nfe", 8, "--probes", 2, "--any-scale")
    assert "bits per dimension: " in capsys.readouterr().out
    finishes("encode", run, work / "x.npy", "--nfe", 16, "--any-scale")
    codes = np.load(run / "codes-x.npy")
    assert codes.shape == (4, 1, 8, 8)
    finishes("decode", run, run / "codes-x.npy", "--nfe", 16)
    finishes("tune", run, "--nfe", 4, "--noises", 8, "--tries", 2, "--batch-size", 8)
    finishes("sample", run, "--n", 2, "--nfe", 4)
    assert "samples by the tuned plan: NFE" in capsys.readouterr().out
    finishes("info", run)
    assert "imported from" in capsys.readouterr().out


@pytest.fixture
def fails(work, capsys, monkeypatch):
    return failing(work, capsys, monkeypatch)


def spoiled(work, name, part, **changes):
    """Return the folder of a pipeline whose configuration of a part says something else."""
    path = work / name
    for file in ("unet/config.json", "scheduler/scheduler_config.json"):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_bytes((work / "pipeline" / file).read_bytes())
    weights = "unet/diffusion_pytorch_model.safetensors"
    (path / weights).write_bytes((work / "pipeline" / weights).read_bytes())
    (path / "model_index.json").write_text("{}")
    file = path / ("unet/config.json" if part == "unet" else "scheduler/scheduler_config.json")
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in values.items() if v != "absent"}))
    return name


@pytest.mark.parametrize(
    ("code", "part", "changes", "message"),
    [
        (2, "scheduler", {"_class_name": "IPNDMScheduler"}, "IPNDMScheduler is not supported"),
        (4, "scheduler", {"_class_name": "os.system"}, "'os.system' is not a scheduler"),
        (4, "scheduler", {"_class_name": ["a"]}, "is not a scheduler"),
        (
            2,
            "scheduler",
            {"_class_name": "LCMScheduler"},
            "LCMScheduler: distilled networks",
        ),
        (2, "scheduler", {"_class_name": "TCDScheduler"}, "do not represent a score"),
        (2, "scheduler", {"_class_name": "FlowMatchLCMScheduler"}, "do not represent a score"),
        (2, "scheduler", {"prediction_type": "x"}, "prediction_type='x': must be one of epsilon"),
        (4, "scheduler", {"beta_schedule": "x"}, "DDPMScheduler rejects its settings"),
        (
            4,
            "scheduler",
            {"num_train_timesteps": 10**12},
            "must be a whole number from 1 to 10,000",
        ),
        (
            4,
            "scheduler",
            {"trained_betas": [0.1] * 20_000},
            "must be a whole number from 1 to 10,000",
        ),
        (
            4,
            "scheduler",
            {"trained_betas": [[0.1, 0.2]]},
            "trained_betas of DDPMScheduler must be a list",
        ),
        (4, "scheduler", {"num_train_timesteps": 0}, "num_train_timesteps=0 of DDPMScheduler"),
        (
            2,
            "scheduler",
            {"prediction_type": ["epsilon"]},
            "prediction_type=\"['epsilon']\": must be one",
        ),
        (
            2,
            "scheduler",
            {"_class_name": "KarrasVeScheduler"},
            "KarrasVeScheduler is not supported",
        ),
        (
            2,
            "scheduler",
            {"prediction_type": "epsilon", "rescale_betas_zero_snr": True},
            "does not depend on the data",
        ),
        (2, "unet", {"_class_name": "UNet3DModel"}, "'UNet3DModel': must be one of UNet2DModel"),
        (2, "unet", {"sample_size": "absent"}, "has sample_size=None: give the shape"),
        (2, "unet", {"sample_size": 10**9}, "--shape (1, 1000000000, 1000000000)"),
        (2, "unet", {"sample_size": [8, "a"]}, "has sample_size=[8, 'a']: give the shape"),
        (2, "scheduler", {"beta_end": 1e30}, "its betas give alphas_cumprod outside"),
        (
            2,
            "scheduler",
            {"beta_start": 0.0, "beta_end": 0.0},
            "its betas give alphas_cumprod outside",
        ),
        (4, "scheduler", {"trained_betas": [0.1, 0.0, 0.1]}, "must fall strictly"),
        (
            4,
            "scheduler",
            {
                "_class_name": "EDMEulerScheduler",
                "prediction_type": "epsilon",
                "sigma_min": 90,
            },
            "enclose no time",
        ),
        (4, "unet", {"act_fn": "a" * 70_000}, "String should have at most 65536"),
        (4, "unet", {"num_class_embeds": "many"}, "cannot be built from its arguments"),
        (4, "unet", {"layers_per_block": 10**9}, "layers_per_block contains a number beyond"),
        (4, "unet", {"layers_per_block": 2}, "the weights do not match the network: missing"),
        (4, "unet", {"block_out_channels": [8, 32]}, "has shape (16,), and the network"),
        (4, "unet", {"out_channels": 5}, "1 input and 5 output channels"),
        (4, "unet", {"out_channels": 0}, "cannot be built from its arguments: out_channels=0"),
        (4, "unet", {"class_embed_type": "hash"}, "class_embed_type='hash'"),
    ],
)
def test_what_a_folder_says_is_checked_before_anything_is_made(
    work, fails, code, part, changes, message
):
    name = spoiled(work, f"spoiled-{abs(hash(str(changes)))}", part, **changes)
    assert message in fails(code, "import", name, "--out", "new")


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (4, "nowhere --out new", "nowhere does not exist"),
        (4, "x.npy --out new", "x.npy is not a file of weights, which end in .safetensors"),
        (4, "x.npy --kind diffusers --out new", "x.npy cannot be read"),
        (2, "pipeline --out run", "run exists already"),
        (2, "pipeline --out new --data-std 0", "--data-std 0: must be from 1e-06"),
        (2, "pipeline --out new --data-std 1e-30", "--data-std 1e-30: must be from 1e-06"),
        (2, "pipeline --out new --data-std 1e30", "from 1e-06 to 1e+06"),
        (3, "pipeline --out new --levels 0 --data same.npy", "all samples are equal"),
        (3, "pipeline --out new --levels 0 --data huge.npy", "too large for single precision"),
        (2, "pipeline --out new --levels 1", "--levels 1: must be at least 2"),
        (2, "pipeline --out new --data-std 1 --data x.npy", "cannot be combined with data"),
        (3, "pipeline --out new --data large.npy", "samples of shape (1, 16, 16)"),
        (2, "pipeline --out new --unconditional 3", "has 0 classes"),
        (2, "pipeline --out new --shape 8 8", "--shape (8, 8): must be (C, H, W)"),
        (
            4,
            "pipeline --out new --shape 3 8 8",
            "1 input and 1 output channels: the data has 3",
        ),
        (4, "pipeline --out new --shape 1 8 7", "8 by 7 pixels: both sides must be multiples of 2"),
    ],
)
def test_bad_input_of_import_is_one_line(fails, code, arguments, message):
    assert message in fails(code, "import", *arguments.split())


@pytest.mark.parametrize("scheduler", [None, "DDPMScheduler"])
def test_what_is_no_scheduler_is_refused(scheduler):
    with pytest.raises(sf.errors.UsageError, match="is not a scheduler of this version"):
        load((network(), scheduler))


def test_damaged_weights_are_refused(work, fails):
    name = spoiled(work, "damaged", "unet")
    path = work / name / "unet" / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in fails(4, "import", name, "--out", "new")
    weights = load_file(work / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    weights["conv_in.bias"][0] = float("nan")
    save_file(weights, path)
    assert "conv_in.bias has values that are not finite" in fails(4, "import", name, "--out", "new")
    path.unlink()
    assert "has no weights diffusion_pytorch_model" in fails(4, "import", name, "--out", "new")


def test_without_diffusers_the_message_says_what_to_install(work, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    capsys.readouterr()
    assert end("info", work / "run") == 2
    assert "pip install 'scorefield[diffusers]'" in capsys.readouterr().err
