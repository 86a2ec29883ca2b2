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

    discriminator_norm = "none"

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
        cutout: side of the hole, likewise. Its centre is in the image. The paper's is 0.5, which
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
    """Images (B, C, H, W) in [-1, 1], each with a black square of `share` of its side.

    As in the authors' program the centre is uniform over the image, so at least a quarter of the
    square lies inside.
    """
    b, _, *sides = x.shape
    inside = []
    for n in sides:
        size = int(share * n + 0.5)
        start = torch.randint(n + 1 - size % 2, (b, 1), device=x.device) - size // 2
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
    """Shows D how much the features vary within a group (Karras et al., 2017, arXiv 1710.10196).

    The statistic is the standard deviation of every feature over a group of `group_size` images,
    averaged over the features. As in the authors' program, a group takes every (B / group_size)-th
    image of the batch; a smaller batch is one group.

    Raises:
        ValueError: a batch cannot be divided into such groups.
    """

    def __init__(self, inside: Discriminator, group_size: int = 4) -> None:
        super().__init__(inside)
        if group_size < 2:
            raise ValueError(f"group_size={group_size} has no deviation: choose 2 or more images")
        check_one_size(inside, "The standard deviation of a minibatch")
        self.group_size = group_size
        self.weight = nn.Linear(1, 1, bias=False)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return super().score(features, sample) + self.weight(self.std(features)).flatten()

    def std(self, features: Tensor) -> Tensor:
        """(B, 1) statistics of features (B, F)."""
        size = min(self.group_size, len(features))
        if len(features) % size:
            raise ValueError(
                f"stabilizer.minibatch_std.group_size={size} does not divide a batch of "
                f"{len(features)}: choose a divisor"
            )
        groups = features.float().unflatten(0, (size, -1))
        # The constant keeps the root's slope finite where all images are the same.
        std = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean(1)
        return std.repeat(size)[:, None]


class MinibatchDiscrimination(Wrapper):
    """Shows D how near each image is to the others of its batch (arXiv 1606.03498).

    The statistics of the batch (`Closeness`) are added to the features. Their weights begin at 0,
    and D begins as the network inside.
    """

    def __init__(self, inside: Discriminator, kernels: int = 50, dims: int = 5) -> None:
        super().__init__(inside)
        if min(kernels, dims) < 1:
            raise ValueError(
                f"kernels={kernels} and dims={dims} make no statistics: choose 1 or more of either"
            )
        check_one_size(inside, "Minibatch discrimination")
        self.closeness = Closeness(inside.n_features, kernels, dims)
        self.weight = nn.Linear(kernels, 1, bias=False)
        nn.init.zeros_(self.weight.weight)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return super().score(features, sample) + self.weight(self.closeness(features)).flatten()


class Closeness(nn.Module):
    """How near each image of a batch is to the others: features (B, F) to (B, kernels).

    Salimans et al. (2016): with matrices M_i = T h_i of `kernels` rows and `dims` columns, the
    statistics are o_k(i) = sum over the others j of exp(-|M_ik - M_jk|_1), plus a bias. As in the
    authors' program, the first images set the bias to give the statistics the mean 0: without it
    they begin near B - 1. The program scales T by the first batch too (docs/objectives.md).
    """

    def __init__(self, n_features: int, kernels: int, dims: int) -> None:
        super().__init__()
        self.rows = (kernels, dims)
        self.project = nn.Linear(n_features, kernels * dims, bias=False)
        self.bias = nn.Parameter(torch.zeros(kernels))

    def forward(self, features: Tensor) -> Tensor:
        return closeness(self.distances(features)) + self.bias

    def distances(self, features: Tensor) -> Tensor:
        """(kernels, B, B), which is the order that is fast on a CPU."""
        m = self.project(features).float().T.unflatten(0, self.rows)
        return (m[..., None] - m[:, :, None]).abs().sum(1)

    @torch.no_grad()
    def init_from_input(self, features: Tensor, rows: int) -> None:
        batches = [closeness(self.distances(batch)) for batch in features.split(rows)]
        self.bias.copy_(-torch.cat(batches).mean(0))


def closeness(distances: Tensor) -> Tensor:
    """(B, kernels) sums of exp(-distance) to the other images, of distances (kernels, B, B)."""
    return ((-distances).exp().sum(1) - 1).T  # without the image itself
