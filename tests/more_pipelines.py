"""More tiny pipelines of diffusers: by images, masks and embeddings, of videos and of audio."""

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image
from tiny_pipelines import (
    FLUX_SHIFT,
    GUIDED,
    PROMPT,
    SQUARE,
    autoencoder,
    builder,
    clip,
    clip_tokenizer,
    ddim,
    euler_flow,
    flux_pipeline,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
    t5,
    t5_tokenizer,
    text_unet,
)

LATENT = {"output_type": "latent"}
EMBEDDED = {"prompt": None, "guidance_scale": 3.0, **LATENT}
PIXELS = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}


def picture(seed=0, channels=3):
    numbers = np.random.default_rng(seed).integers(0, 255, (8, 8, channels), np.uint8)
    return Image.fromarray(numbers.squeeze())


def mask():
    half = np.zeros((8, 8), np.uint8)
    half[:4] = 255
    return Image.fromarray(half)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def embeddings(*shape, negative=True):
    """Return embeddings of a prompt and of a negative one."""
    both = {"prompt_embeds": numbers(1, *shape)}
    return both | ({"negative_prompt_embeds": numbers(1, *shape, seed=1)} if negative else {})


# pixels


def pixel_unet(channels=2):
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(4,),
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=4,
        **PIXELS,
    )


@builder
def ddpm():
    return diffusers.DDPMPipeline(pixel_unet(), diffusers.DDPMScheduler()), {"output_type": "np"}


@builder
def ddim_pixels():
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return diffusers.DDIMPipeline(pixel_unet(), scheduler), {"output_type": "np"}


@builder
def ldm():
    vqvae = diffusers.VQModel(
        block_out_channels=(4,), latent_channels=2, num_vq_embeddings=8, norm_num_groups=2
    )
    made = diffusers.LDMPipeline(vqvae, pixel_unet(), ddim())
    return made, {"output_type": "np"}


@builder
def deepfloyd():
    """The first stage of DeepFloyd IF: pixels, learned variance, dynamic thresholding."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=3,
        out_channels=6,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=32,
        encoder_hid_dim=8,
        attention_head_dim=4,
        norm_num_groups=2,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
    )
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
        variance_type="learned_range",
    )
    made = diffusers.IFPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    return made, {
        "prompt": PROMPT,
        "guidance_scale": 3.0,
        "output_type": "pt",
        "clean_caption": False,
        **SQUARE,
    }


# Stable Diffusion and its relatives


@builder
def sd_v_prediction():
    scheduler = ddim(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    scheduler.register_to_config(timestep_spacing="trailing")
    return stable_diffusion(scheduler=scheduler), GUIDED | SQUARE


@builder
def sd_img2img():
    made = stable_diffusion("StableDiffusionImg2ImgPipeline")
    return made, GUIDED | {"image": picture(), "strength": 0.7}


@builder
def sd_inpaint():
    made = stable_diffusion("StableDiffusionInpaintPipeline")
    return made, GUIDED | SQUARE | {"image": picture(), "mask_image": mask(), "strength": 1.0}


@builder
def sd_controlnet():
    unet = text_unet()
    control = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4,))
    made = stable_diffusion("StableDiffusionControlNetPipeline", unet=unet, controlnet=control)
    return made, GUIDED | SQUARE | {"image": picture()}


@builder
def sd_pix2pix():
    made = stable_diffusion("StableDiffusionInstructPix2PixPipeline", unet=text_unet(in_channels=8))
    return made, GUIDED | {"image": picture(), "image_guidance_scale": 1.5}


@builder
def sd_pag():
    made = stable_diffusion("StableDiffusionPAGPipeline", pag_applied_layers=["mid", "up"])
    return made, GUIDED | SQUARE | {"pag_scale": 1.0}


@builder
def sdxl_img2img():
    made = stable_diffusion_xl("StableDiffusionXLImg2ImgPipeline")
    return made, GUIDED | {"image": picture(), "strength": 0.7}


@builder
def sdxl_inpaint():
    made = stable_diffusion_xl("StableDiffusionXLInpaintPipeline")
    return made, GUIDED | SQUARE | {"image": picture(), "mask_image": mask(), "strength": 0.9}


@builder
def sdxl_edm():
    """The pipeline of Playground 2.5, with a network of EDM."""
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.5)
    return stable_diffusion_xl(scheduler=scheduler), GUIDED | SQUARE


@builder
def animatediff():
    blocks = {"block_out_channels": (4, 8), "motion_norm_num_groups": 2}
    motion = diffusers.MotionAdapter(
        motion_layers_per_block=1, motion_num_attention_heads=2, **blocks
    )
    made = diffusers.AnimateDiffPipeline(
        unet=text_unet(),
        vae=autoencoder(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        motion_adapter=motion,
        scheduler=ddim(),
    )
    return made, GUIDED | SQUARE | {"num_frames": 2}


@builder
def kandinsky22():
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=8,
        encoder_hid_dim=8,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        attention_head_dim=4,
        norm_num_groups=2,
        resnet_time_scale_shift="scale_shift",
    )
    movq = diffusers.VQModel(
        block_out_channels=(4,), latent_channels=4, num_vq_embeddings=8, norm_num_groups=2
    )
    made = diffusers.KandinskyV22Pipeline(unet=unet, scheduler=ddim(), movq=movq)
    images = {"image_embeds": numbers(1, 8), "negative_image_embeds": numbers(1, 8, seed=1)}
    return made, images | LATENT | {"guidance_scale": 3.0, "height": 64, "width": 64}


@builder
def kandinsky3():
    unet = diffusers.Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=4,
        groups=2,
        attention_head_dim=4,
        layers_per_block=3,
        block_out_channels=(32, 64),
        cross_attention_dim=4,
        encoder_hid_dim=8,
    )
    movq = diffusers.VQModel(
        block_out_channels=(4,), latent_channels=4, num_vq_embeddings=8, norm_num_groups=2
    )
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    parts = {"unet": unet, "movq": movq, "scheduler": scheduler}
    made = diffusers.Kandinsky3Pipeline(tokenizer=t5_tokenizer(), text_encoder=t5(), **parts)
    return made, GUIDED | {"height": 64, "width": 64}


@builder
def svd():
    """Stable Video Diffusion: labelled by the noise level, from an image."""
    unet = diffusers.UNetSpatioTemporalConditionModel(
        sample_size=8,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=8,
        num_attention_heads=2,
        projection_class_embeddings_input_dim=12,
        addition_time_embed_dim=4,
    )
    config = transformers.CLIPVisionConfig(
        hidden_size=8,
        projection_dim=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        intermediate_size=8,
        patch_size=112,
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    vae = diffusers.AutoencoderKLTemporalDecoder(block_out_channels=(32,), latent_channels=4)
    made = diffusers.StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=transformers.CLIPVisionModelWithProjection(config),
        unet=unet,
        scheduler=scheduler,
        feature_extractor=transformers.CLIPImageProcessor(
            crop_size={"height": 224, "width": 224}, size={"shortest_edge": 224}
        ),
    )
    return made, SQUARE | LATENT | {"image": picture(), "num_frames": 2}


# transformers on tables


@builder
def hunyuan_dit():
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        hidden_size=16,
        cross_attention_dim=8,
        cross_attention_dim_t5=8,
        pooled_projection_dim=8,
        text_len=16,
        text_len_t5=16,
    )
    made = diffusers.HunyuanDiTPipeline(
        transformer=transformer,
        vae=autoencoder(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=diffusers.DDPMScheduler(
            prediction_type="v_prediction", clip_sample=False, beta_end=0.03
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    call = EMBEDDED | {"height": 16, "width": 16, "use_resolution_binning": False}
    for end in ("", "_2"):
        for sign in ("", "negative_"):
            call[f"{sign}prompt_embeds{end}"] = numbers(1, 16, 8, seed=len(end + sign))
            call[f"{sign}prompt_attention_mask{end}"] = torch.ones(1, 16).long()
    return made, call


@builder
def cogvideox():
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=8,
        num_layers=1,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        max_text_seq_length=16,
    )
    down, up = ("CogVideoXDownBlock3D",) * 4, ("CogVideoXUpBlock3D",) * 4
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=down,
        up_block_types=up,
        block_out_channels=(4,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    scheduler = diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    made = diffusers.CogVideoXPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        vae=vae,
        transformer=transformer,
        scheduler=scheduler,
    )
    size = {"height": 16, "width": 16, "num_frames": 8, "max_sequence_length": 16}
    return made, GUIDED | size


@builder
def cogview3():
    transformer = diffusers.CogView3PlusTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        text_embed_dim=8,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=8,
        sample_size=8,
    )
    made = diffusers.CogView3PlusPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        vae=autoencoder(),
        transformer=transformer,
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )
    return made, GUIDED | {"height": 16, "width": 16, "max_sequence_length": 16}


@builder
def allegro():
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=24,
        sample_width=4,
        sample_height=4,
        sample_frames=2,
        caption_channels=8,
    )
    vae = diffusers.AutoencoderKLAllegro(
        block_out_channels=(4,) * 4,
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    made = diffusers.AllegroPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.EulerAncestralDiscreteScheduler(),
    )
    size = {"height": 16, "width": 16, "num_frames": 8, "max_sequence_length": 16}
    return made, GUIDED | size | {"clean_caption": False}


# flows


@builder
def sd3_img2img():
    made = stable_diffusion_3("StableDiffusion3Img2ImgPipeline")
    text = {"max_sequence_length": 16}
    return made, GUIDED | SQUARE | text | {"image": picture(), "strength": 0.7}


@builder
def flux_img2img():
    made = flux_pipeline("FluxImg2ImgPipeline")
    text = {"max_sequence_length": 16}
    return made, GUIDED | SQUARE | text | {"image": picture(), "strength": 0.7}


@builder
def flux_inpaint():
    made, text = flux_pipeline("FluxInpaintPipeline"), {"max_sequence_length": 16}
    images = {"image": picture(), "mask_image": mask(), "strength": 1.0}
    return made, GUIDED | SQUARE | text | images


@builder
def chroma():
    transformer = diffusers.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=1,
        joint_attention_dim=8,
        axes_dims_rope=(4, 2, 2),
        approximator_num_channels=8,
        approximator_hidden_dim=8,
        approximator_layers=1,
    )
    made = diffusers.ChromaPipeline(
        transformer=transformer,
        vae=autoencoder(1),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
        scheduler=euler_flow(use_beta_sigmas=True, **FLUX_SHIFT),
    )
    return made, GUIDED | SQUARE | {"max_sequence_length": 16}


@builder
def aura_flow():
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        caption_projection_dim=8,
        joint_attention_dim=8,
        pos_embed_max_size=16,
    )
    made = diffusers.AuraFlowPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(kind="UMT5"),
        vae=autoencoder(),
        transformer=transformer,
        scheduler=euler_flow(shift=1.73),
    )
    return made, GUIDED | SQUARE | {"max_sequence_length": 16}


@builder
def sana():
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=8,
    )
    vae = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
    )
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    made = diffusers.SanaPipeline(None, None, vae, transformer, scheduler)
    ones = torch.ones(1, 16).long()
    masks = {"prompt_attention_mask": ones, "negative_prompt_attention_mask": ones}
    size = {"height": 32, "width": 32, "use_resolution_binning": False, "negative_prompt": None}
    return made, EMBEDDED | size | embeddings(16, 8) | masks


@builder
def lumina2():
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=8,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(32, 32, 32),
        cap_feat_dim=8,
    )
    tokenizer = transformers.GemmaTokenizer({"<unk>": 0, "<bos>": 1, "<eos>": 2, "<pad>": 3}, [])
    made = diffusers.Lumina2Pipeline(
        transformer, euler_flow(shift=6.0), autoencoder(), None, tokenizer
    )
    ones = torch.ones(1, 16).long()
    masks = {"prompt_attention_mask": ones, "negative_prompt_attention_mask": ones}
    return made, EMBEDDED | {"height": 16, "width": 16} | embeddings(16, 8) | masks


@builder
def qwen_image():
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=1,
        joint_attention_dim=8,
        axes_dims_rope=(4, 2, 2),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    scheduler = euler_flow(**{**FLUX_SHIFT, "shift": 1.0}, shift_terminal=0.02)
    made = diffusers.QwenImagePipeline(scheduler, vae, None, None, transformer)
    ones = torch.ones(1, 16).long()
    masks = {"prompt_embeds_mask": ones, "negative_prompt_embeds_mask": ones}
    call = LATENT | SQUARE | embeddings(16, 8) | masks
    return made, call | {"prompt": None, "true_cfg_scale": 3.0}


@builder
def mochi():
    transformer = diffusers.MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=8,
        in_channels=4,
        text_embed_dim=8,
        time_embed_dim=4,
        max_sequence_length=16,
    )
    torch.nn.init.normal_(transformer.pos_frequencies, std=0.1)
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=4,
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    )
    parts = {"vae": vae, "text_encoder": t5(), "tokenizer": t5_tokenizer()}
    made = diffusers.MochiPipeline(
        transformer=transformer, scheduler=euler_flow(invert_sigmas=True), **parts
    )
    size = {"height": 16, "width": 16, "num_frames": 7, "max_sequence_length": 16}
    return made, GUIDED | size


@builder
def hunyuan_video():
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=1,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        text_embed_dim=8,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 2, 2),
    )
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(4,) * 4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    made = diffusers.HunyuanVideoPipeline(
        None, None, transformer, vae, euler_flow(shift=7.0), clip(), clip_tokenizer()
    )
    call = {
        "prompt_attention_mask": torch.ones(1, 16).long(),
        "pooled_prompt_embeds": numbers(1, 8),
    }
    size = {"height": 16, "width": 16, "num_frames": 5}
    return made, LATENT | embeddings(16, 8, negative=False) | call | size


@builder
def wan():
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=1,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=8,
        ffn_dim=8,
        num_layers=1,
        rope_max_seq_len=32,
    )
    vae = diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    made = diffusers.WanPipeline(t5_tokenizer(), t5(), vae, scheduler, transformer)
    size = {"height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 16}
    return made, GUIDED | size


@builder
def z_image():
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=8,
        axes_dims=[4, 2, 2],
        axes_lens=[64, 32, 32],
    )
    torch.nn.init.ones_(transformer.x_pad_token)
    torch.nn.init.ones_(transformer.cap_pad_token)
    made = diffusers.ZImagePipeline(euler_flow(shift=3.0), autoencoder(), None, None, transformer)
    call = {"prompt_embeds": [numbers(16, 8)], "negative_prompt_embeds": [numbers(16, 8, seed=1)]}
    return made, EMBEDDED | {"height": 16, "width": 16} | call


@builder
def cogview4():
    """A pipeline that passes timesteps and sigmas that differ."""
    transformer = diffusers.CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        text_embed_dim=8,
        time_embed_dim=8,
        condition_dim=4,
    )
    scheduler = euler_flow(
        base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear"
    )
    made = diffusers.CogView4Pipeline(None, None, autoencoder(), transformer, scheduler)
    return made, EMBEDDED | {"height": 16, "width": 16} | embeddings(16, 8)


@builder
def cosmos():
    """A video network of EDM, whose pipeline preconditions by itself."""
    transformer = diffusers.CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=1,
        attention_head_dim=16,
        num_layers=1,
        mlp_ratio=1,
        text_embed_dim=8,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        rope_scale=(2.0, 1.0, 1.0),
        extra_pos_embed_type=None,
        concat_padding_mask=False,
    )
    vae = diffusers.AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(4,) * 4,
        decode_block_out_channels=(4,) * 4,
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.5, final_sigmas_type="sigma_min")

    class Safe(torch.nn.Module):
        device, dtype = torch.device("cpu"), torch.float32

        def check_text_safety(self, prompt):
            return True

        def to(self, *args, **kwargs):
            return self

    parts = {"text_encoder": t5(), "tokenizer": t5_tokenizer(), "safety_checker": Safe()}
    made = diffusers.CosmosTextToWorldPipeline(
        transformer=transformer, vae=vae, scheduler=scheduler, **parts
    )
    size = {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 16}
    return made, GUIDED | size | {"negative_prompt": "fog"}


# distilled networks, which are refused


@builder
def lcm():
    return stable_diffusion(scheduler=diffusers.LCMScheduler()), GUIDED | SQUARE


@builder
def consistency():
    unet = pixel_unet()
    scheduler = diffusers.CMStochasticIterativeScheduler()
    return diffusers.ConsistencyModelPipeline(unet, scheduler), {"output_type": "np"}
