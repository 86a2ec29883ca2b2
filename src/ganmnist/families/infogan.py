"""InfoGAN (Chen et al., 2016, arXiv 1606.03657).

The input z of G has a latent code c = (c_1, c_2, ...) and noise. c_1 is categorical with K values,
the other codes are uniform in [-1, 1]. Q, a head on D's features, predicts the code of an image
x = G(z). D and G both minimize

    L = E[-log Q(c_1 | x)] + w sum_(j > 1) E (c_j - mean_j(x))^2 / 2

mean_j is Q's prediction of c_j. For w = 1 and up to a constant, L is an upper bound of the negative
mutual information -I(c; x). As in the authors' code for MNIST, Q's density of the continuous codes
is Gaussian with variance 1, and L trains D's features too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.gan import GAN
from ganmnist.losses.auxiliary import require_single_images
from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.base import Discriminator
from ganmnist.utils.batch import SPLITS, Batch, Split, concat_columns
from ganmnist.utils.modules import batch_statistics
from ganmnist.utils.rng import generator_for
from ganmnist.utils.schedules import check_number


class StructuredLatent:
    """Latents (n, dim): a one-hot category, then continuous codes and noise, uniform in [-1, 1]."""

    def __init__(self, dim: int, n_categories: int = 10, n_continuous: int = 2) -> None:
        if n_categories < 2:
            raise ValueError(f"family.latent.n_categories={n_categories}: choose 2 or more")
        if n_continuous < 0:
            raise ValueError(f"family.latent.n_continuous={n_continuous}: choose 0 or more")
        if dim < n_categories + n_continuous:
            raise ValueError(
                f"latent_dim={dim}: family.latent.n_categories={n_categories} and "
                f"n_continuous={n_continuous} do not fit. Use "
                f"latent_dim={n_categories + n_continuous} or more"
            )
        self.dim = dim
        self.n_categories = n_categories
        self.n_continuous = n_continuous

    def __call__(
        self,
        n: int,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        options: Any = {"device": device, "generator": generator}
        category = torch.randint(self.n_categories, (n,), **options)
        others = 2 * torch.rand(n, self.dim - self.n_categories, **options) - 1
        return torch.cat([F.one_hot(category, self.n_categories), others], 1)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The categories (n,) and the continuous codes (n, n_continuous) of latents."""
        ends = (self.n_categories, self.n_categories + self.n_continuous)
        category, continuous, _ = z.tensor_split(ends, 1)
        return category.argmax(1), continuous


class MutualInformationLoss(LossTerm):
    """The negative log-likelihood L of the code under Q, in nats.

    Args:
        latent: samples the latents.
        weight: weight of L.
        continuous_weight: w.
        hidden: units of Q's hidden layer, which has batch norm.
        slope: slope of its LeakyReLU.
    """

    def __init__(
        self,
        latent: StructuredLatent,
        weight: float = 1.0,
        continuous_weight: float = 1.0,
        hidden: int = 128,
        slope: float = 0.1,
    ) -> None:
        super().__init__()
        check_number("family.auxiliary.information.weight", weight)
        check_number("family.auxiliary.information.continuous_weight", continuous_weight)
        self.latent = latent
        self.weight = weight
        self.continuous_weight = continuous_weight
        self.hidden = hidden
        self.slope = slope

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        require_single_images(discriminator)
        self.q = nn.Sequential(
            nn.Linear(discriminator.n_features, self.hidden),
            nn.BatchNorm1d(self.hidden),
            nn.LeakyReLU(self.slope),
            nn.Linear(self.hidden, self.latent.n_categories + self.latent.n_continuous),
        )

    def predict_code(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, n_categories), and means (B, n_continuous) of the continuous codes."""
        logits, means = self.q(features).float().tensor_split((self.latent.n_categories,), 1)
        return logits, means

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.nll(out)

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.nll(out)

    def nll(self, out: DiscriminatorOutputs) -> Tensor:
        category, continuous = self.latent.split(out.fake.latents)
        logits, means = self.predict_code(out.fake_features)
        distance = (means - continuous).square().sum(1).mean() / 2
        return self.weight * (F.cross_entropy(logits, category) + self.continuous_weight * distance)


class InfoGAN(GAN):
    """A GAN with grids for each part of the code, and the error of the category."""

    latent: StructuredLatent
    columns = 10  # values of a continuous code, from -2 to 2; in training it is in [-1, 1]

    def extra_images(self, real_images: Callable[[int], Batch]) -> dict[str, Tensor]:
        """`categories`: one column per category. `continuous_1` and so on: one row per category.

        A continuous code rises from -2 to 2 along its rows.
        """
        latent, rng = self.latent, generator_for("code images", self.options.seed)
        k = latent.n_categories
        z = latent(10, "cpu", rng)[:, None].repeat(1, k, 1)
        z[..., :k] = torch.eye(k)
        grids = {"categories": z}
        for i in range(k, k + latent.n_continuous):
            z = latent(1, "cpu", rng).repeat(k, self.columns, 1)
            z[..., :k] = torch.eye(k)[:, None]
            z[..., i] = torch.linspace(-2, 2, self.columns)
            grids[f"continuous_{i - k + 1}"] = z
        return {
            name: torch.unflatten(self.sample(z.flatten(0, 1).to(self.device)), 0, z.shape[:2])
            for name, z in grids.items()
        }

    def extra_metrics(self, real_batches: Callable[[Split], Iterable[Batch]]) -> dict[str, float]:
        """`code_error`: error rate of Q's category as a classifier of test images.

        The class of a category is the most frequent one of the training images in it.
        """
        (train_codes, train), (test_codes, test) = (
            concat_columns((self.categories(batch), batch.y) for batch in real_batches(split))
            for split in SPLITS
        )
        k, n_classes = self.latent.n_categories, int(train.max()) + 1
        counts = torch.bincount(train_codes * n_classes + train, minlength=k * n_classes)
        wrong = counts.view(k, n_classes).argmax(1)[test_codes] != test
        return {"code_error": wrong.cpu().double().mean().item()}

    def categories(self, real: Batch) -> Tensor:
        """The category (n,) that Q predicts for images.

        As in the authors' code, batch norm uses the statistics of each batch. Its running
        statistics mix real and generated images.
        """
        (q,) = (term for term in self.loss_terms.all if isinstance(term, MutualInformationLoss))
        with batch_statistics(self):
            return q.predict_code(self.discriminator.features(real))[0].argmax(1)
