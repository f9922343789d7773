"""DDPM++, NCSN++ and ADM compute what other implementations of the same papers do.

Weights are random throughout, for what starts at zero would hide what stands before it.
"""

import numpy as np
import pytest
import torch
from cases import classes, normal
from torch import nn

from scorefield.data.config import ClassChannel
from scorefield.networks import ADM, SongUNet
from scorefield.networks.resample import Double, Halve
from scorefield.networks.residual import Block, Style
from scorefield.runs import build
from scorefield.training import config as c

signal = pytest.importorskip("scipy.signal")
diffusers = pytest.importorskip("diffusers")

from diffusers.models.resnet import ResnetBlock2D  # noqa: E402

TAPS = [(1, 1), (1, 3, 3, 1), (1, 2, 4, 1), (3, -1)]
SONG = Style(scaled=False, rescaled=True, projected=True, eps=1e-6)
NCSN = Style(scaled=False, rescaled=True, projected=True, eps=1e-6, taps=(1, 3, 3, 1))
ADAPTIVE = Style(scaled=True, rescaled=False, projected=False, eps=1e-5, head=64)


def random(module, seed=0):
    """Return a module in float64 all of whose parameters are random; norms scale by about 1."""
    for k, (name, p) in enumerate(module.named_parameters()):
        spread = 0.3 / max(1, p[0].numel()) ** 0.5
        p.data = spread * normal(*p.shape, seed=seed + k)
        if p.ndim == 1 and name.endswith("weight"):
            p.data += 1
    return module.double().eval()


def close(found, expected, tolerance=1e-12):
    """Assert equality relative to the values' size; float64 unless frequencies are rounded."""
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


# --- between resolutions --------------------------------------------------------------------------


def along_both(x, step):
    return np.apply_along_axis(step, -1, np.apply_along_axis(step, -2, x.numpy()))


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("size", [(6, 8), (2, 4)])
def test_halving_is_scipys_filter_at_every_other_pixel(taps, size):
    x, reach = normal(2, 3, *size), len(taps) // 2
    weights = np.array(taps[::-1]) / sum(taps)

    def step(row):
        return signal.upfirdn(weights, row)[reach::2][: len(row) // 2]

    close(Halve(taps)(x), torch.tensor(along_both(x, step)))


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("size", [(3, 4), (1, 2)])
def test_doubling_is_scipys_filter_between_zeros(taps, size):
    x, reach = normal(2, 3, *size), len(taps) // 2
    weights = 2 * np.array(taps) / sum(taps)

    def step(row):
        return signal.upfirdn(weights, row, up=2)[reach - 1 :][: 2 * len(row)]

    close(Double(taps)(x), torch.tensor(along_both(x, step)))


def test_two_equal_taps_are_the_mean_of_four_pixels_and_each_pixel_four_times():
    x = normal(2, 3, 4, 6)
    close(Halve((1, 1))(x), nn.functional.avg_pool2d(x, 2))
    close(Double((1, 1))(x), nn.functional.interpolate(x, scale_factor=2, mode="nearest"))


def test_without_padding_only_pixels_are_returned_that_all_taps_have_seen():
    x = normal(2, 3, 8, 8)
    inner = Halve((1, 3, 3, 1))(x)[..., 1:-1, 1:-1]
    close(Halve((1, 3, 3, 1), padded=False)(x[..., 1:-1, 1:-1]), inner)


@pytest.mark.parametrize("taps", [(1, 2, 1), (1, -1)])
def test_a_filter_that_cannot_be_is_refused(taps):
    with pytest.raises(ValueError, match="an even number of values that do not sum to 0"):
        Halve(taps)


# --- blocks ---------------------------------------------------------------------------------------

LAYERS = {
    "norm1": "norm1",
    "conv1": "conv1",
    "modulation": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "skip": "conv_shortcut",
}


def of_diffusers(block, inputs, outputs, style, **options):
    """Return diffusers' block with the same weights."""
    made = ResnetBlock2D(
        in_channels=inputs,
        out_channels=outputs,
        temb_channels=20,
        groups=min(32, inputs // 4),
        groups_out=min(32, outputs // 4),
        eps=style.eps,
        time_embedding_norm="scale_shift" if style.scaled else "default",
        output_scale_factor=2**0.5 if style.rescaled else 1.0,
        **options,
    ).double()
    held = {}
    for name, value in block.state_dict().items():
        layer, kind = name.rsplit(".", 1)
        held[f"{LAYERS[layer]}.{kind}"] = value
    made.load_state_dict(held)
    return made


@pytest.mark.parametrize(
    ("style", "kernel"), [(SONG, "sde_vp"), (NCSN, "fir")], ids=["DDPM++", "NCSN++"]
)
@pytest.mark.parametrize(
    ("way", "sizes"),
    [(None, (12, 12)), (None, (12, 24)), ("down", (12, 12)), ("up", (12, 12))],
)
def test_a_block_of_ddpm_and_ncsn_is_that_of_diffusers(style, kernel, way, sizes):
    move = {None: None, "down": Halve(style.taps), "up": Double(style.taps)}[way]
    block = random(Block(*sizes, 20, style, move))
    options = {"kernel": kernel, way: True, "use_in_shortcut": True} if way else {}
    x, embedding = normal(2, sizes[0], 4, 6), normal(2, 20, seed=1)
    theirs = of_diffusers(block, *sizes, style, **options)
    # its filter is single precision
    close(block(x, nn.functional.silu(embedding)), theirs(x, embedding), 1e-6)


@pytest.mark.parametrize("way", [None, "down", "up"])
def test_a_block_of_adm_is_that_of_diffusers(way):
    style, sizes = ADAPTIVE, (12, 12) if way else (12, 24)
    move = {None: None, "down": Halve(style.taps), "up": Double(style.taps)}[way]
    block = random(Block(*sizes, 20, style, move))
    x, embedding = normal(2, 12, 4, 6), normal(2, 20, seed=1)
    theirs = of_diffusers(block, *sizes, style, **({way: True} if way else {}))
    close(block(x, nn.functional.silu(embedding)), theirs(x, embedding))


# --- whole networks -------------------------------------------------------------------------------

WIDTH = 128  # where diffusers' own number of groups, 32, is that of the papers
WHOLE = {"sample_size": 8, "block_out_channels": [WIDTH, WIDTH], "layers_per_block": 1}


def renamed(ours, theirs, blocks, layers):
    """Load the weights of our network into diffusers'."""
    held = {}

    def put(a, b):
        for kind in ("weight", "bias"):
            held[f"{b}.{kind}"] = ours.get_parameter(f"{a}.{kind}")

    for a, b in layers.items():
        put(a, b)
    for a, b in blocks.items():
        block = ours.get_submodule(a)
        resnet, _, attention = b.partition(" ")
        for name in LAYERS:
            if f"{name}.weight" in block.state_dict():
                put(f"{a}.{name}", f"{resnet}.{LAYERS[name]}")
        if attention:
            put(f"{a}.attention.norm", f"{attention}.group_norm")
            enter, leave = block.attention.enter, block.attention.leave
            for k, name in enumerate(("to_q", "to_k", "to_v")):
                rows = slice(k * WIDTH, (k + 1) * WIDTH)
                held[f"{attention}.{name}.weight"] = enter.weight[rows, :, 0, 0]
                held[f"{attention}.{name}.bias"] = enter.bias[rows]
            held[f"{attention}.to_out.0.weight"] = leave.weight[:, :, 0, 0]
            held[f"{attention}.to_out.0.bias"] = leave.bias
    fixed = {name: v for name, v in theirs.state_dict().items() if name.startswith("time_proj")}
    theirs.double().load_state_dict(held | {name: v.double() for name, v in fixed.items()})
    return theirs.eval()


COMMON = {
    "trunk.enter": "conv_in",
    "embedding.mix.0": "time_embedding.linear_1",
    "embedding.mix.2": "time_embedding.linear_2",
    "trunk.up.1.leave.0": "conv_norm_out",
    "trunk.up.1.leave.2": "conv_out",
}
MIDDLE = {
    "trunk.middle.0": "mid_block.resnets.0 mid_block.attentions.0",
    "trunk.middle.1": "mid_block.resnets.1",
}


@torch.no_grad()
def test_ncsn_with_the_image_beside_is_that_of_diffusers():
    theirs = diffusers.UNet2DModel(
        time_embedding_type="fourier",
        down_block_types=["SkipDownBlock2D", "AttnSkipDownBlock2D"],
        up_block_types=["AttnSkipUpBlock2D", "SkipUpBlock2D"],
        mid_block_scale_factor=2**0.5,
        norm_eps=1e-6,
        attention_head_dim=None,
        **WHOLE,
    )
    network = SongUNet(
        3,
        WIDTH,
        (1, 1),
        attention=(1,),
        embedding="fourier",
        widening=2,
        encoder="skip",
        decoder="skip",
        taps=(1, 3, 3, 1),
    )
    random(network).embedding.noise.frequencies = theirs.time_proj.weight.data.double()
    up = "up_blocks.0.attentions.0"
    blocks = MIDDLE | {
        "trunk.down.0.blocks.0": "down_blocks.0.resnets.0",
        "trunk.down.1.shrink": "down_blocks.0.resnet_down",
        "trunk.down.1.blocks.0": "down_blocks.1.resnets.0 down_blocks.1.attentions.0",
        "trunk.up.0.blocks.0": "up_blocks.0.resnets.0",
        "trunk.up.0.blocks.1": f"up_blocks.0.resnets.1 {up}",
        "trunk.up.1.grow": "up_blocks.0.resnet_up",
        "trunk.up.1.blocks.0": "up_blocks.1.resnets.0",
        "trunk.up.1.blocks.1": "up_blocks.1.resnets.1",
    }
    layers = COMMON | {
        "trunk.down.1.side.conv": "down_blocks.0.skip_conv",
        "trunk.up.0.leave.0": "up_blocks.0.skip_norm",
        "trunk.up.0.leave.2": "up_blocks.0.skip_conv",
    }
    renamed(network, theirs, blocks, layers)
    x, sigma = normal(2, 3, 8, 8), torch.tensor([0.3, 7.0], dtype=torch.float64)
    expected = sigma[:, None, None, None] * theirs(x, sigma).sample  # it divides by them at last
    close(network(x, sigma.log()), expected, 1e-6)  # its filter is single precision


@torch.no_grad()
def test_adm_is_that_of_diffusers():
    theirs = diffusers.UNet2DModel(
        down_block_types=["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attn_norm_num_groups=32,
        attention_head_dim=64,
        flip_sin_to_cos=False,
        num_class_embeds=4,
        **WHOLE,
    )
    network = random(ADM(3, WIDTH, (1, 1), attention=(1,), head=64, conditions=classes(3)))
    attention = "up_blocks.0.attentions"
    blocks = MIDDLE | {
        "trunk.down.0.blocks.0": "down_blocks.0.resnets.0",
        "trunk.down.1.shrink": "down_blocks.0.downsamplers.0",
        "trunk.down.1.blocks.0": "down_blocks.1.resnets.0 down_blocks.1.attentions.0",
        "trunk.up.0.blocks.0": f"up_blocks.0.resnets.0 {attention}.0",
        "trunk.up.0.blocks.1": f"up_blocks.0.resnets.1 {attention}.1",
        "trunk.up.1.grow": "up_blocks.0.upsamplers.0",
        "trunk.up.1.blocks.0": "up_blocks.1.resnets.0",
        "trunk.up.1.blocks.1": "up_blocks.1.resnets.1",
    }
    theirs.class_embedding.weight.data = network.embedding.conditions.y.weight.data
    of_class = {"class_embedding.weight": theirs.class_embedding.weight}
    load = theirs.load_state_dict
    theirs.load_state_dict = lambda held: load(held | of_class)
    renamed(network, theirs, blocks, COMMON)
    x, label, y = normal(2, 3, 8, 8), torch.tensor([3.0, 900.0]).double(), torch.tensor([-1, 2])
    close(network(x, label, y=y), theirs(x, label, y + 1).sample, 1e-6)  # frequencies are rounded


# --- the networks of the papers -------------------------------------------------------------------

PUBLISHED = {
    # Karras et al. (2022), arXiv:2206.00364, table 7; millions of parameters
    "DDPM++ of 32 pixels": (
        c.SongConfig(width=128, multipliers=(2, 2, 2), blocks=4, attention=(1,)),
        32,
        0,
        55.7,
    ),
    "DDPM++ of 64 pixels": (
        c.SongConfig(width=128, multipliers=(1, 2, 2, 2), blocks=4, attention=(2,)),
        64,
        0,
        61.8,
    ),
    "ADM of 64 pixels": (
        c.ADMConfig(width=192, multipliers=(1, 2, 3, 4), blocks=3, attention=(1, 2, 3)),
        64,
        1000,
        295.9,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_of_the_papers_have_the_published_number_of_parameters(name):
    config, side, count, millions = PUBLISHED[name]
    channels = (ClassChannel(name="y", count=count),) if count else ()
    network = build.outline(build.Design(config, (3, side, side), channels))
    found = sum(p.numel() for p in network.parameters()) / 1e6
    assert abs(found - millions) < 0.1


@pytest.mark.parametrize("network", [c.SongConfig(), c.ADMConfig(multipliers=(1, 2, 4))])
def test_images_that_do_not_halve_are_refused(network):
    levels = len(build.concrete_network(network, (3, 8, 8)).multipliers)
    with pytest.raises(ValueError, match=f"8 by 7 pixels: both sides.*between the {levels} levels"):
        build.network(build.Design(network, (3, 8, 7)))
    made = build.network(build.Design(network, (3, 8, 8)))
    with pytest.raises(ValueError, match="7 by 8 pixels: both sides must be multiples of"):
        made(torch.zeros(1, 3, 7, 8), torch.zeros(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SongUNet(3, 10), "width=10: must be a multiple of 4"),
        (lambda: SongUNet(3, 8, attention=(0, 2)), "attention=2: must be a scale from 0 to 1"),
        (lambda: SongUNet(3, 2**17), "width=131072"),
        (lambda: ADM(3, 64, attention=(2,)), "attention=2: must be a scale"),
        (lambda: ADM(3, 24, head=64), r"width=24, head=64.*\[48\], multiples of head"),
        (lambda: ADM(3, 10, head=2), "width must be a multiple of 4"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [SongUNet, ADM])
def test_without_a_class_there_is_nothing_where_nothing_was_learned(kind):
    network = kind(2, 64, conditions=classes(3, optional=False))
    x, label = normal(2, 2, 4, 4).float(), torch.zeros(2)
    network(x, label, y=torch.tensor([0, 2]))
    for y in (None, torch.tensor([0, -1])):
        with pytest.raises(ValueError, match="classes 0 to 2; it cannot go without a class"):
            network(x, label, y=y)


@pytest.mark.parametrize("embedding", ["positional", "fourier"])
def test_labels_are_embedded_by_the_published_sinusoids(embedding):
    network = SongUNet(1, 8, embedding=embedding, widening=2)
    noise = network.embedding.noise
    label = torch.tensor([0.7, 500.0])
    if embedding == "fourier":
        noise.phases = torch.linspace(0, 1, 8)
        angles = 2 * np.pi * (label[:, None] * noise.frequencies + noise.phases)
        assert 4 < SongUNet(1, 512, embedding=embedding).embedding.noise.frequencies.std() < 30
    else:
        angles = label[:, None] / 10_000 ** (torch.arange(8) / 7)
        of_adm = ADM(1, 16, head=8).embedding.noise(label)
        later = label[:, None] / 10_000 ** (torch.arange(8) / 8)
        torch.testing.assert_close(of_adm, torch.cat([later.sin(), later.cos()], 1))
    torch.testing.assert_close(noise(label), torch.cat([angles.sin(), angles.cos()], 1))
