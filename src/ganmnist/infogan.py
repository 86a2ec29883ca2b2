"""InfoGAN (Chen et al., 2016, arXiv 1606.03657): a part of the latent that can be read off images.

The latent holds a code c, one of K categories and some numbers in [-1, 1], beside noise. A head Q
on D's features reads c back from G(z), and both players are charged

    L = E[-log Q(category | G(z))] + w E |c - Q_mean(G(z))|^2 / 2

which for w = 1 bounds -I(c; G(z)) from above, but for a constant. As in the authors' program for
MNIST, Q's density of the numbers has variance 1, and D's features learn from L as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.auxiliary import check_singles
from ganmnist.duel import PARTS, Duel, Part, Sample, Term, columns
from ganmnist.gan import GAN
from ganmnist.passes import batch_statistics
from ganmnist.rng import generator_for
from ganmnist.schedules import checked_number

if TYPE_CHECKING:
    from ganmnist.networks.base import Discriminator


class Codes:
    """Latents (n, dim): a one-hot category, numbers, then noise, all uniform in [-1, 1]."""

    def __init__(self, dim: int, categories: int = 10, numbers: int = 2) -> None:
        if categories < 2 or numbers < 0 or dim < categories + numbers:
            raise ValueError(
                f"latent_dim={dim} has no room for {categories} categories and {numbers} numbers: "
                "raise it, or change family.latent"
            )
        self.dim = dim
        self.categories = categories
        self.numbers = numbers

    def __call__(
        self,
        n: int,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        how: Any = {"device": device, "generator": generator}
        category = torch.randint(self.categories, (n,), **how)
        others = 2 * torch.rand(n, self.dim - self.categories, **how) - 1
        return torch.cat([F.one_hot(category, self.categories), others], 1)

    def read(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The categories (n,) and the numbers (n, numbers) in latents."""
        category, numbers, _ = z.tensor_split((self.categories, self.categories + self.numbers), 1)
        return category.argmax(1), numbers


class MutualInformation(Term):
    """The surprise of Q at the code, in nats.

    Args:
        codes: how latents hold it.
        weight: of the whole.
        numbers_weight: w, of the numbers' share.
        hidden: units of the layer between the features and the code, with batch norm.
        slope: of its LeakyReLU.
    """

    def __init__(
        self,
        codes: Codes,
        weight: float = 1.0,
        numbers_weight: float = 1.0,
        hidden: int = 128,
        slope: float = 0.1,
    ) -> None:
        super().__init__()
        checked_number("the weight of MutualInformation", weight)
        checked_number("the numbers_weight of MutualInformation", numbers_weight)
        self.codes = codes
        self.weight = weight
        self.numbers_weight = numbers_weight
        self.hidden = hidden
        self.slope = slope

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        check_singles(discriminator)
        self.q = nn.Sequential(
            nn.Linear(discriminator.n_features, self.hidden),
            nn.BatchNorm1d(self.hidden),
            nn.LeakyReLU(self.slope),
            nn.Linear(self.hidden, self.codes.categories + self.codes.numbers),
        )

    def guess(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, categories) and means (B, numbers) of features (B, F)."""
        logits, means = self.q(features).float().tensor_split((self.codes.categories,), 1)
        return logits, means

    def d_loss(self, duel: Duel) -> Tensor:
        return self.surprise(duel)

    def g_loss(self, duel: Duel) -> Tensor:
        return self.surprise(duel)

    def surprise(self, duel: Duel) -> Tensor:
        assert duel.fake.z is not None
        category, numbers = self.codes.read(duel.fake.z)
        logits, means = self.guess(duel.fake_features)
        distance = (means - numbers).square().sum(1).mean() / 2
        return self.weight * (F.cross_entropy(logits, category) + self.numbers_weight * distance)


class InfoGAN(GAN):
    """Shows what each part of the code does, and uses the category to tell digits apart."""

    latent: Codes
    steps = 10  # from -2 to 2, twice as far as in training

    def pictures(self, real: Callable[[int], Sample]) -> dict[str, Tensor]:
        """A column a category; for each number, a category a row and the number rising in it."""
        codes, rng = self.latent, generator_for("code pictures", self.seed)
        k = codes.categories
        z = codes(10, "cpu", rng)[:, None].repeat(1, k, 1)
        z[..., :k] = torch.eye(k)
        grids = {"categories": z}
        for i in range(k, k + codes.numbers):
            z = codes(1, "cpu", rng).repeat(k, self.steps, 1)
            z[..., :k] = torch.eye(k)[:, None]
            z[..., i] = torch.linspace(-2, 2, self.steps)
            grids[f"number_{i - k + 1}"] = z
        return {
            name: self.sample(z.flatten(0, 1).to(self.device)).unflatten(0, z.shape[:2])
            for name, z in grids.items()
        }

    def figures(self, real: Callable[[Part], Iterable[Sample]]) -> dict[str, float]:
        """`code_error`: test images whose category is, in training images, mostly another digit's.

        The paper names each category after a digit; here the training labels do. As in the
        authors' program, batch norm takes the statistics of each batch: the running ones would mix
        those of real and of generated images.
        """
        (of_train, train), (of_test, test) = (
            columns((self.categories(batch), batch.y) for batch in real(part)) for part in PARTS
        )
        k, digits = self.latent.categories, int(train.max()) + 1
        counts = torch.bincount(of_train * digits + train, minlength=k * digits).view(k, digits)
        wrong = counts.argmax(1)[of_test] != test
        return {"code_error": wrong.cpu().double().mean().item()}

    def categories(self, real: Sample) -> Tensor:
        """(n,) the category that Q sees in images."""
        (q,) = (term for term in self.all_terms if isinstance(term, MutualInformation))
        with batch_statistics(self):
            return q.guess(self.discriminator.features(real))[0].argmax(1)
