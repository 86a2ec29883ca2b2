"""Adversarial objectives: one small class each, one file in conf/objective/ each.

With logits r = D(x) of real and f = D(G(z)) of generated images and s the logistic sigmoid, so that
softplus(-t) = -log s(t), the discriminator and the generator minimise

    minimax         E sp(-r) + E sp(f)                    -E sp(f)              sp = softplus
    non-saturating  E sp(-r) + E sp(f)                     E sp(-f)
    least squares   E (r - 1)^2 / 2 + E f^2 / 2            E (f - 1)^2 / 2
    Wasserstein     E f - E r                             -E f
    hinge           E relu(1 - r) + E relu(1 + f)         -E f
    relativistic    E sp(f - r), in pairs or to the mean          the same with r and f swapped
    f-divergence    -E g(r) + E f*(g(f))                  -E g(f)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.duel import Duel, Term

if TYPE_CHECKING:
    from ganmnist.networks.base import Discriminator


class Objective(Term):
    """A game between the two players.

    `equilibrium` is what (L_D, L_G) are when nobody can win; None where the game leaves it open.
    `probability` says that sigmoid(logit) is D's probability of an image to be real.
    """

    equilibrium: tuple[float | None, float | None] = (None, None)
    probability = False
    # Where D takes real and generated images for alike: mirrored there, a logit says the opposite.
    # None where the two sides cannot change places.
    neutral: float | None = 0.0

    def d_loss(self, duel: Duel) -> Tensor:
        raise NotImplementedError

    def g_loss(self, duel: Duel) -> Tensor | None:
        raise NotImplementedError


class BCE(Objective):
    """The non-saturating GAN (Goodfellow et al., 2014, arXiv 1406.2661) as binary cross-entropy.

    Args:
        stable: compute it from logits; False takes the cross-entropy of sigmoid(logit), as the
            papers print it and with the bound of 100 that PyTorch puts on -log. The number is the
            same, but has no gradient where the sigmoid has rounded to 0 or 1.
        smoothing: real images have the target 1 - smoothing in D's loss (one-sided label
            smoothing: Salimans et al., 2016, arXiv 1606.03498).
    """

    probability = True

    def __init__(self, stable: bool = True, smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(
                f"smoothing={smoothing} leaves no target: choose one from 0 to below 1"
            )
        self.stable = stable
        self.target = 1 - smoothing
        self.neutral = math.log(self.target / 2) - math.log(1 - self.target / 2)

    @property
    def equilibrium(self) -> tuple[float, float]:  # type: ignore[override]
        """Where the images are alike, the best D is target / 2 everywhere."""
        p, t = self.target / 2, self.target
        other = 0.0 if t == 1 else (1 - t) * math.log(1 - p)
        return -t * math.log(p) - other - math.log(1 - p), -math.log(p)

    def d_loss(self, duel: Duel) -> Tensor:
        return duel.part("real", self.cross_entropy(duel.real_logits, self.target)) + duel.part(
            "fake", self.cross_entropy(duel.fake_logits, 0.0)
        )

    def g_loss(self, duel: Duel) -> Tensor:
        return self.cross_entropy(duel.fake_logits, 1.0)

    def cross_entropy(self, logits: Tensor, target: float) -> Tensor:
        """Mean cross-entropy, in nats, of logits (B,) with one target for all of them."""
        targets = torch.full_like(logits, target)
        if self.stable:
            return F.binary_cross_entropy_with_logits(logits, targets)
        # Autocast forbids the cross-entropy of probabilities by name, though these are float32.
        with torch.autocast(logits.device.type, enabled=False):
            probability = logits.sigmoid()
            loss = F.binary_cross_entropy(probability.nan_to_num(), targets)
        # PyTorch asserts that a probability is one, and on a GPU that would end the process. A loss
        # that is NaN, as it ought to be, ends the run with a sentence.
        return loss + 0 * probability.sum()


class Minimax(BCE):
    """The game as first written: G maximises D's loss (Goodfellow et al., 2014, arXiv 1406.2661).

    Its gradient vanishes where D is sure, E[-s(f) df]: what the non-saturating form was made for.
    """

    @property
    def equilibrium(self) -> tuple[float, float]:  # type: ignore[override]
        return super().equilibrium[0], math.log(1 - self.target / 2)

    def g_loss(self, duel: Duel) -> Tensor:
        return -self.cross_entropy(duel.fake_logits, 0.0)


class LeastSquares(Objective):
    """LSGAN (Mao et al., 2016, arXiv 1611.04076): targets a for fake, b for real, c for G.

    Of the paper's two choices this is the second; with (-1, 1, 0), the first, G minimises the
    Pearson divergence of p + q from 2 q.
    """

    def __init__(self, a: float = 0.0, b: float = 1.0, c: float = 1.0) -> None:
        super().__init__()
        self.a, self.b, self.c = a, b, c
        self.neutral = middle = (a + b) / 2
        self.equilibrium = ((b - a) ** 2 / 4, (middle - c) ** 2 / 2)

    def d_loss(self, duel: Duel) -> Tensor:
        real = (duel.real_logits - self.b).square().mean() / 2
        return real + (duel.fake_logits - self.a).square().mean() / 2

    def g_loss(self, duel: Duel) -> Tensor:
        return (duel.fake_logits - self.c).square().mean() / 2


class Wasserstein(Objective):
    """WGAN (Arjovsky et al., 2017, arXiv 1701.07875): -L_D bounds the earth mover's distance.

    Args:
        clip: bound on D's weights after each of its updates, which keeps D Lipschitz; None leaves
            that to a penalty (WGAN-GP: Gulrajani et al., 2017, arXiv 1704.00028).
    """

    equilibrium = (0.0, None)

    def __init__(self, clip: float | None = 0.01) -> None:
        super().__init__()
        if clip is not None and clip <= 0:
            raise ValueError(f"clip={clip} leaves D no weights: choose a positive bound, or null")
        self.clip = clip
        self.bounds_slope = clip is not None

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        normed = any("parametrizations" in name for name, _ in discriminator.named_modules())
        if self.clip is not None and normed:
            raise ValueError(
                f"clip={self.clip} bounds weights that are divided by their norm anyway: choose "
                "objective.clip=null, or leave stabilizer=spectral_norm and model=noisy_mlp out"
            )

    def d_loss(self, duel: Duel) -> Tensor:
        return duel.fake_logits.mean() - duel.real_logits.mean()

    def g_loss(self, duel: Duel) -> Tensor:
        return -duel.fake_logits.mean()

    @torch.no_grad()
    def after_d_update(self, discriminator: Discriminator) -> None:
        if self.clip is not None:
            for p in discriminator.parameters():
                p.clamp_(-self.clip, self.clip)


class Hinge(Objective):
    """The hinge loss (Lim and Ye, 2017, arXiv 1705.02894)."""

    equilibrium = (2.0, None)

    def d_loss(self, duel: Duel) -> Tensor:
        return F.relu(1 - duel.real_logits).mean() + F.relu(1 + duel.fake_logits).mean()

    def g_loss(self, duel: Duel) -> Tensor:
        return -duel.fake_logits.mean()


class RelativisticPairing(Objective):
    """RpGAN (Jolicoeur-Martineau, 2018, arXiv 1807.00734): is this real more real than this fake?

    With R1 and R2 it is R3GAN's loss (Huang et al., 2024, arXiv 2501.05441).
    """

    equilibrium = (math.log(2), math.log(2))

    def d_loss(self, duel: Duel) -> Tensor:
        return F.softplus(duel.fake_logits - duel.real_logits).mean()

    def g_loss(self, duel: Duel) -> Tensor:
        return F.softplus(duel.real_logits - duel.fake_logits).mean()


class RelativisticAverage(Objective):
    """RaGAN (Jolicoeur-Martineau, 2018, arXiv 1807.00734): more real than the others on average?"""

    equilibrium = (2 * math.log(2), 2 * math.log(2))

    def d_loss(self, duel: Duel) -> Tensor:
        return self.preference(duel.real_logits, duel.fake_logits)

    def g_loss(self, duel: Duel) -> Tensor:
        return self.preference(duel.fake_logits, duel.real_logits)

    def preference(self, better: Tensor, worse: Tensor) -> Tensor:
        """Cross-entropy, in nats, of `better` lying above the mean of `worse`, and the converse."""
        above, below = better - worse.mean(), worse - better.mean()
        return F.softplus(-above).mean() + F.softplus(below).mean()


class FGAN(Objective):
    """f-GAN (Nowozin et al., 2016, arXiv 1606.00709): -L_D is a lower bound of an f-divergence.

    D's logit v becomes a variational function g(v) in the domain of f's conjugate f*. The best v is
    a function of the ratio u = p(x) / q(x) of the densities, where g(v) = f'(u). G plays the
    paper's second game, which maximises E g(f) and does not saturate.
    """

    def d_loss(self, duel: Duel) -> Tensor:
        return self.conjugate(duel.fake_logits).mean() - self.output(duel.real_logits).mean()

    def g_loss(self, duel: Duel) -> Tensor:
        return -self.output(duel.fake_logits).mean()

    def output(self, v: Tensor) -> Tensor:
        """g(v)"""
        raise NotImplementedError

    def conjugate(self, v: Tensor) -> Tensor:
        """f*(g(v))"""
        raise NotImplementedError


class KL(FGAN):
    """f(u) = u log u, which counts what the generator leaves out; v = 1 + log u."""

    equilibrium = (0.0, -1.0)
    neutral = 1.0

    def output(self, v: Tensor) -> Tensor:
        return v

    def conjugate(self, v: Tensor) -> Tensor:
        return (v - 1).exp()


class ReverseKL(FGAN):
    """f(u) = -log u, which counts what the generator makes up; v = log u."""

    equilibrium = (0.0, 1.0)
    probability = True

    def output(self, v: Tensor) -> Tensor:
        return -(-v).exp()

    def conjugate(self, v: Tensor) -> Tensor:
        return v - 1


class JensenShannon(FGAN):
    """f(u) = u log u - (1 + u) log((1 + u) / 2), twice the divergence; v = log u."""

    equilibrium = (0.0, 0.0)
    probability = True

    def output(self, v: Tensor) -> Tensor:
        return math.log(2) - F.softplus(-v)

    def conjugate(self, v: Tensor) -> Tensor:
        return F.softplus(v) - math.log(2)


class Pearson(FGAN):
    """f(u) = (u - 1)^2; v = 2 (u - 1)."""

    equilibrium = (0.0, 0.0)
    neutral = None  # v(1 / u) is no mirror image of v(u)

    def output(self, v: Tensor) -> Tensor:
        return v

    def conjugate(self, v: Tensor) -> Tensor:
        return v.square() / 4 + v


class SquaredHellinger(FGAN):
    """f(u) = (sqrt(u) - 1)^2; v = log(u) / 2."""

    equilibrium = (0.0, 0.0)

    def output(self, v: Tensor) -> Tensor:
        return 1 - (-v).exp()

    def conjugate(self, v: Tensor) -> Tensor:
        return v.exp() - 1


class AsDPlays(Objective):
    """Another objective as far as D goes; what G is charged, a subclass says."""

    def __init__(self, game: Objective) -> None:
        super().__init__()
        self.game = game
        self.equilibrium = (game.equilibrium[0], None)
        self.probability = game.probability
        self.bounds_slope = game.bounds_slope

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        self.game.setup(generator, discriminator)

    def after_d_update(self, discriminator: Discriminator) -> None:
        self.game.after_d_update(discriminator)

    def d_loss(self, duel: Duel) -> Tensor:
        return self.game.d_loss(duel)


class OnlyD(AsDPlays):
    """D plays a game that G takes no part in: other terms train G, such as feature matching."""

    neutral = None

    def g_loss(self, duel: Duel) -> None:
        return None
