from .adm import ADM
from .codec import Codec, DiffusersCodec
from .codecs import PCA, VAE, CountsVAE
from .diffusers import Diffusers
from .dit import DiT
from .mlp import MLP
from .song import SongUNet
from .unet import UNet
from .wiener import Wiener

__all__ = [
    "ADM",
    "MLP",
    "PCA",
    "VAE",
    "Codec",
    "CountsVAE",
    "DiT",
    "Diffusers",
    "DiffusersCodec",
    "SongUNet",
    "UNet",
    "Wiener",
]
