"""Checkpoints of guided-diffusion, DiT and SiT as runs: they predict by the papers' formulas.

The networks are written here a second time, as in `test_edm_score_sde`.
"""

import argparse
import functools
import json
import math
import re
import types
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from cases import mixture, normal, tensor
from shell import failing, finishes
from test_edm_score_sde import Weights, attend, conv, linear, norm
from torch.nn import functional as F

import scorefield as sf
from scorefield._internal.errors import UsageError
from scorefield.field import digest
from scorefield.interop import dit, guided_diffusion
from scorefield.networks.resample import Double, Halve

SIDE, WIDTH, CLASSES = 8, 128, 3
Y = torch.tensor([2, 0, 1])

# --- guided-diffusion -----------------------------------------------------------------------------


def guided(w, x, label, y, heads, outputs, new_order):
    """ADM of two scales by the names of guided-diffusion; the coarse scale attends."""
    halve, double = Halve((1, 1)), Double((1, 1))

    def block(name, x, size, move=None):
        h = F.silu(norm(w, f"{name}.in_layers.0", x, 1e-5))
        x, h = (x, h) if move is None else (move(x), move(h))
        h = conv(w, f"{name}.in_layers.2", h, size)
        modulation = linear(w, f"{name}.emb_layers.1", e, 2 * size)[..., None, None]
        scale, shift = modulation.chunk(2, 1)
        h = F.silu(norm(w, f"{name}.out_layers.0", h, 1e-5) * (1 + scale) + shift)
        h = conv(w, f"{name}.out_layers.3", h, size)
        return h + (conv(w, f"{name}.skip_connection", x, size, 1) if x.shape[1] != size else x)

    def attention(name, x):
        h, size = norm(w, f"{name}.norm", x, 1e-5).flatten(2), x.shape[1]
        mixed = torch.einsum("bcn,dc->bdn", h, w(f"{name}.qkv.weight", 3 * size, size, 1)[..., 0])
        mixed = mixed + w(f"{name}.qkv.bias", 3 * size)[:, None]
        if new_order:
            q, k, v = mixed.chunk(3, 1)
        else:  # three blocks for each head
            q, k, v = (a.flatten(1, 2) for a in mixed.unflatten(1, (heads, 3, -1)).unbind(2))
        h = attend(h, q, k, v, heads)
        h = torch.einsum("bcn,dc->bdn", h, w(f"{name}.proj_out.weight", size, size, 1)[..., 0])
        return x + (h + w(f"{name}.proj_out.bias", size)[:, None]).view_as(x)

    angles = label[:, None] * 1e-4 ** (torch.arange(WIDTH // 2) / (WIDTH // 2))
    e = linear(w, "time_embed.0", torch.cat([angles.cos(), angles.sin()], 1), 4 * WIDTH)
    e = linear(w, "time_embed.2", F.silu(e), 4 * WIDTH)
    e = F.silu(e if y is None else e + w("label_emb.weight", CLASSES, 4 * WIDTH)[y])
    first = conv(w, "input_blocks.0.0", x, WIDTH)
    second = block("input_blocks.1.0", first, WIDTH)
    third = block("input_blocks.2.0", second, WIDTH, halve)
    fourth = attention("input_blocks.3.1", block("input_blocks.3.0", third, 2 * WIDTH))
    h = attention("middle_block.1", block("middle_block.0", fourth, 2 * WIDTH))
    h = block("middle_block.2", h, 2 * WIDTH)
    for k, skip in enumerate((fourth, third)):
        h = block(f"output_blocks.{k}.0", torch.cat([h, skip], 1), 2 * WIDTH)
        h = attention(f"output_blocks.{k}.1", h)
    h = block("output_blocks.1.2", h, 2 * WIDTH, double)
    for k, skip in enumerate((second, first), 2):
        h = block(f"output_blocks.{k}.0", torch.cat([h, skip], 1), WIDTH)
    return conv(w, "out.2", F.silu(norm(w, "out.0", h, 1e-5)), outputs)


def linear_table(steps):
    """Ho et al. (2020), stretched to a number of steps."""
    return (
        torch.linspace(1e-4, 0.02, steps, dtype=torch.float64).mul(-1000 / steps).add(1).cumprod(0)
    )


def cosine_table(steps):
    """Nichol and Dhariwal (2021), equation 17, with betas of at most 0.999."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (f[1:] / f[:-1]).clamp(min=0.001).cumprod(0)


FLAGS = {"image_size": SIDE, "channel_mult": "1,2", "attention_resolutions": "4"}
FLAGS |= {"num_res_blocks": 1, "resblock_updown": True}
GUIDED = {
    "linear, three classes and variances": (
        {"num_heads": 2, "learn_sigma": True, "class_cond": True},
        (linear_table, 1000, "eps", 2, 6, False, 1.0),
    ),
    "cosine, rescaled steps": (
        {
            "num_head_channels": 64,
            "noise_schedule": "cosine",
            "diffusion_steps": 50,
            "rescale_timesteps": True,
            "use_new_attention_order": True,
            "predict_xstart": True,
        },
        (cosine_table, 50, "x0", 4, 3, True, 20.0),
    ),
}


@functools.cache
def guided_weights(name):
    """Return flags, weights, and the network of these weights."""
    flags, (table, steps, kind, heads, outputs, new_order, unit) = GUIDED[name]
    w, y = Weights(), Y if flags.get("class_cond") else None

    @torch.no_grad()
    def network(x, t):
        label = torch.full((len(x),), unit * t).double()
        return guided(w, x, label, y, heads, outputs, new_order)[:, :3]

    network(normal(3, 3, SIDE, SIDE), 0.0)  # makes the weights
    return FLAGS | flags, dict(w), network, table(steps), kind


@pytest.mark.parametrize("name", GUIDED)
def test_an_imported_network_of_guided_diffusion_predicts_as_its_papers_say(name):
    flags, weights, network, table, kind = guided_weights(name)
    field = guided_diffusion.load(weights, flags).field.double()
    field = field.condition_on(y=Y) if "class_cond" in flags else field
    alpha_bar = torch.tensor(field.process.alpha_bar, dtype=torch.float64)
    torch.testing.assert_close(alpha_bar, table, rtol=1e-11, atol=0)
    for t in (0, len(table) // 3, len(table) - 1):
        x = normal(3, 3, SIDE, SIDE, seed=t)
        expected = network(x, float(t))
        torch.testing.assert_close(
            getattr(field(x, float(t)), kind), expected, rtol=1e-5, atol=1e-6
        )


def test_the_command_imports_a_network_of_guided_diffusion(tmp_path, capsys, monkeypatch):
    flags, weights, _, _, _ = guided_weights("cosine, rescaled steps")
    torch.save(weights, tmp_path / "ema.pt")
    (tmp_path / "flags.json").write_text(json.dumps(flags))
    config = tmp_path / "flags.json"
    finishes("import", tmp_path / "ema.pt", "--config", config, "--out", tmp_path / "run")
    expected = guided_diffusion.load(weights, flags)
    assert digest(sf.load(tmp_path / "run").field) == digest(expected.field)
    fails = failing(tmp_path, capsys, monkeypatch)
    assert "give the flags of model and diffusion" in fails(2, "import", "ema.pt", "--out", "new")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resblock_updown": False}, "resblock_updown=False: must be True; for others, build"),
        ({"num_channels": 64}, "num_channels=64: Input should be greater than or equal to 128"),
        ({"channel_mult": ""}, "channel_mult is missing for image_size=8"),
        ({"channel_mult": "0.5,1"}, "channel_mult.0='0.5'"),
        ({"noise_schedule": "sigmoid"}, "noise_schedule='sigmoid'"),
    ],
)
def test_flags_of_another_network_are_refused(changes, message):
    flags, weights, _, _, _ = guided_weights("cosine, rescaled steps")
    with pytest.raises(UsageError) as raised:
        guided_diffusion.load(weights, flags | changes)
    assert message in str(raised.value)


def test_weights_of_another_network_are_named():
    flags = guided_weights("cosine, rescaled steps")[0]
    weights = {"encoder.conv_in.weight": torch.zeros(1)}
    with pytest.raises(sf.errors.CheckpointError, match=r"UNetModel, .* it is a VAE"):
        guided_diffusion.load(weights, flags)


# --- DiT and SiT ----------------------------------------------------------------------------------

PATCH, LAYERS, HEADS, FEATURES = 2, 2, 2, 24


def transformer(w, x, label, y):
    """DiT by the names of its code, with learned variances."""

    def modulated(h, shift, scale):
        return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift

    def layer(name, h, size):
        return linear(w, name, h.flatten(0, -2), size).unflatten(0, h.shape[:-1])

    def modulation(name, count):
        return linear(w, f"{name}.adaLN_modulation.1", c, count * FEATURES)[:, None].chunk(
            count, -1
        )

    weight = w("x_embedder.proj.weight", FEATURES, 4, PATCH, PATCH)
    h = F.conv2d(x, weight, w("x_embedder.proj.bias", FEATURES), stride=PATCH).flatten(2).mT
    side = math.isqrt(h.shape[1])
    places = torch.arange(side).double()
    turns = places[:, None] * 1e-4 ** (torch.arange(FEATURES // 4) / (FEATURES // 4))
    waves = torch.cat([turns.sin(), turns.cos()], 1)
    grid = torch.cat([waves.repeat(side, 1), waves.repeat_interleave(side, 0)], 1)
    w["pos_embed"] = grid[None].float()
    h = h + grid
    angles = label[:, None] * 1e-4 ** (torch.arange(128) / 128)
    c = linear(w, "t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], 1), FEATURES)
    c = linear(w, "t_embedder.mlp.2", F.silu(c), FEATURES)
    c = F.silu(c + w("y_embedder.embedding_table.weight", CLASSES + 1, FEATURES)[y])
    for name in (f"blocks.{k}" for k in range(LAYERS)):
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation(name, 6)
        q, k, v = layer(f"{name}.attn.qkv", modulated(h, shift_1, scale_1), 3 * FEATURES).chunk(
            3, -1
        )
        h_1 = attend(q.mT, q.mT, k.mT, v.mT, HEADS).mT
        h = h + gate_1 * layer(f"{name}.attn.proj", h_1, FEATURES)
        h_2 = layer(f"{name}.mlp.fc1", modulated(h, shift_2, scale_2), 4 * FEATURES)
        h_2 = layer(f"{name}.mlp.fc2", F.gelu(h_2, approximate="tanh"), FEATURES)
        h = h + gate_2 * h_2
    h = modulated(h, *modulation("final_layer", 2))
    h = layer("final_layer.linear", h, 8 * PATCH**2).unflatten(1, (side, side))
    h = h.unflatten(3, (PATCH, PATCH, 8))  # rows, columns, and rows and columns of a patch
    return torch.einsum("bijpqc->bcipjq", h).reshape(len(x), 8, *x.shape[2:])[:, :4]


@functools.cache
def transformer_weights():
    w = Weights()
    transformer(w, normal(3, 4, SIDE, SIDE), torch.zeros(3).double(), Y)
    return dict(w)


@torch.no_grad()
def output(x, label, y):
    return transformer(Weights(transformer_weights()), x, torch.full((len(x),), label).double(), y)


MODEL = {"num_heads": HEADS}
NONE = torch.full((3,), CLASSES)


@pytest.mark.parametrize("y", [Y, None], ids=["classes", "no class"])
@pytest.mark.parametrize("t", [1.0, 400.0, 1000.0])
def test_a_dit_predicts_the_noise_of_a_step(t, y):
    weights = {"ema": transformer_weights(), "model": {}, "args": None}
    run = dit.load(weights, MODEL | {"model": "DiT-S/2"})
    assert (run.config.data.shape, run.config.data.classes.count) == ((4, SIDE, SIDE), CLASSES)
    field, x = run.field.double(), normal(3, 4, SIDE, SIDE, seed=1)
    table = torch.tensor(field.process.alpha_bar, dtype=torch.float64)
    torch.testing.assert_close(table, linear_table(1000), rtol=1e-11, atol=0)
    field = field if y is None else field.condition_on(y=y)
    expected = output(x, t - 1, NONE if y is None else y)
    torch.testing.assert_close(field(x, t - 1).eps, expected, rtol=1e-5, atol=1e-6)


def test_a_sit_runs_from_noise_to_data_as_its_own_sampler():
    """Its sampler integrates dx/du = F(x, u) for u from 0, which is noise, to 1."""
    run = dit.load(transformer_weights(), MODEL | {"model": "SiT-S/2"})
    field, x = run.field.double().condition_on(y=Y), normal(3, 4, SIDE, SIDE, seed=2)
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    expected = x
    for u, later in pairwise(times.tolist()):
        torch.testing.assert_close(-field(x, 1 - u).velocity, output(x, u, Y), rtol=1e-5, atol=1e-5)
        expected = expected + (later - u) * output(expected, u, Y)
    state = sf.State(x, torch.ones((), dtype=torch.float64), None)
    states = list(sf.integrate(field, sf.Euler(), state, 1 - times[:-1]))
    found = field(states[-1].x, states[-1].t).x0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_command_imports_a_dit_with_its_autoencoder(tmp_path, capsys, monkeypatch):
    """Of a checkpoint of DiT's training, which also holds the arguments of its command."""
    diffusers = pytest.importorskip("diffusers")
    sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4}
    sizes |= {"down_block_types": ("DownEncoderBlock2D",) * 2}
    sizes |= {"up_block_types": ("UpDecoderBlock2D",) * 2}
    diffusers.AutoencoderKL(**sizes).save_pretrained(tmp_path / "vae")
    content = {"model": {}, "ema": transformer_weights(), "args": argparse.Namespace(lr=1e-4)}
    torch.save(content, tmp_path / "0400000.pt")
    (tmp_path / "config.json").write_text(json.dumps(MODEL | {"model": "DiT-S/2"}))
    monkeypatch.chdir(tmp_path)
    words = ["import", "0400000.pt", "--config", "config.json", "--out"]
    finishes(*words, "run", "--pipeline", "vae")
    assert "DiT-S/2 by AutoencoderKL" in capsys.readouterr().out.replace("\n", " ")
    run = sf.load("run")
    assert run.sample(1, nfe=2).shape == (1, 3, 2 * SIDE, 2 * SIDE)
    assert digest(run.field) == digest(dit.load(content, MODEL | {"model": "DiT-S/2"}).field)
    fails = failing(tmp_path, capsys, monkeypatch)
    assert "give the name of the model" in fails(2, "import", "0400000.pt", "--out", "new")


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ({"model": "UViT-S/2"}, {}, "model='UViT-S/2'"),
        ({"model": "SiT-S/2", "path_type": "GVP"}, {}, "path_type='GVP'"),
        ({"model": "SiT-S/2", "prediction": "score"}, {}, "prediction='score'"),
        ({"model": "DiT-S/2"}, {"pos_embed": torch.zeros(1, 16, 24)}, "pos_embed does not have"),
        ({"model": "DiT-S/2"}, {"blocks.0.mlp.fc1.bias": torch.zeros(7)}, "has shape (7,)"),
        ({"model": "DiT-S/2"}, {"extra": torch.zeros(7)}, "unknown ['extra']"),
    ],
)
def test_a_transformer_that_is_not_known_is_refused(config, change, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        dit.load(transformer_weights() | change, MODEL | config)
    assert message in str(raised.value)


# --- the routes of the page -----------------------------------------------------------------------


@functools.cache
def routes():
    """Return the functions that the page gives for networks that are at hand as modules."""
    page = (Path(__file__).parents[1] / "docs" / "interop.md").read_text(encoding="utf-8")
    names = {"sf": sf, "torch": torch}
    part = page[page.index("### Flows whose time") : page.index("## Security")]
    for block in re.findall(r"```python\n(.*?)```", part, re.DOTALL):
        exec(block, names)
    return types.SimpleNamespace(**names)


class Exact(torch.nn.Module):
    """A network with the call of another library, by the exact field of a mixture."""

    def __init__(self, forward, **attributes):
        super().__init__()
        self.forward = forward
        for name, value in attributes.items():
            setattr(self, name, value)


def agree(found, exact, *times):
    for t in times:
        x = exact.process.perturb(normal(6, 2), t, normal(6, 2, seed=1))
        one, other = found(x, t), exact(x, t)
        torch.testing.assert_close(one.x0, other.x0, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(one.eps, other.eps, rtol=1e-6, atol=1e-7)


def test_the_route_of_flows_turns_time_around():
    exact = mixture(sf.Flow(t_max=1.0))

    def velocity(u, x):
        """Return E[x1 - x0 | x] on x = u x1 + (1 - u) x0, where x0 is noise."""
        return torch.stack(
            [
                exact(a[None], 1 - b).x0[0] - exact(a[None], 1 - b).eps[0]
                for a, b in zip(x, u, strict=True)
            ]
        )

    agree(routes().of_flow(Exact(velocity), (2,)), exact, 0.1, 0.6, 0.9)


@pytest.mark.parametrize(("objective", "kind"), [("noise", "eps"), ("x0", "x0"), ("v", "v")])
def test_the_route_of_denoising_diffusion_takes_table_and_objective(objective, kind):
    exact = mixture(sf.Tabulated(cosine_table(100)))
    diffusion = types.SimpleNamespace(
        model=Exact(lambda x, time: getattr(exact(x, time[0]), kind)),
        alphas_cumprod=cosine_table(100),
        channels=2,
        image_size=(),
        objective=f"pred_{objective}",
    )
    agree(routes().of_diffusion(diffusion), exact, 1.0, 50.0, 98.0)


def test_the_route_of_edm2_gives_a_denoiser_and_its_classes():
    exact, asked = mixture(sf.EDM(0.002, 80.0)), []

    def denoised(x, sigma, labels=None):
        asked.append(labels)
        return exact(x, sigma[0]).x0

    inner = Exact(denoised, label_dim=3, img_channels=2, img_resolution=0)
    field = sf.Denoiser(routes().EDM2(inner), exact.process, sf.X0(), (2,), label=sf.ratio_label)
    agree(field, exact, 0.01, 1.0, 70.0)
    field.condition_on(y=torch.tensor([2, -1]))(normal(2, 2), 1.0)
    assert torch.equal(asked[-1], tensor([0.0, 0.0, 1.0], [0.0, 0.0, 0.0]))
    full = routes().of_edm2(inner)
    assert (full.process, full.parametrization, full.label) == (
        exact.process,
        field.parametrization,
        field.label,
    )
