"""Folders of diffusers in the forms in which people have them give the field of the pipeline."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from shell import failing, finishes
from test_interop import SMALL, TEXT, ddpm, latent_pipeline, network

import scorefield as sf
from scorefield.field import digest

diffusers = pytest.importorskip("diffusers")

from scorefield.interop.diffusers import load  # noqa: E402
from scorefield.interop.folders import _weights  # noqa: E402

WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return a folder with a pipeline of pixels, and one of latents."""
    path = tmp_path_factory.mktemp("folders")
    diffusers.DDPMPipeline(network(), ddpm()).save_pretrained(path / "pixels")
    latent_pipeline("VQModel").save_pretrained(path / "latents")
    return path


def same(source, expected, **options):
    """Assert that two sources give the same field."""
    one, other = load(source, **options), load(expected)
    assert digest(one.field) == digest(other.field)
    assert one.config.data.shape == other.config.data.shape


# --- networks alone -------------------------------------------------------------------------------


def test_a_network_alone_takes_the_scheduler_that_comes_with_it(work):
    same((work / "pixels" / "unet", ddpm()), work / "pixels")
    same(work / "pixels" / "unet", work / "pixels", pipeline=work / "pixels" / "scheduler")
    v = load((work / "pixels", ddpm(prediction_type="v_prediction")))
    assert isinstance(v.field.parametrization, sf.V)
    with pytest.raises(sf.errors.UsageError, match="has no scheduler: give the folder of the pipe"):
        load(work / "pixels" / "unet")


def test_a_pipeline_also_gives_the_autoencoder(work):
    same(work / "latents" / "unet", work / "latents", pipeline=work / "latents")
    alone = load(work / "latents" / "unet", pipeline=work / "latents" / "scheduler")
    assert alone.config.data.codec is None
    with pytest.raises(sf.errors.UsageError, match=r"pipeline=.* has no effect without a folder"):
        load((network(), ddpm()), pipeline=work / "latents")


def test_of_a_training_checkpoint_the_averages_are_taken(work, tmp_path):
    checkpoint, model = tmp_path / "checkpoint-500", network()
    average = diffusers.training_utils.EMAModel(
        model.parameters(), model_cls=type(model), model_config=model.config
    )
    average.shadow_params = [1.5 * p for p in average.shadow_params]
    average.save_pretrained(checkpoint / "unet_ema")
    shutil.copytree(work / "pixels" / "unet", checkpoint / "unet")
    torch.save({"param_groups": []}, checkpoint / "optimizer.bin")
    bias = load(checkpoint, pipeline=work / "pixels").field.network.inner.conv_in.bias
    torch.testing.assert_close(bias, 1.5 * model.conv_in.bias)
    same(checkpoint / "unet", work / "pixels", pipeline=work / "pixels")


# --- the cache of the hub -------------------------------------------------------------------------


def test_of_a_repository_in_the_cache_the_main_branch_is_taken(work, tmp_path):
    cache = tmp_path / "models--someone--something"
    for revision, part in (("aa11", "pixels"), ("bb22", "latents")):
        blobs = cache / "blobs" / revision
        shutil.copytree(work / part, blobs)
        for file in filter(lambda one: one.is_file(), blobs.rglob("*")):
            link = cache / "snapshots" / revision / file.relative_to(blobs)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    with pytest.raises(
        sf.errors.CheckpointError, match=r"give the folder of a snapshot.* aa11, bb"
    ):
        load(cache)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("bb22\n")
    same(cache, work / "latents")
    same(cache / "snapshots" / "aa11", work / "pixels")
    (cache / "refs" / "main").write_text("cc33")
    with pytest.raises(sf.errors.CheckpointError, match="no snapshot of its main branch"):
        load(cache)


# --- variants and shards --------------------------------------------------------------------------


def test_variants_are_chosen_by_name_and_the_autoencoder_has_its_own(work, tmp_path):
    path = tmp_path / "pipeline"
    shutil.copytree(work / "latents", path)
    weights = network(in_channels=4, out_channels=4).state_dict()
    stem = path / "unet" / WEIGHTS
    for factor, kind in ((2.0, "fp16"), (3.0, "non_ema")):
        save_file({k: factor * v for k, v in weights.items()}, f"{stem}.{kind}.safetensors")
    bias = weights["conv_in.bias"]

    def found(**options):
        return load(path, **options).field.network.inner.conv_in.bias

    assert torch.equal(found(), bias)
    assert torch.equal(found(variant="fp16"), 2 * bias)
    assert torch.equal(found(variant="non_ema"), 3 * bias)
    with pytest.raises(sf.errors.UsageError, match=r"variant='bf16': .* has fp16, non_ema"):
        found(variant="bf16")
    stem.with_suffix(".safetensors").unlink()
    with pytest.raises(sf.errors.UsageError, match="has several: give one of fp16, non_ema"):
        found()
    stem.with_suffix(".fp16.safetensors").unlink()
    assert torch.equal(found(), 3 * bias)


@pytest.mark.parametrize("variant", [None, "bf16"])
def test_safetensors_are_preferred_to_pickles(tmp_path, variant):
    end = "" if variant is None else f".{variant}"
    names = [f".bin.index{end}.json", f"{end}.bin", f"{end}.safetensors"]
    for name in names:
        (tmp_path / f"{WEIGHTS}{name}").touch()
    assert _weights(tmp_path, variant).name == f"{WEIGHTS}{names[-1]}"


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_weights_in_several_files_are_those_of_one(work, tmp_path, variant):
    path = tmp_path / "pipeline"
    shutil.copytree(work / "pixels", path)
    shutil.rmtree(path / "unet")
    inner = network()
    inner.save_pretrained(path / "unet", max_shard_size=4000, variant=variant)
    assert len(list((path / "unet").glob("*-of-*.safetensors"))) > 2
    same(path, work / "pixels", variant=variant)


def test_an_index_that_leads_outside_its_folder_is_refused(work, tmp_path):
    shutil.copytree(work / "pixels", tmp_path / "pipeline")
    index = tmp_path / "pipeline" / "unet" / f"{WEIGHTS}.safetensors.index.json"
    for places in ({"conv_in.bias": f"../../{WEIGHTS}.safetensors"}, ["a"], None):
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(sf.errors.CheckpointError, match="must name files next to it"):
            load(tmp_path / "pipeline")


# --- adapters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
def test_a_pipeline_with_an_adapter_is_the_field_of_both(fused):
    peft = pytest.importorskip("peft")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = diffusers.UNet2DConditionModel(**{**SMALL, **TEXT}).eval()
        options = {"r": 2, "init_lora_weights": False, "target_modules": ["to_q", "to_v", "conv1"]}
        states, x = torch.randn(1, 5, 6), torch.randn(3, 4, 8, 8)

    def eps():
        field = load((inner, ddpm())).field.condition_on(encoder_hidden_states=states)
        return field(x, 500.0).eps

    plain = eps()
    inner.add_adapter(peft.LoraConfig(**options))
    expected = inner(x, torch.tensor(500), states.expand(3, 5, 6)).sample
    assert (expected - plain).abs().max() > 0.05
    if fused:
        inner.fuse_lora()
    torch.testing.assert_close(eps(), expected, rtol=1e-4, atol=1e-4)
    if not fused:
        inner.disable_adapters()
        torch.testing.assert_close(eps(), plain)


# --- refusals and the command line ----------------------------------------------------------------

FLUX = "transformer_blocks.0.attn.to_q.weight", "single_transformer_blocks.0.norm.linear.weight"
CONTENTS = {
    "a LoRA adapter": ("unet.down_blocks.0.attn1.to_q.lora_A.weight",),
    "a LoRA adapter (with lora_unet": ("lora_unet_down_blocks_0_attn1_to_q.lora_down.weight",),
    "a Flux transformer": FLUX,
    "an SD3 transformer": ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",),
    "a checkpoint of Stable Diffusion XL": (
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
        "model.diffusion_model.input_blocks.0.0.weight",
    ),
    "a text encoder": ("text_model.embeddings.token_embedding.weight",),
    "a VAE": ("encoder.conv_in.weight", "decoder.conv_in.weight"),
    "a network of EDM2": ("unet.enc.64x64_conv.weight", "unet.out_gain"),
    "a network of diffusers": ("down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"),
    "its content is unknown (it begins with a.b, c)": ("c", "a.b"),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_refusal_names_the_content_of_a_file(tmp_path, capsys, monkeypatch, content):
    save_file({name: torch.zeros(1) for name in CONTENTS[content]}, tmp_path / "x.safetensors")
    fails = failing(tmp_path, capsys, monkeypatch)
    assert content in fails(2, "import", "x.safetensors", "--out", "new")


def test_a_refusal_names_the_content_of_a_checkpoint_and_of_a_folder(tmp_path, capsys, monkeypatch):
    fails = failing(tmp_path, capsys, monkeypatch)
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.bin")
    assert "the state of an optimizer" in fails(2, "import", "optimizer.bin", "--out", "new")
    lightning = {"pytorch-lightning_version": "2", "state_dict": {"net.0.weight": torch.zeros(2)}}
    torch.save(lightning, tmp_path / "last.ckpt")
    assert "a checkpoint of Lightning" in fails(2, "import", "last.ckpt", "--out", "new")
    (tmp_path / "lora").mkdir()
    weights = {"unet.mid_block.to_q.lora_B.weight": torch.zeros(2)}
    save_file(weights, tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    assert "pytorch_lora_weights.safetensors, it is a LoRA" in fails(
        4, "import", "lora", "--out", "new"
    )
    (tmp_path / "empty").mkdir()
    assert "give the folder of a pipeline" in fails(4, "import", "empty", "--out", "new")


def test_the_command_imports_a_network_alone(work, tmp_path, capsys, monkeypatch):
    source, pipeline = work / "latents" / "unet", work / "latents"
    finishes("import", source, "--pipeline", pipeline, "--out", tmp_path / "run")
    assert digest(sf.load(tmp_path / "run").field) == digest(load(pipeline).field)
    fails = failing(work, capsys, monkeypatch)
    assert "--pipeline: latents/unet has no scheduler" in fails(
        2, *["import", "latents/unet", "--out", "new"]
    )
    assert "--variant 'fp16': " in fails(
        2, *["import", "latents", "--variant", "fp16", "--out", "new"]
    )
