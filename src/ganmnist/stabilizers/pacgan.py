"""PacGAN (Lin et al., 2017, arXiv 1712.04086)."""

from __future__ import annotations

from torch import Tensor

from ganmnist.networks.base import Discriminator, DiscriminatorWrapper
from ganmnist.stabilizers.base import Stabilizer
from ganmnist.utils.batch import Batch


class PacGAN(Stabilizer):
    """D classifies `m` images at once (`PackedDiscriminator`)."""

    def __init__(self, m: int = 2) -> None:
        self.m = m

    def input_channels(self, channels: int) -> int:
        return self.m * channels

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        return PackedDiscriminator(discriminator, self.m)


class PackedDiscriminator(DiscriminatorWrapper):
    """Classifies packs of `m` images (PacGAN: Lin et al., 2017, arXiv 1712.04086).

    A pack has the images as channels, so the wrapped discriminator has m times the channels.
    Features and logits have one row per pack. Mode collapse is easier to detect in a pack than in
    one image.
    """

    def __init__(self, discriminator: Discriminator, m: int = 2) -> None:
        super().__init__(discriminator)
        if m < 1:
            raise ValueError(f"stabilizer.pacgan.m={m}: choose 1 or more")
        if discriminator.input_fields != {"x"}:
            raise ValueError(
                "stabilizer=pacgan: it packs images, and this family's D sees labels or latents, "
                "too. Use another stabilizer, or family=gan"
            )
        self.m = self.pack_size = m

    def features(self, batch: Batch) -> Tensor:
        b, c, h, w = batch.x.shape
        if b % self.m:
            raise ValueError(
                f"stabilizer.pacgan.m={self.m}: it does not divide a batch of {b} images. Choose a "
                "divisor"
            )
        packs = batch.x.reshape(b // self.m, c * self.m, h, w)
        return super().features(batch._replace(x=packs))
