"""Single files of Stable Diffusion give the networks of the pipeline they were made from."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from shell import failing, finishes

import scorefield as sf
from scorefield.field import digest

diffusers = pytest.importorskip("diffusers")

from scorefield.interop import single_file  # noqa: E402
from scorefield.interop.diffusers import load  # noqa: E402

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
RESNET |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
ENDS = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
ENDS |= {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
LAYERS = 1


def of_unet(name):
    """Return the name of the original code for a tensor of a UNet2DConditionModel."""
    for new, old in ENDS.items():
        if name.startswith(f"{new}."):
            return name.replace(new, old)
    if name.startswith("mid_block"):
        _, kind, k, rest = name.split(".", 3)
        place = f"middle_block.{MIDDLE[f'{kind}.{k}']}"
    else:
        way, i, kind, j, rest = name.split(".", 4)
        i, j = int(i), int(j)
        place = f"{'input' if way == 'down_blocks' else 'output'}_blocks."
        if kind == "downsamplers":
            return f"{place}{(i + 1) * (LAYERS + 1)}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"{place}{i * (LAYERS + 1) + LAYERS}.{1 + ATTENDING[i]}.{rest}"
        number = i * (LAYERS + 1) + j + (way == "down_blocks")
        place += f"{number}.{0 if kind == 'resnets' else 1}"
    layer, dot, kind = rest.rpartition(".")
    return f"{place}.{RESNET.get(layer, layer)}{dot}{kind}"


ATTENDING = [False, True]  # blocks on the way up


def of_vae(name, count=2):
    """Return the name of the original code for a tensor of an AutoencoderKL."""
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    up = re.search(r"up_blocks\.(\d+)", name)
    if up:
        level = count - 1 - int(up[1])
        name = re.sub(r"up_blocks\.\d+\.resnets\.(\d+)", rf"up.{level}.block.\1", name)
        name = re.sub(r"up_blocks\.\d+\.upsamplers\.0", f"up.{level}.upsample", name)
    for new, old in (
        *(("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2")),
        *(("mid_block.attentions.0", "mid.attn_1"), ("conv_norm_out", "norm_out")),
        *(("conv_shortcut", "nin_shortcut"), ("group_norm", "norm"), ("to_q", "q")),
        *(("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")),
    ):
        name = name.replace(new, old)
    return name


def original(unet, vae):
    """Return a state dict by the names of the original code."""
    weights = {f"model.diffusion_model.{of_unet(k)}": v for k, v in unet.state_dict().items()}
    for name, value in vae.state_dict().items():
        old = of_vae(name)
        image = "attn_1" in old and value.ndim == 2
        weights[f"first_stage_model.{old}"] = value[..., None, None] if image else value
    weights["cond_stage_model.transformer.text_model.final_layer_norm.bias"] = torch.zeros(3)
    return {name: value.clone().contiguous() for name, value in weights.items()}


SIZES = {"sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4}
SIZES |= {"layers_per_block": LAYERS, "attention_head_dim": 2, "cross_attention_dim": 6}
SIZES |= {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
SIZES |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
CODEC = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
CODEC |= {"down_block_types": ("DownEncoderBlock2D",) * 2}
CODEC |= {"up_block_types": ("UpDecoderBlock2D",) * 2, "sample_size": 16}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return a folder with a pipeline, and the single file of its networks."""
    path = tmp_path_factory.mktemp("single")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet, vae = diffusers.UNet2DConditionModel(**SIZES), diffusers.AutoencoderKL(**CODEC)
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    for part, name in ((unet, "unet"), (vae, "vae"), (scheduler, "scheduler")):
        part.save_pretrained(path / "pipeline" / name)
    weights = original(unet, vae)
    save_file(weights, path / "single.safetensors")
    torch.save({"state_dict": weights, "global_step": 7}, path / "single.ckpt")
    return path


def test_a_single_file_is_the_pipeline_of_its_networks(work):
    expected = load(work / "pipeline")
    for name in ("single.safetensors", "single.ckpt"):
        run = load(work / name, pipeline=work / "pipeline", pickle=True)
        assert digest(run.field) == digest(expected.field)
        states = (each.encoding.codec.state_dict() for each in (run, expected))
        one, other = states
        assert all(torch.equal(one[key], other[key]) for key in other)


def test_version_1_needs_no_configuration(work, monkeypatch):
    """Of smaller networks here: as few channels, and texts as wide as those of version 1."""
    monkeypatch.setattr(single_file, "_NETWORK", SIZES)
    monkeypatch.setattr(single_file, "_AUTOENCODER", CODEC)
    monkeypatch.setattr(single_file, "_FIRST", SIZES["cross_attention_dim"])
    run = load(work / "single.safetensors")
    alpha_bar = 1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    found = torch.tensor(run.field.process.alpha_bar, dtype=torch.float64)
    torch.testing.assert_close(found, alpha_bar.cumprod(0), rtol=1e-5, atol=0)
    assert isinstance(run.field.parametrization, sf.Eps)


def test_the_configurations_of_version_1_are_those_of_its_weights():
    """The published sizes: 859,520,964 parameters of the network, 83,653,863 of the autoencoder."""
    for name, settings, count in (
        ("UNet2DConditionModel", single_file._NETWORK, 859_520_964),
        ("AutoencoderKL", single_file._AUTOENCODER, 83_653_863),
    ):
        with torch.device("meta"):
            network = getattr(diffusers, name)(**settings)
        assert sum(p.numel() for p in network.parameters()) == count


def test_the_command_imports_a_single_file(work, tmp_path, capsys, monkeypatch):
    out, pipeline = tmp_path / "run", work / "pipeline"
    finishes("import", work / "single.safetensors", "--pipeline", pipeline, "--out", out)
    assert "of latents by AutoencoderKL" in capsys.readouterr().out.replace("\n", " ")
    fails = failing(work, capsys, monkeypatch)
    message = fails(2, "import", "single.safetensors", "--out", "new")
    assert "--pipeline: single.safetensors is not of version 1" in message
    message = fails(4, "import", "single.ckpt", "--pipeline", "pipeline", "--out", "new")
    assert "single.ckpt is a pickle" in message
    config = pipeline / "unet" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"layers_per_block": 2}))
    message = fails(4, "import", "single.safetensors", "--pipeline", "pipeline", "--out", "new")
    config.write_text(json.dumps(values))
    assert "does not have the UNet2DConditionModel of the configuration" in message
