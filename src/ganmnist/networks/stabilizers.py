"""What is put around a discriminator to steady the game: each works with every network.

A wrapper changes what the network inside sees, or adds to its logit. Where the literature
concatenates statistics s to the features h before the last, linear layer, the wrapper adds their
share of the product, since w [h, s] = w_h h + w_s s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import spectral_norm

from ganmnist.networks.base import Discriminator, Wrapper
from ganmnist.schedules import Value, at, checked

if TYPE_CHECKING:
    from ganmnist.duel import Clock, Sample


class SpectralNorm(Wrapper):
    """Every layer's matrix is divided by its largest singular value, which bounds D's slope.

    Miyato et al. (2018, arXiv 1802.05957). A step of power iteration a pass keeps up with the
    weights; a convolution's matrix has a row for each channel that comes out.

    Raises:
        ValueError: layers that normalise would take the division back, or one has nothing to
            divide.
    """

    def __init__(self, inside: Discriminator) -> None:
        super().__init__(inside)
        for layer in [*inside.modules()]:
            if isinstance(layer, _NormBase | nn.GroupNorm | nn.LayerNorm):
                raise ValueError(
                    "Spectral norm bounds D's slope, and a norm layer behind it takes that back: "
                    "choose model.discriminator.norm=none, or a model without, such as mlp or "
                    "resnet"
                )
            if isinstance(layer, nn.Linear | nn.Conv2d):
                if not layer.weight.any():
                    raise ValueError(
                        "Spectral norm divides by the largest singular value, which is 0 in a "
                        "layer that starts at 0, as r3gan's do: choose another model, or "
                        "penalty=r1"
                    )
                spectral_norm(layer)


class InstanceNoise(Wrapper):
    """Normal noise of standard deviation `sigma` on all that D sees while it trains.

    Sonderby et al. (2016, arXiv 1610.04490); Arjovsky and Bottou (2017, arXiv 1701.04862). It makes
    the two distributions overlap; annealed to nothing, it leaves the game as it was.
    """

    def __init__(self, inside: Discriminator, sigma: Value) -> None:
        super().__init__(inside)
        check_sees_images(inside, "Noise")
        self.sigma = checked("the sigma of InstanceNoise", sigma)
        self.now = at(sigma, 0.0)

    def tick(self, clock: Clock) -> None:
        self.now = at(self.sigma, clock.progress)

    def features(self, sample: Sample) -> Tensor:
        if self.training and self.now > 0:
            assert sample.x is not None
            sample = sample._replace(x=sample.x + self.now * torch.randn_like(sample.x))
        return super().features(sample)


class DiffAugment(Wrapper):
    """Random shifts and holes in all that D sees while it trains (arXiv 2006.10738).

    They are differentiable, and the same for real and generated images, so G is not asked to draw
    them. What is shifted in or cut out is black, as paper is between digits.

    Args:
        translation: greatest shift, as a share of the image's side.
        cutout: side of the hole, likewise; it may lie partly outside. The paper's is 0.5, which
            covers most of a digit.
    """

    def __init__(
        self, inside: Discriminator, translation: float = 0.125, cutout: float = 0.25
    ) -> None:
        super().__init__(inside)
        check_sees_images(inside, "DiffAugment")
        check_one_size(inside, "DiffAugment")
        for name, share in (("translation", translation), ("cutout", cutout)):
            if not 0 <= share < 1:
                raise ValueError(
                    f"{name}={share} is no share of an image: choose from 0 to below 1"
                )
        self.translation = translation
        self.cutout = cutout

    def features(self, sample: Sample) -> Tensor:
        if self.training:
            x, y, _ = sample
            assert x is not None
            pictures = [x] if y is None or y.dim() == 1 else [x, y]  # y may be an image beside x
            moved = cut_out(translate(torch.cat(pictures, 1), self.translation), self.cutout)
            x, *beside = moved.split([picture.shape[1] for picture in pictures], 1)
            sample = sample._replace(x=x, y=beside[0] if beside else y)
        return super().features(sample)


def check_sees_images(discriminator: Discriminator, what: str) -> None:
    if "x" not in discriminator.sees:
        raise ValueError(
            f"{what} changes the images that D sees, and this family's D sees latents alone: leave "
            "that stabilizer out, or choose family=gan"
        )


def check_one_size(discriminator: Discriminator, what: str) -> None:
    if discriminator.levels > 1:
        raise ValueError(
            f"{what} is of one image, and this family's D judges {discriminator.levels} sizes of "
            "it: leave that stabilizer out, or choose family=gan"
        )


BLACK = -1.0


def translate(x: Tensor, share: float) -> Tensor:
    """Images (B, C, H, W) in [-1, 1], each shifted by up to `share` of its side both ways."""
    b, _, h, w = x.shape
    most = round(share * h), round(share * w)
    padded = F.pad(x, (most[1], most[1], most[0], most[0]), value=BLACK).permute(0, 2, 3, 1)
    rows, columns = (
        torch.arange(n, device=x.device) + torch.randint(2 * m + 1, (b, 1), device=x.device)
        for n, m in ((h, most[0]), (w, most[1]))
    )
    image = torch.arange(b, device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(x: Tensor, share: float) -> Tensor:
    """Images (B, C, H, W) in [-1, 1], each with a hole of `share` of its side somewhere."""
    b, _, *sides = x.shape
    inside = []
    for n in sides:
        size = round(share * n)
        start = torch.randint(1 - size, n, (b, 1), device=x.device) if size else n
        place = torch.arange(n, device=x.device).expand(b, n)
        inside.append((place >= start) & (place < start + size))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return x.masked_fill(hole, BLACK)


class Packed(Wrapper):
    """Judges `m` images at once, as channels of one (PacGAN: Lin et al., 2017, arXiv 1712.04086).

    A generator without variety shows in a pack at a glance. Logits are fewer than images, and the
    network inside takes m times the channels.
    """

    def __init__(self, inside: Discriminator, m: int = 2) -> None:
        super().__init__(inside)
        if m < 1:
            raise ValueError(f"m={m} makes no packs: choose 1 or more images a pack")
        if inside.sees != {"x"}:
            raise ValueError(
                "PacGAN packs images, and this family's D sees labels or latents with each: leave "
                "stabilizer=pacgan out, or choose family=gan"
            )
        self.m = self.pack = m

    def features(self, sample: Sample) -> Tensor:
        assert sample.x is not None
        b, c, h, w = sample.x.shape
        if b % self.m:
            raise ValueError(f"a batch of {b} images makes no packs of {self.m}")
        packs = sample.x.reshape(b // self.m, c * self.m, h, w)
        return super().features(sample._replace(x=packs))


class MinibatchStd(Wrapper):
    """Shows D how much the features vary within the batch (Karras et al., 2017, arXiv 1710.10196).

    The statistic is the standard deviation of every feature over the batch, averaged.
    """

    def __init__(self, inside: Discriminator) -> None:
        super().__init__(inside)
        self.weight = nn.Linear(1, 1, bias=False)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        # The constant, 0 in float16, keeps the root's slope finite where all images are the same.
        std = (features.float().var(0, unbiased=False) + 1e-8).sqrt().mean()
        return super().score(features, sample) + self.weight(std[None])


class MinibatchDiscrimination(Wrapper):
    """Shows D how near each image is to the others of its batch (arXiv 1606.03498).

    Salimans et al. (2016): with matrices M_i = T h_i of `kernels` rows and `dims` columns, the
    statistics are o_k(i) = sum over j of exp(-|M_ik - M_jk|_1), over the other images of the batch.
    """

    def __init__(self, inside: Discriminator, kernels: int = 50, dims: int = 5) -> None:
        super().__init__(inside)
        if min(kernels, dims) < 1:
            raise ValueError(
                f"kernels={kernels} and dims={dims} make no statistics: choose 1 or more of either"
            )
        check_one_size(inside, "Minibatch discrimination")
        self.rows = (kernels, dims)
        self.project = nn.Linear(inside.n_features, kernels * dims, bias=False)
        self.weight = nn.Linear(kernels, 1, bias=False)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return super().score(features, sample) + self.weight(self.closeness(features)).flatten()

    def closeness(self, features: Tensor) -> Tensor:
        """(B, kernels) statistics o of features (B, F)."""
        m = self.project(features).float().T.unflatten(0, self.rows)
        distances = (m[..., None] - m[:, :, None]).abs().sum(1)  # (kernels, B, B), fast on a CPU
        return ((-distances).exp().sum(1) - 1).T  # without the image itself
