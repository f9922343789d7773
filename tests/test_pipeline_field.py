"""Pipelines of diffusers as score fields: their predictions, guidance included, and nothing else.

The truth is the import of the same network, and the pipelines' own loops.
"""

import numpy as np
import pytest
import torch
from PIL import Image

import scorefield as sf
from scorefield.field import digest
from scorefield.solvers import State

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tiny_pipelines import SQUARE, build, stable_diffusion, text_unet  # noqa: E402

from scorefield.interop.pipeline_call import PipelineCall  # noqa: E402
from scorefield.interop.scheduler import SolverScheduler  # noqa: E402
from scorefield.interop.scheduler_process import clock_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Initializing zero-element"
)
PROMPTS = ["a fox", "two dogs", "zebra!"]
KINDS = ["sdxl", "sd3", "flux", "pixart", "dit", "ltx", "latte", "stable_audio", "edm", "inverted"]


def asked(name, prompts=None, **options):
    """Return a tiny pipeline, its field for some prompts, and the arguments of a call."""
    pipeline, call = build({"edm": "sd", "inverted": "flux"}.get(name, name))
    if name == "edm":
        pipeline.scheduler = diffusers.EDMEulerScheduler()
    if name == "inverted":  # as in Lumina2
        pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    call = {k: v for k, v in call.items() if k not in ("prompt", "class_labels", "output_type")}
    prompts = prompts or ([1, 7, 3] if name == "dit" else PROMPTS)
    options = ({"batch_size": 1} if name == "latte" else {}) | options
    return pipeline, sf.interop.diffusers.field(pipeline, prompts, **call | options), call


@pytest.fixture(scope="module")
def sd():
    return asked("sd")


def states(field, count=3):
    return torch.randn(count, *field.shape, generator=torch.Generator().manual_seed(1))


def embeddings(pipeline, prompts):
    with torch.no_grad():
        return pipeline.encode_prompt(prompts, "cpu", 1, True, [""] * len(prompts))


def imported(pipeline, scale=None):
    """Return the imported field of a Stable Diffusion, with a condition for each prompt."""
    wanted, negative = embeddings(pipeline, PROMPTS)
    field = sf.interop.diffusers.load(pipeline).field
    if scale is not None:
        field = sf.ClassifierFree(field, scale, negative={"encoder_hidden_states": negative[:1]})
    return field, wanted


def test_a_pipeline_predicts_as_its_imported_network_under_guidance(sd):
    pipeline, field, call = sd
    guided, wanted = imported(pipeline, call["guidance_scale"])
    x = 3 * states(field, 11)  # more than a batch
    prompt = torch.arange(11) % 3
    for t in (3.0, 400.0, 999.0):
        truth = guided(x, t, encoder_hidden_states=wanted[prompt])
        found = field(x, t, prompt=prompt)
        assert (found.x0 - truth.x0).norm() <= 1e-5 * truth.x0.norm()
        assert (found.eps - truth.eps).norm() <= 1e-5 * truth.eps.norm()
    other = field(x, 400.0, prompt=(prompt + 1) % 3)
    assert (other.eps - field(x, 400.0, prompt=prompt).eps).norm() > 1e-2


def test_a_pipeline_with_added_embeddings_predicts_as_its_imported_network():
    pipeline, field, call = asked("sdxl", guidance_scale=1.0)
    with torch.no_grad():
        wanted, _, pooled, _ = pipeline.encode_prompt(PROMPTS, device="cpu")
    size = call["height"], call["width"]
    given = {"encoder_hidden_states": wanted, "text_embeds": pooled}
    given["time_ids"] = torch.tensor([*size, 0, 0, *size])
    run = sf.interop.diffusers.load(pipeline)
    own = run.toward(given)
    x, prompt = 3 * states(field), torch.arange(3)
    for t in (3.0, 400.0):
        found, truth = own(x, t), field(x, t, prompt=prompt)
        assert (found.eps - truth.eps).norm() <= 1e-5 * truth.eps.norm()
    turned = given | {"text_embeds": pooled.flip(0)}
    assert (run.toward(turned)(x, t).eps - truth.eps).norm() > 1e-3 * truth.eps.norm()
    del given["time_ids"]
    with pytest.raises(ValueError, match=r"time_ids=None: this network needs a condition of shape"):
        run.toward(given)(x, t)
    given["time_ids"] = torch.zeros(5)
    with pytest.raises(ValueError, match=r"4 times that of the second must add up to 32"):
        run.toward(given)(x, t)


def test_each_state_may_have_its_own_time_and_prompt(sd):
    _, field, _ = sd
    x, t, prompt = states(field, 4), torch.tensor([7.0, 500.0, 7.0, 30.0]), torch.arange(4) % 3
    together = field(x, t, prompt=prompt).x0
    alone = [field(x[k : k + 1], float(t[k]), prompt=int(prompt[k])).x0 for k in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_in_the_pipeline_is_ddim_on_the_field(sd, spacing):
    pipeline, field, call = sd
    owner = pipeline.scheduler
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(
        owner.config, timestep_spacing=spacing, set_alpha_to_one=True
    )
    z = states(field)
    theirs = pipeline(
        PROMPTS, latents=z, num_inference_steps=8, output_type="latent", return_dict=False, **call
    )[0]
    times = pipeline.scheduler.timesteps.double()
    pipeline.scheduler = owner
    bound = field.condition_on(prompt=torch.arange(3))
    with torch.no_grad():
        *_, last = sf.integrate(bound, sf.DDIM(), State(z, times[0], None), times)
        ours = bound(last.x, last.t).x0
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@pytest.mark.parametrize("name", KINDS)
def test_a_solver_in_a_pipeline_is_the_solver_on_its_field(name, monkeypatch):
    pipeline, field, call = asked(name)
    z = states(field)
    owner = SolverScheduler.from_config(pipeline.scheduler.config, solver=sf.Multistep(2))
    ends = []
    step = SolverScheduler.step
    monkeypatch.setattr(
        SolverScheduler, "step", lambda self, *a, **k: ends.append(step(self, *a, **k)) or ends[-1]
    )
    pipeline.scheduler, call = owner, call | {"num_inference_steps": 4}
    if name == "dit":
        monkeypatch.setattr("diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda **_: z)
        pipeline([1, 7, 3], **call)
    else:
        for k in range(3) if name == "latte" else [slice(None)]:
            latents = z[k : k + 1] if name == "latte" else z
            pipeline(PROMPTS[k], latents=latents, output_type="latent", **call)
    scale = owner.init_noise_sigma
    theirs = torch.cat([end[0] for end in ends[3::4]])[:3]
    times = clock_of(owner.config)[0].time(owner.timesteps)
    times = times.clamp(owner.process.t_min, owner.process.t_max)
    bound = field.condition_on(prompt=torch.arange(3))
    with torch.no_grad():
        *_, last = sf.integrate(bound, owner.solver, State(z * scale, times[0], None), times)
        ours = bound(last.x, last.t).x0
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_the_pipeline_is_its_owners_after_every_call(sd, capsys):
    pipeline, field, call = sd
    before, config = dict(vars(pipeline)), dict(pipeline.config)
    field(states(field), 300.0, prompt=1)

    def fail(*_):
        raise RuntimeError("a broken network")

    handle = pipeline.unet.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="a broken network"):
            field(states(field), 300.0, prompt=1)
        with pytest.raises(ValueError, match="RuntimeError: a broken network"):
            sf.interop.diffusers.field(pipeline, PROMPTS, **call)
    finally:
        handle.remove()
    assert vars(pipeline) == before
    assert dict(pipeline.config) == config
    assert capsys.readouterr().err == ""  # without progress bars


def test_prompts_are_encoded_once(sd):
    pipeline, field, _ = sd
    calls = []
    handle = pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    field(states(field, 2), 300.0, prompt=torch.tensor([2, 1]))
    count = len(calls)
    field(states(field, 2), 200.0, prompt=torch.tensor([2, 1]))
    handle.remove()
    assert len(calls) == count


def test_the_likelihood_without_guidance_is_that_of_the_imported_network(sd):
    pipeline, _, call = sd
    field = sf.interop.diffusers.field(pipeline, PROMPTS, **call | {"guidance_scale": 1.0})
    truth, wanted = imported(pipeline)
    truth = truth.condition_on(encoder_hidden_states=wanted[2:])
    x = states(field, 2)
    ours, expected = (
        sf.log_prob(one, x, nfe=8, probes=2, batch_size=2).value
        for one in (field.condition_on(prompt=2), truth)
    )
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-2)


def test_the_digest_is_of_weights_and_settings_and_not_of_prompts(sd):
    pipeline, field, call = sd
    same = sf.interop.diffusers.field(pipeline, ["else"], **call, guidance_rescale=0.0)
    assert digest(same) == digest(field)
    assert digest(same) == digest(field)
    others = [call | {"guidance_scale": 2.0}, call | {"negative_prompt": "blur"}]
    fields = [sf.interop.diffusers.field(pipeline, PROMPTS, **other) for other in others]
    with torch.no_grad():
        pipeline.unet.conv_in.bias += 1
        fields.append(sf.interop.diffusers.field(pipeline, PROMPTS, **call))
        changed = digest(fields[2])
        pipeline.unet.conv_in.bias -= 1
    assert len({digest(field), digest(fields[0]), digest(fields[1]), changed}) == 4
    x = states(field)
    assert not torch.equal(fields[1](x, 500.0, prompt=0).x0, field(x, 500.0, prompt=0).x0)


class Asked:
    """The arguments of a pipeline with two prompts and an image."""

    def __call__(self, prompt, prompt_2=None, image=None, scale=1.0, latents=None):
        """Do nothing."""


def facts(prompts="a", **settings):
    return digest(PipelineCall(Asked(), prompts, settings).facts())


def test_settings_that_are_tensors_images_or_prompts_are_part_of_the_digest():
    pixels = [np.full((4, 4, 3), shade, dtype=np.uint8) for shade in (0, 1)]
    images = [
        *pixels,
        *(torch.from_numpy(one).float() for one in pixels),
        *(Image.fromarray(one, "HSV") for one in (pixels[0] + 9, pixels[0] + 8)),
        [torch.zeros(2000), torch.zeros(2000)],
        [torch.zeros(2000), torch.eye(2000)[1000]],
    ]
    every = [facts(), facts(prompt_2="x"), facts(prompt_2="y"), *(facts(image=i) for i in images)]
    assert len(set(every)) == len(every)
    assert facts(image=pixels[0].copy(), prompt_2="x") == facts(image=pixels[0], prompt_2="x")
    assert facts({"prompt": ["b"], "prompt_2": ["c"]}) == facts()


def test_a_text_in_a_mapping_is_one_prompt():
    call = PipelineCall(Asked(), {"prompt": "a cat", "prompt_2": ["b"]}, {})
    assert call.rows == {"prompt": ["a cat"], "prompt_2": ["b"]}
    assert len(call) == 1


def test_the_scale_of_an_adapter_is_part_of_the_digest():
    peft = pytest.importorskip("peft")
    pipeline, field, call = asked("sd")
    x = states(field)
    torch.manual_seed(0)
    config = peft.LoraConfig(target_modules=["to_q"], init_lora_weights=False)
    pipeline.unet.add_adapter(config, "style")
    found = []
    for scale in (1.0, 0.5):
        pipeline.unet.set_adapters("style", scale)
        adapted = sf.interop.diffusers.field(pipeline, PROMPTS, **call)
        found.append((digest(adapted), adapted(x, 500.0, prompt=0).x0))
    assert len({digest(field), *(one for one, _ in found)}) == 3
    assert not torch.equal(found[0][1], found[1][1])


def with_output(change):
    """Return a Stable Diffusion whose network's output is changed."""
    pipeline = build("sd").pipeline
    pipeline.unet.register_forward_hook(lambda module, inputs, output: (change(output[0]),))
    return pipeline


def without_steps():
    pipeline = build("sd").pipeline
    call = {"__call__": lambda self, prompt, height, width: None}
    pipeline.__class__ = type("Idle", (type(pipeline),), call)
    return pipeline


def with_scheduler(kind, **options):
    pipeline = build("sd").pipeline
    pipeline.scheduler = getattr(diffusers, kind)(**options)
    return pipeline


REFUSED = {
    "no pipeline": (lambda: 3, {}, "int is not a pipeline with a scheduler"),
    "distilled": (
        lambda: with_scheduler("LCMScheduler"),
        {},
        "StableDiffusionPipeline has LCMScheduler: distilled networks",
    ),
    "process": (
        lambda: with_scheduler("ScoreSdeVeScheduler"),
        {},
        "StableDiffusionPipeline has ScoreSdeVeScheduler, which is not supported: the config",
    ),
    "shape": (
        lambda: with_output(lambda x: torch.cat([x, x, x], 1)),
        {},
        r"predicts shape \(2, 12, 8, 8\) for states of shape \(2, 4, 8, 8\)",
    ),
    "random": (
        lambda: with_output(torch.rand_like),
        {},
        "for one state at one time its predictions",
    ),
    "no step": (without_steps, {}, "Idle cannot be asked for one evaluation: it ended after 0 of"),
    "batch": (
        lambda: build("latte").pipeline,
        {"video_length": 2},
        "batch_size=8: a prediction of LattePipeline changes by .* use batch_size=1",
    ),
    "argument": (
        lambda: build("sd").pipeline,
        {"scale": 2},
        "scale=2: StableDiffusionPipeline takes",
    ),
    "reserved": (
        lambda: build("sd").pipeline,
        {"num_inference_steps": 9},
        "num_inference_steps=9: the field sets it; leave it out",
    ),
    "empty": (lambda: build("sd").pipeline, {"prompts": []}, r"prompts=\{'prompt': 0\}"),
    "number": (
        lambda: build("sd").pipeline,
        {"prompts": 3},
        r"prompts=\{'prompt': 3\}: give a list of values for each argument",
    ),
    "lengths": (
        lambda: build("sd").pipeline,
        {"prompts": {"prompt": ["a", "b"], "negative_prompt": ["c"]}},
        r"prompts=\{'prompt': 2, 'negative_prompt': 1\}: each argument must have the same number",
    ),
    "memory": (lambda: build("sd").pipeline, {"batch_size": 0}, "batch_size=0: must be at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_error_names_both_sides(name):
    make, options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as raised:
        sf.interop.diffusers.field(
            make(), **{"prompts": PROMPTS, "height": 8, "width": 8} | options
        )
    assert "\n" not in str(raised.value)


def test_a_field_of_several_prompts_asks_for_one(sd):
    _, field, _ = sd
    for prompt in (None, 3, torch.tensor([0, 1])):
        with pytest.raises(ValueError, match=r"prompt=.*(one of the 3 prompts|from 0 to 2)"):
            field(states(field), 10.0, **({} if prompt is None else {"prompt": prompt}))


def test_memory_that_will_not_do_names_the_batch(sd):
    pipeline, field, _ = sd

    def fail(*_):
        raise torch.OutOfMemoryError

    handle = pipeline.unet.register_forward_pre_hook(fail)
    try:
        with pytest.raises(ValueError, match="batch_size=3: not enough memory"):
            field(states(field), 10.0, prompt=0)
    finally:
        handle.remove()


def test_a_guidance_that_depends_on_the_number_of_the_step_is_refused():
    network = diffusers.ControlNetModel.from_unet(text_unet())
    torch.nn.init.ones_(network.controlnet_mid_block.weight)
    pipeline = stable_diffusion("StableDiffusionControlNetPipeline", controlnet=network)
    call = SQUARE | {"image": torch.rand(1, 3, 8, 8)}
    pipeline.unet.eval()
    pipeline.controlnet.eval()
    with pytest.raises(
        ValueError, match=r"predictions differ by .* Leave out settings that depend"
    ):
        sf.interop.diffusers.field(pipeline, PROMPTS, control_guidance_end=0.5, **call)
    field = sf.interop.diffusers.field(pipeline, PROMPTS, **call)
    plain = sf.interop.diffusers.field(pipeline, PROMPTS, controlnet_conditioning_scale=0.0, **call)
    x = states(field)
    assert not torch.equal(field(x, 500.0, prompt=0).x0, plain(x, 500.0, prompt=0).x0)


def test_a_pipeline_without_prompts_or_latents_predicts_as_its_imported_network():
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(4,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=2,
        add_attention=False,
    )
    pipeline = diffusers.DDPMPipeline(network.eval(), diffusers.DDPMScheduler(clip_sample=False))
    field = sf.interop.diffusers.field(pipeline)
    truth = sf.interop.diffusers.load(pipeline).field
    x = states(field)
    torch.testing.assert_close(field(x, 500.0).eps, truth(x, 500.0).eps, rtol=1e-5, atol=1e-5)
    # a scheduler that clips would also clip in the loop of the pipeline
    pipeline.scheduler = diffusers.DDPMScheduler(clip_sample=True, clip_sample_range=0.5)
    clipped = sf.interop.diffusers.field(pipeline)(x, 500.0).x0
    torch.testing.assert_close(clipped, truth(x, 500.0).x0.clamp(-0.5, 0.5), rtol=1e-5, atol=1e-5)
