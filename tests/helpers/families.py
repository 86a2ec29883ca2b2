"""Small GANs of several families, for 8x8 images."""

from functools import partial
from typing import Any

from ganmnist.families.aae import AAE, Reconstruction
from ganmnist.families.bigan import BiGAN, BiGANObjective
from ganmnist.families.pix2pix import L1Reconstruction, Pix2Pix, UpperHalf
from ganmnist.losses.adversarial import BCE
from ganmnist.networks import conditional, encoders, unet
from helpers.gan import small_gan
from helpers.networks import d_8x8

encoder = partial(encoders.Encoder, body=d_8x8, latent_dim=4)
joint_discriminator = partial(encoders.JointDiscriminator, body=d_8x8, latent_dim=4, hidden=8)


def small_bigan(**settings: Any) -> BiGAN:
    default = {
        "encoder": encoder,
        "discriminator": joint_discriminator,
        "objective": BiGANObjective(BCE()),
    }
    return small_gan(BiGAN, **{**default, **settings})


def small_aae(**settings: Any) -> AAE:
    default = {
        "encoder": encoder,
        "discriminator": partial(encoders.LatentDiscriminator, latent_dim=4, widths=[8]),
        "auxiliary": {"reconstruction": Reconstruction()},
    }
    return small_gan(AAE, **{**default, **settings})


def small_pix2pix(**settings: Any) -> Pix2Pix:
    default = {
        "generator": partial(unet.Generator, image_size=8, widths=[4, 8]),
        "discriminator": partial(conditional.ConcatImage, d_8x8),
        "degrade": UpperHalf(),
        "image_size": 8,
        "n_conditions": 5,
        "auxiliary": {"l1": L1Reconstruction()},
    }
    return small_gan(Pix2Pix, **{**default, **settings})
