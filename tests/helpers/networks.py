"""Networks of conf/model/, small enough for tests."""

from functools import partial
from typing import Any

from ganmnist.gan import GAN
from ganmnist.networks import conditional, dcgan
from ganmnist.networks.latents import Labels
from ganmnist.runs.folders import conf_dir
from helpers.gan import small_gan

# Settings that make a model small. Other models are small already.
NARROW = {
    "dcgan": ("model.generator.widths=[8,8,8]", "model.discriminator.widths=[8,8]"),
    "dcgan64": ("model.generator.widths=[8,8,8,8]", "model.discriminator.widths=[8,8,8,8]"),
    "dcgan_fc": ("model.generator.widths=[8,8,8]", "model.discriminator.widths=[8,8,8]"),
    "resnet": ("model.generator.widths=[8,8,8]", "model.discriminator.widths=[8,8,8]"),
    "r3gan": tuple(
        f"model.{network}.{setting}"
        for network in ("generator", "discriminator")
        for setting in ("widths=[16,16,16]", "group_size=8")
    ),
}
# Settings of the images that a model needs.
IMAGES = {
    "dcgan64": ("data.image_size=64",),
    "plane": ("data.image_size=1", "data.channels=2"),
}
# A discriminator of 8x8 images.
d_8x8 = partial(dcgan.Discriminator, widths=[4], kernels=[4, 4], strides=[2, 1])


def choices(group: str) -> list[str]:
    """The names of the options of a config group."""
    files = (conf_dir() / group).glob("*.yaml")
    return sorted(file.stem for file in files if not file.stem.startswith("_"))


def small_conditional_gan(**settings: Any) -> GAN:
    """`small_gan` whose generator takes one of ten labels."""
    generator = partial(dcgan.Generator, widths=[8], kernels=[4, 4], strides=[1, 2])
    conditional_generator = partial(conditional.Generator, generator=generator, n_classes=10)
    return small_gan(generator=conditional_generator, labels=Labels(10), **settings)


def trained_names(gan: GAN, *prefixes: str) -> set[str]:
    """Names of the trained parameters, with one of these prefixes if any are given."""
    names = {name for name, p in gan.named_parameters() if p.requires_grad}
    return {name for name in names if name.startswith(prefixes or "")}
