"""Pipelines of diffusers with tiny networks, built from configurations without any download.

`build` returns a pipeline with seeded weights and the arguments of a call, all but the number of
steps and the generator. The vocabularies are made up; any prompt of ASCII letters can be encoded.
"""

import functools
import string
from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import torch
import transformers

PROMPT = "a fox"
SD_TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
UNET_BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


class Tiny(NamedTuple):
    """A pipeline, and the arguments of a call."""

    pipeline: Any
    call: dict[str, Any]

    def __call__(self, **options: Any) -> Any:
        """Return the first output of the pipeline: latents, where it can return them."""
        return self.pipeline(**{**self.call, **options}, return_dict=False)[0]

    @property
    def network(self) -> torch.nn.Module:
        """The network that predicts."""
        for name in ("unet", "transformer", "prior", "decoder"):
            if getattr(self.pipeline, name, None) is not None:
                return getattr(self.pipeline, name)
        raise AttributeError(f"{type(self.pipeline).__name__} has no network.")


BUILDERS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {}


def builder(build):
    BUILDERS[build.__name__] = build
    return build


def build(name: str) -> Tiny:
    """Return a tiny pipeline; its weights are the same in every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline, call = BUILDERS[name]()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return Tiny(pipeline, call)


# text


@functools.cache
def words():
    """Return a vocabulary of ASCII characters, alone and at the end of a word."""
    return [*string.printable[:95], *(f"{letter}</w>" for letter in string.printable[:95])]


def clip_tokenizer(length=16):
    specials = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: k for k, word in enumerate([*words(), *specials])}
    return transformers.CLIPTokenizer(vocabulary, [], model_max_length=length)


def clip(width=8, kind="CLIPTextModel"):
    config = transformers.CLIPTextConfig(
        vocab_size=200,
        hidden_size=width,
        intermediate_size=8,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=190,
        eos_token_id=191,
        pad_token_id=191,
    )
    return getattr(transformers, kind)(config)


def t5_tokenizer(length=16):
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.printable[:95]]
    vocabulary = [(piece, -float(k)) for k, piece in enumerate(pieces)]
    return transformers.T5Tokenizer(vocabulary, extra_ids=0, model_max_length=length)


def t5(width=8, kind="T5"):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=100, d_model=width, d_ff=8, d_kv=4, num_layers=1, num_heads=2
    )
    return getattr(transformers, f"{kind}EncoderModel")(config)


# networks and autoencoders


def autoencoder(channels=4, blocks=1, **options):
    return diffusers.AutoencoderKL(
        block_out_channels=(4,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=8,
        **options,
    )


def text_unet(width=8, **options):
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (4, 8),
            "layers_per_block": 1,
            "cross_attention_dim": width,
            "norm_num_groups": 2,
            "attention_head_dim": 2,
            **UNET_BLOCKS,
            **options,
        }
    )


def ddim(**options):
    return diffusers.DDIMScheduler(**SD_TABLE, clip_sample=False, steps_offset=1, **options)


def euler_flow(**options):
    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


# pipelines


def stable_diffusion(kind="StableDiffusionPipeline", unet=None, scheduler=None, **parts):
    return getattr(diffusers, kind)(
        unet=unet or text_unet(),
        vae=autoencoder(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        scheduler=scheduler or ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )


GUIDED = {"prompt": PROMPT, "guidance_scale": 3.0, "output_type": "latent"}
SQUARE = {"height": 8, "width": 8}


@builder
def sd():
    return stable_diffusion(), GUIDED | SQUARE


@builder
def sdxl():
    return stable_diffusion_xl(), GUIDED | SQUARE


def stable_diffusion_xl(kind="StableDiffusionXLPipeline", scheduler=None, **parts):
    unet = text_unet(
        16,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8,
    )
    spaced = {"timestep_spacing": "leading", "steps_offset": 1}
    return getattr(diffusers, kind)(
        unet=unet,
        vae=autoencoder(),
        text_encoder=clip(),
        text_encoder_2=clip(kind="CLIPTextModelWithProjection"),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        scheduler=scheduler or diffusers.EulerDiscreteScheduler(**SD_TABLE, **spaced),
        add_watermarker=False,
        **parts,
    )


def stable_diffusion_3(kind="StableDiffusion3Pipeline", **parts):
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        caption_projection_dim=8,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=8,
    )
    return getattr(diffusers, kind)(
        transformer=transformer,
        vae=autoencoder(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=clip(kind="CLIPTextModelWithProjection"),
        text_encoder_2=clip(kind="CLIPTextModelWithProjection"),
        text_encoder_3=t5(16),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=t5_tokenizer(),
        scheduler=euler_flow(shift=3.0),
        **parts,
    )


@builder
def sd3():
    return stable_diffusion_3(), GUIDED | SQUARE | {"max_sequence_length": 16}


FLUX_SHIFT = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}


def flux_pipeline(kind="FluxPipeline", channels=4, scheduler=None, **parts):
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=channels,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=1,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 2, 2),
        guidance_embeds=True,
    )
    return getattr(diffusers, kind)(
        transformer=transformer,
        vae=autoencoder(1, shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False),
        text_encoder=clip(),
        text_encoder_2=t5(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
        scheduler=scheduler or euler_flow(**FLUX_SHIFT),
        **parts,
    )


@builder
def flux():
    return flux_pipeline(), GUIDED | SQUARE | {"max_sequence_length": 16}


def text_transformer(kind, **options):
    """Return a transformer of the PixArt family, of learned variance."""
    return getattr(diffusers, kind)(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=4,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        caption_channels=8,
        cross_attention_dim=8,
        attention_bias=True,
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        **options,
    )


def pixart_pipeline(kind):
    return getattr(diffusers, kind)(
        transformer=text_transformer("PixArtTransformer2DModel"),
        vae=autoencoder(),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
        scheduler=diffusers.DPMSolverMultistepScheduler(beta_schedule="linear"),
    )


PIXART = {"use_resolution_binning": False, "max_sequence_length": 16, "clean_caption": False}


@builder
def pixart():
    return pixart_pipeline("PixArtAlphaPipeline"), GUIDED | SQUARE | PIXART


@builder
def pixart_sigma():
    return pixart_pipeline("PixArtSigmaPipeline"), GUIDED | SQUARE | PIXART


@builder
def dit():
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=4,
        attention_head_dim=4,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    parts = {"transformer": transformer, "vae": autoencoder(scaling_factor=1.0)}
    made = diffusers.DiTPipeline(**parts, scheduler=diffusers.DDIMScheduler(clip_sample=False))
    return made, {"class_labels": [1], "guidance_scale": 2.0, "output_type": "np"}


@builder
def ltx():
    """The pipeline of LTX video."""
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=4,
        cross_attention_dim=8,
        num_layers=1,
        caption_channels=8,
    )
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(4,) * 4,
        decoder_block_out_channels=(4,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        patch_size=1,
        patch_size_t=1,
    )
    made = diffusers.LTXPipeline(
        transformer=transformer,
        vae=vae,
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
        scheduler=euler_flow(**FLUX_SHIFT, base_image_seq_len=1024, max_image_seq_len=4096),
    )
    size = {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 16}
    return made, GUIDED | size


@builder
def latte():
    made = diffusers.LattePipeline(
        transformer=text_transformer("LatteTransformer3DModel", video_length=2),
        vae=autoencoder(),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )
    return made, GUIDED | SQUARE | {"video_length": 2, "clean_caption": False}


@builder
def stable_audio():
    transformer = diffusers.StableAudioDiTModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        num_key_value_attention_heads=1,
        cross_attention_dim=4,
        cross_attention_input_dim=4,
        global_states_input_dim=8,
        time_proj_dim=8,
    )
    vae = diffusers.AutoencoderOobleck(
        encoder_hidden_size=4,
        downsampling_ratios=[1, 2],
        decoder_channels=2,
        decoder_input_channels=4,
        channel_multiples=[1, 2],
        sampling_rate=4,
    )
    projection = diffusers.StableAudioProjectionModel(
        text_encoder_dim=8, conditioning_dim=4, min_value=0, max_value=4
    )
    made = diffusers.StableAudioPipeline(
        transformer=transformer,
        vae=vae,
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
        projection_model=projection,
        scheduler=diffusers.DPMSolverMultistepScheduler(prediction_type="v_prediction"),
    )
    return made, GUIDED | {"audio_end_in_s": 2.0}
