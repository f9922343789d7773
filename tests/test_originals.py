"""Checkpoints of guided-diffusion, DiT and SiT as runs: they predict by the papers' formulas.

The networks are written here a second time, as in `test_edm_score_sde`.
"""

import functools
import json
import math

import pytest
import torch
from cases import normal
from shell import failing, finishes
from test_edm_score_sde import Weights, attend, conv, linear, norm
from torch.nn import functional as F

import scorefield as sf
from scorefield._internal.errors import UsageError
from scorefield.field import digest
from scorefield.interop import guided_diffusion
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
