from .adm import ADM
from .codec import Codec
from .diffusers import Diffusers
from .dit import DiT
from .mlp import MLP
from .song import SongUNet
from .unet import UNet
from .wiener import Wiener

__all__ = ["ADM", "MLP", "Codec", "DiT", "Diffusers", "SongUNet", "UNet", "Wiener"]
