"""The walk of docs/design.md in code: families of the literature, each in about ten lines.

Everything here goes through the public interfaces alone: subclasses of Term, of Discriminator,
and of GAN that override how samples are drawn. Each trains for two steps.
"""

import pytest
import torch
import torch.nn.functional as F
from conftest import fit, images, small_gan, watch
from torch import Tensor, nn

from ganmnist.duel import Duel, Player, Sample, Term
from ganmnist.gan import GAN
from ganmnist.networks import mlp
from ganmnist.networks.base import Discriminator
from ganmnist.objectives import BCE, Objective

Z = 4  # latent dimensions of small_gan
F_DIM = 4 * 4 * 4  # features of its discriminator


def train(gan: GAN) -> dict[Player, set[str]]:
    """Two steps with finite losses; the parameters that each player's updates have moved."""
    moved = watch(gan)
    fit(gan, batches=2)
    assert list(gan.history) == [1, 2]
    for row in gan.history.values():
        assert {"train/d/loss", "train/g/loss"} <= row.keys()
        assert all(value.isfinite() for value in row.values())
    trained = {name for name, _ in gan.named_parameters()}
    return {player: names & trained for player, names in moved.items()}


def parameters(gan: GAN, *prefixes: str) -> set[str]:
    return {name for name, _ in gan.named_parameters() if name.startswith(prefixes)}


class Perceptron(Discriminator):
    """Scores whatever `look` makes of a sample, (B, n)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n, 16), nn.LeakyReLU(0.2))
        self.last = nn.Linear(16, 1)

    def look(self, sample: Sample) -> Tensor:
        return sample.x.flatten(1)

    def features(self, sample: Sample) -> Tensor:
        return self.body(self.look(sample))

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()


class Encoder(nn.Sequential):
    """Images to latents."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, Z))


# Conditions


class ConditionalGenerator(mlp.Generator):
    """Adds an embedding of the label to the latent."""

    def __init__(self) -> None:
        super().__init__(Z, image_size=8, widths=[8])
        self.embed = nn.Embedding(10, Z)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return super().forward(z + self.embed(y))


class Projection(Perceptron):
    """Logits gain <embedding of y, features> (Miyato and Koyama, 2018, arXiv 1802.05637)."""

    def __init__(self) -> None:
        super().__init__(64)
        self.embed = nn.Embedding(10, 16)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return super().score(features, sample) + (self.embed(sample.y) * features).sum(1)


def test_projection_discriminator() -> None:
    gan = small_gan(generator=ConditionalGenerator(), discriminator=Projection())
    moved = train(gan)
    assert {"generator.embed.weight", "discriminator.embed.weight"} <= moved["g"] | moved["d"]
    assert moved == {"d": parameters(gan, "discriminator"), "g": parameters(gan, "generator")}
    assert gan.sample(torch.randn(3, Z), torch.arange(3)).shape == (3, 1, 8, 8)


class ClassHead(Term):
    """ACGAN's classifier on D's features (Odena et al., 2017, arXiv 1610.09585)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(F_DIM, 10)

    def d_loss(self, duel: Duel) -> Tensor:
        real = F.cross_entropy(self.head(duel.real_features), duel.real.y)
        return real + F.cross_entropy(self.head(duel.fake_features), duel.fake.y)

    def g_loss(self, duel: Duel) -> Tensor:
        return F.cross_entropy(self.head(duel.fake_features), duel.fake.y)


def test_acgan() -> None:
    gan = small_gan(generator=ConditionalGenerator(), terms={"acgan": ClassHead()})
    moved = train(gan)
    assert moved["d"] == parameters(gan, "discriminator", "terms.acgan")
    assert moved["g"] == parameters(gan, "generator")


class CodeAndNoise:
    """InfoGAN's prior: a one-hot code of three, then noise."""

    def __call__(
        self, n: int, device: torch.device | str = "cpu", generator: torch.Generator | None = None
    ) -> Tensor:
        code = torch.randint(3, (n,), device=device, generator=generator)
        noise = torch.randn(n, Z - 3, device=device, generator=generator)
        return torch.cat([F.one_hot(code, 3), noise], 1)


class CodeHead(Term):
    """Reads the code back from the image (InfoGAN: Chen et al., 2016, arXiv 1606.03657)."""

    player = "g"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(F_DIM, 3)

    def g_loss(self, duel: Duel) -> Tensor:
        return F.cross_entropy(self.head(duel.fake_features), duel.fake.z[:, :3].argmax(1))


@pytest.mark.parametrize("fresh_fakes", [False, True])
def test_infogan(fresh_fakes: bool) -> None:
    gan = small_gan(latent=CodeAndNoise(), terms={"infogan": CodeHead()}, fresh_fakes=fresh_fakes)
    moved = train(gan)
    assert moved["d"] == parameters(gan, "discriminator")
    assert moved["g"] == parameters(gan, "generator", "terms.infogan")


class Classifying(Perceptron):
    """K classes and "generated": D = Z / (Z + 1), Z the sum of exp(class logits).

    Improved techniques for training GANs (Salimans et al., 2016, arXiv 1606.03498).
    """

    def __init__(self) -> None:
        super().__init__(64)
        self.last = nn.Linear(16, 10)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).logsumexp(1)


class Labels(Term):
    """Cross-entropy of the labelled images, here the real ones."""

    def d_loss(self, duel: Duel) -> Tensor:
        return F.cross_entropy(duel.discriminator.last(duel.real_features), duel.real.y)


def test_semi_supervised_classes() -> None:
    gan = small_gan(discriminator=Classifying(), terms={"labels": Labels()})
    sample = images()
    total = gan.discriminator.last(gan.discriminator.features(sample)).exp().sum(1)
    torch.testing.assert_close(gan.discriminator(sample).sigmoid(), total / (total + 1))
    moved = train(gan)
    assert moved == {"d": parameters(gan, "discriminator"), "g": parameters(gan, "generator")}


# Encoders


class SeesBoth(Perceptron):
    """D(x, z)"""

    def __init__(self) -> None:
        super().__init__(64 + Z)

    def look(self, sample: Sample) -> Tensor:
        return torch.cat([sample.x.flatten(1), sample.z], 1)


class Negated(Discriminator):
    """The same opinion about the opposite question."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def features(self, sample: Sample) -> Tensor:
        return self.discriminator.features(sample)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return -self.discriminator.score(features, sample)


class BothWays(Term):
    """Any objective's generator loss for the real side, which shall pass for the fake one."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.inner = objective

    def g_loss(self, duel: Duel) -> Tensor:
        return self.inner.g_loss(Duel(Negated(duel.discriminator), duel.fake, duel.real))


class BiGAN(GAN):
    """(x, E(x)) against (G(z), z) (Donahue et al., 2016, arXiv 1605.09782)."""

    def __init__(self, encoder: nn.Module, **parts: object) -> None:
        super().__init__(**parts)
        self.encoder = encoder

    def real(self, batch: Sample, z: Tensor) -> Sample:
        return Sample(batch.x, z=self.encoder(batch.x))


def test_the_other_way_of_bce_is_its_closed_form() -> None:
    """-log(1 - D(x, E(x)))"""
    sides = (Sample(images().x, z=torch.randn(8, Z)) for _ in range(2))
    duel = Duel(SeesBoth(), *sides)
    expected = -(1 - duel.real_logits.sigmoid()).log().mean()
    torch.testing.assert_close(BothWays(BCE()).g_loss(duel), expected)


@pytest.mark.parametrize("fresh_fakes", [False, True])
def test_bigan(fresh_fakes: bool) -> None:
    gan = small_gan(
        BiGAN,
        encoder=Encoder(),
        discriminator=SeesBoth(),
        terms={"other_way": BothWays(BCE())},
        fresh_fakes=fresh_fakes,
    )
    moved = train(gan)
    assert moved["d"] == parameters(gan, "discriminator")
    assert moved["g"] == parameters(gan, "generator", "encoder")


def test_bigan_s_encoder_learns_from_the_real_side_alone() -> None:
    gan = small_gan(BiGAN, encoder=Encoder(), discriminator=SeesBoth())
    assert train(gan)["g"] == parameters(gan, "generator")


class SeesLatents(Perceptron):
    """D(z)"""

    def __init__(self) -> None:
        super().__init__(Z)

    def look(self, sample: Sample) -> Tensor:
        return sample.z


class Reconstruction(Term):
    """|G(E(x)) - x|^2"""

    def g_loss(self, duel: Duel) -> Tensor:
        return F.mse_loss(duel.fake.x, duel.real.x)


class AAE(GAN):
    """z against E(x), with G as decoder (Makhzani et al., 2015, arXiv 1511.05644)."""

    def __init__(self, encoder: nn.Module, **parts: object) -> None:
        super().__init__(**parts)
        self.encoder = encoder

    def real(self, batch: Sample, z: Tensor) -> Sample:
        return Sample(batch.x, z=z)

    def fake(self, batch: Sample, z: Tensor) -> Sample:
        code = self.encoder(batch.x)
        return Sample(self.generator(code), z=code)


def test_adversarial_autoencoder() -> None:
    gan = small_gan(
        AAE,
        encoder=Encoder(),
        discriminator=SeesLatents(),
        terms={"reconstruction": Reconstruction()},
    )
    moved = train(gan)
    assert moved["d"] == parameters(gan, "discriminator")
    assert moved["g"] == parameters(gan, "generator", "encoder")
    without = small_gan(AAE, encoder=Encoder(), discriminator=SeesLatents())
    assert train(without)["g"] == parameters(without, "encoder")  # the duel is over latents
