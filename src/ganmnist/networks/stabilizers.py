"""Stabilizers: changes of the discriminator or of the objective, for every architecture and loss.

A `Stabilizer` holds settings. Most of them wrap D in a `DiscriminatorWrapper`, which changes the
inputs of D or adds to its logit. Some papers concatenate statistics s to the features h before the
last, linear layer. Here the wrapper adds w_s s to the logit, because w [h, s] = w_h h + w_s s.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import spectral_norm

from ganmnist.networks.base import Discriminator, DiscriminatorWrapper
from ganmnist.utils.batch import Batch
from ganmnist.utils.pixels import BLACK
from ganmnist.utils.schedules import TrainingProgress, Value, at, check_value


class Stabilizer:
    """A change of D, of the objective, or of the generator step. The base class changes nothing."""

    discriminator_norm: str | None = None  # the value that model.discriminator.norm=auto takes

    def input_channels(self, channels: int) -> int:
        """Channels of the wrapped discriminator's input, given those of the wrapper's input."""
        return channels

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        """The discriminator to train.

        Raises:
            ValueError: this stabilizer does not fit the discriminator.
        """
        return discriminator

    def wrap_objective(self, objective: Any) -> Any:
        """The objective to train with.

        Raises:
            ValueError: this stabilizer does not fit the objective.
        """
        return objective

    def check(self, loss_terms: Any) -> None:
        """Raises ValueError if this stabilizer does not fit the loss terms."""

    def discriminator_for_g(
        self, discriminator: Discriminator, loss_terms: Any, real: Batch, fake: Batch
    ) -> Discriminator | None:
        """The discriminator of the generator step. None: the trained one."""
        return None


class SpectralNorm(Stabilizer):
    """Divides the weights of every layer by their largest singular value.

    Miyato et al. (2018, arXiv 1802.05957). It bounds D's Lipschitz constant. Every forward pass in
    training makes one step of power iteration. The matrix of a convolution has one row per output
    channel.
    """

    discriminator_norm = "none"

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        for layer in [*discriminator.modules()]:
            if isinstance(layer, _NormBase | nn.GroupNorm | nn.LayerNorm):
                raise ValueError(
                    "stabilizer=spectral_norm: D has norm layers, which undo the division. Use "
                    "model.discriminator.norm=none, or a model without them, such as resnet"
                )
            if isinstance(layer, nn.Linear | nn.Conv2d):
                if not layer.weight.any():
                    raise ValueError(
                        "stabilizer=spectral_norm: D has a layer with weights 0 (model=r3gan has), "
                        "whose largest singular value is 0. Use another model, or penalty=r1"
                    )
                spectral_norm(layer)
        return DiscriminatorWrapper(discriminator)


class InstanceNoise(Stabilizer):
    """Gaussian noise on D's inputs (`NoisyDiscriminator`); `sigma` may be a schedule."""

    def __init__(self, sigma: Value) -> None:
        self.sigma = sigma

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        return NoisyDiscriminator(discriminator, self.sigma)


class DiffAugment(Stabilizer):
    """Differentiable augmentation of D's inputs (`AugmentedDiscriminator`)."""

    def __init__(self, translation: float = 0.125, cutout: float = 0.25) -> None:
        self.translation = translation
        self.cutout = cutout

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        return AugmentedDiscriminator(discriminator, self.translation, self.cutout)


class PacGAN(Stabilizer):
    """D classifies `m` images at once (`PackedDiscriminator`)."""

    def __init__(self, m: int = 2) -> None:
        self.m = m

    def input_channels(self, channels: int) -> int:
        return self.m * channels

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        return PackedDiscriminator(discriminator, self.m)


class MinibatchStd(Stabilizer):
    """The standard deviation of the minibatch, for D (`MinibatchStdDiscriminator`)."""

    def __init__(self, group_size: int = 4) -> None:
        self.group_size = group_size

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        return MinibatchStdDiscriminator(discriminator, self.group_size)


class MinibatchDiscrimination(Stabilizer):
    """Similarities to the other images of the minibatch, for D (`MinibatchDiscriminator`)."""

    def __init__(self, kernels: int = 50, dims: int = 5) -> None:
        self.kernels = kernels
        self.dims = dims

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        return MinibatchDiscriminator(discriminator, self.kernels, self.dims)


class NoisyDiscriminator(DiscriminatorWrapper):
    """Adds Gaussian noise of standard deviation `sigma` to D's images, in training mode.

    Sonderby et al. (2016, arXiv 1610.04490); Arjovsky and Bottou (2017, arXiv 1701.04862). With
    noise the distributions of real and generated images overlap.
    """

    def __init__(self, discriminator: Discriminator, sigma: Value) -> None:
        super().__init__(discriminator)
        require_images(discriminator, "instance_noise")
        self.sigma = check_value("stabilizer.instance_noise.sigma", sigma)
        self.current_sigma = at(sigma, 0.0)

    def before_d_step(self, progress: TrainingProgress) -> None:
        self.current_sigma = at(self.sigma, progress.fraction)

    def features(self, batch: Batch) -> Tensor:
        if self.training and self.current_sigma > 0:
            batch = batch._replace(x=batch.x + self.current_sigma * torch.randn_like(batch.x))
        return super().features(batch)


class AugmentedDiscriminator(DiscriminatorWrapper):
    """Shifts D's images and cuts squares out of them, at random, in training mode.

    DiffAugment (Zhao et al., 2020, arXiv 2006.10738). Gradients flow through both. Real and
    generated images are augmented, so G does not learn to generate augmented images. New pixels are
    black, like the background of digits. The paper's third policy, color, is left out.

    Args:
        translation: maximum shift, as a fraction of the image's side.
        cutout: side of the square, as a fraction of the image's side. Its center is in the image.
            The paper has 0.5, which covers most of a digit.
    """

    def __init__(
        self, discriminator: Discriminator, translation: float = 0.125, cutout: float = 0.25
    ) -> None:
        super().__init__(discriminator)
        require_images(discriminator, "diffaugment")
        require_one_scale(discriminator, "diffaugment")
        for name, fraction in (("translation", translation), ("cutout", cutout)):
            if not 0 <= fraction < 1:
                raise ValueError(
                    f"stabilizer.diffaugment.{name}={fraction}: choose 0 or more, and below 1"
                )
        self.translation = translation
        self.cutout = cutout

    def features(self, batch: Batch) -> Tensor:
        if self.training:
            x, y, _ = batch
            images = [x] if y is None or y.dim() == 1 else [x, y]  # y may be an image
            augmented = cut_out(translate(torch.cat(images, 1), self.translation), self.cutout)
            x, *condition = torch.split(augmented, [image.shape[1] for image in images], 1)
            batch = batch._replace(x=x, y=condition[0] if condition else y)
        return super().features(batch)


def require_images(discriminator: Discriminator, stabilizer: str) -> None:
    """Raises ValueError if D sees no images."""
    if "x" not in discriminator.input_fields:
        raise ValueError(
            f"stabilizer={stabilizer}: it changes the images that D sees, and this family's D sees "
            "latents only. Use another stabilizer, or family=gan"
        )


def require_one_scale(discriminator: Discriminator, stabilizer: str) -> None:
    """Raises ValueError if D sees an image at several scales."""
    if discriminator.n_scales > 1:
        raise ValueError(
            f"stabilizer={stabilizer}: it needs one scale, and this family's D sees "
            f"{discriminator.n_scales}. Use another stabilizer, or family=gan"
        )


def translate(x: Tensor, fraction: float) -> Tensor:
    """Shifts each of the images (B, C, H, W), horizontally and vertically.

    fraction: maximum shift, as a fraction of the image's side.
    """
    b, _, h, w = x.shape
    dy, dx = round(fraction * h), round(fraction * w)
    padded = F.pad(x, (dx, dx, dy, dy), value=BLACK).permute(0, 2, 3, 1)
    rows, columns = (
        torch.arange(n, device=x.device) + torch.randint(2 * d + 1, (b, 1), device=x.device)
        for n, d in ((h, dy), (w, dx))
    )
    image = torch.arange(b, device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(x: Tensor, fraction: float) -> Tensor:
    """Makes a square of each of the images (B, C, H, W) black.

    As in the authors' code, the center of the square is uniform over the image. At least a quarter
    of the square is inside.

    fraction: side of the square, as a fraction of the image's side.
    """
    b, _, *sides = x.shape
    inside = []
    for n in sides:
        size = int(fraction * n + 0.5)
        start = torch.randint(n + 1 - size % 2, (b, 1), device=x.device) - size // 2
        pixel = torch.arange(n, device=x.device).expand(b, n)
        inside.append((pixel >= start) & (pixel < start + size))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return x.masked_fill(square, BLACK)


class PackedDiscriminator(DiscriminatorWrapper):
    """Classifies packs of `m` images (PacGAN: Lin et al., 2017, arXiv 1712.04086).

    A pack has the images as channels, so the wrapped discriminator has m times the channels.
    Features and logits have one row per pack. A lack of variety shows in a pack.
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


class MinibatchStdDiscriminator(DiscriminatorWrapper):
    """Adds the variation within the minibatch to D's logit (Karras et al., 2017, arXiv 1710.10196).

    The statistic is the standard deviation of each feature over a group of `group_size` images,
    averaged over the features. As in the authors' code, a group takes every (B / group_size)-th
    image of the batch. A smaller batch is one group.

    Raises:
        ValueError: a batch cannot be divided into such groups.
    """

    def __init__(self, discriminator: Discriminator, group_size: int = 4) -> None:
        super().__init__(discriminator)
        if group_size < 2:
            raise ValueError(f"stabilizer.minibatch_std.group_size={group_size}: choose 2 or more")
        require_one_scale(discriminator, "minibatch_std")
        self.group_size = group_size
        self.weight = nn.Linear(1, 1, bias=False)

    def score(self, features: Tensor, batch: Batch) -> Tensor:
        logits = super().score(features, batch)
        statistic: Tensor = self.weight(self.std(features))
        return logits + statistic.flatten()

    def std(self, features: Tensor) -> Tensor:
        """(B, 1) statistics of features (B, F)."""
        size = min(self.group_size, len(features))
        if len(features) % size:
            raise ValueError(
                f"stabilizer.minibatch_std.group_size={size}: it does not divide a batch of "
                f"{len(features)} images. Choose a divisor"
            )
        groups = torch.unflatten(features.float(), 0, (size, -1))
        # The constant keeps the gradient of the root finite if all images are equal.
        std: Tensor = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean(1)
        return std.repeat(size)[:, None]


class MinibatchDiscriminator(DiscriminatorWrapper):
    """Adds similarities of the images of a minibatch to D's logit.

    Minibatch discrimination (Salimans et al., 2016, arXiv 1606.03498). The weights of the
    similarities start at 0, so the first logits are those of the wrapped discriminator.
    """

    def __init__(self, discriminator: Discriminator, kernels: int = 50, dims: int = 5) -> None:
        super().__init__(discriminator)
        for name, value in (("kernels", kernels), ("dims", dims)):
            if value < 1:
                raise ValueError(
                    f"stabilizer.minibatch_discrimination.{name}={value}: choose 1 or more"
                )
        require_one_scale(discriminator, "minibatch_discrimination")
        self.similarity = MinibatchSimilarity(discriminator.n_features, kernels, dims)
        self.weight = nn.Linear(kernels, 1, bias=False)
        nn.init.zeros_(self.weight.weight)

    def score(self, features: Tensor, batch: Batch) -> Tensor:
        logits = super().score(features, batch)
        statistic: Tensor = self.weight(self.similarity(features))
        return logits + statistic.flatten()


class MinibatchSimilarity(nn.Module):
    """Similarities of each image to the others of its batch: features (B, F) to (B, kernels).

    With matrices M_i = T h_i of `kernels` rows and `dims` columns, the similarities are
    o_k(i) = sum over j != i of exp(-|M_ik - M_jk|_1), plus a bias. As in the authors' code, the
    first images set the bias so that the mean is 0; with a bias of 0 the similarities start near
    B - 1. The authors' code scales T by the first batch, too (docs/objectives.md).
    """

    def __init__(self, n_features: int, kernels: int, dims: int) -> None:
        super().__init__()
        self.matrix_shape = (kernels, dims)
        self.project = nn.Linear(n_features, kernels * dims, bias=False)
        self.bias = nn.Parameter(torch.zeros(kernels))

    def forward(self, features: Tensor) -> Tensor:
        return sum_similarities(self.distances(features)) + self.bias

    def distances(self, features: Tensor) -> Tensor:
        """Distances (kernels, B, B). This order of the dimensions is fast on a CPU."""
        m = torch.unflatten(self.project(features).float().T, 0, self.matrix_shape)
        return (m[..., None] - m[:, :, None]).abs().sum(1)

    @torch.no_grad()
    def init_from_input(self, features: Tensor, rows: int) -> None:
        batches = torch.split(features, rows)
        similarities = [sum_similarities(self.distances(batch)) for batch in batches]
        self.bias.copy_(-torch.cat(similarities).mean(0))


def sum_similarities(distances: Tensor) -> Tensor:
    """Sums (B, kernels) of exp(-distance) over the other images, of distances (kernels, B, B)."""
    return ((-distances).exp().sum(1) - 1).T  # minus the image itself
