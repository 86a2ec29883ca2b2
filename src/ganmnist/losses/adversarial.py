"""Adversarial objectives. Each has a file in conf/objective/; several files share a class.

Let r = D(x) and f = D(G(z)) be the logits of real and fake images, s the sigmoid, and sp(t) =
log(1 + e^t), so that sp(-t) = -log s(t). The networks minimize

                           L_D                                L_G
    minimax                E sp(-r) + E sp(f)                -E sp(f)
    non-saturating (BCE)   E sp(-r) + E sp(f)                 E sp(-f)
    least squares          E (r - 1)^2 / 2 + E f^2 / 2        E (f - 1)^2 / 2
    Wasserstein            E f - E r                         -E f
    hinge                  E relu(1 - r) + E relu(1 + f)     -E f
    relativistic pairing   E sp(f - r)                        E sp(r - f)
    relativistic average   E sp(Ef - r) + E sp(f - Er)        E sp(Er - f) + E sp(r - Ef)
    f-GAN (see `FGAN`)    -E g(r) + E phi*(g(f))             -E g(f)

s(D(x)) is D's probability that x is real if `probability` is True.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.base import Discriminator
from ganmnist.utils.mappings import EMPTY


class Objective(LossTerm):
    """The adversarial losses of D and of G.

    Args:
        penalties: further loss terms that belong to the objective, such as WGAN-GP's.

    Attributes:
        equilibrium: (L_D, L_G) for a perfect generator and the optimal D; None: undetermined.
        probability: sigmoid(D(x)) is D's probability that x is real.
        decision_logit: the c with v(1/u) = 2c - v(u), where v(u) is the optimal logit at the ratio
            u of the densities of real and fake images. BiGAN's encoder loss needs it: the logits
            2c - D(x) have the roles of real and fake swapped. None: there is no such c.
    """

    equilibrium: tuple[float | None, float | None] = (None, None)
    probability = False
    decision_logit: float | None = None

    def __init__(self, penalties: Mapping[str, LossTerm] = EMPTY) -> None:
        super().__init__()
        self.penalties = dict(penalties)  # not submodules: the GAN registers them

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        raise NotImplementedError

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor | None:
        raise NotImplementedError


class BCE(Objective):
    """The non-saturating GAN (Goodfellow et al., 2014, arXiv 1406.2661) as binary cross-entropy.

    Args:
        stable: compute the cross-entropy from logits. False: from sigmoid(logit), as the papers
            write it. PyTorch clamps -log(p) at 100, and the gradient is 0 where the sigmoid rounds
            to 0 or 1. Elsewhere both are equal.
        smoothing: the target of real images in D's loss is 1 - smoothing (one-sided label
            smoothing: Salimans et al., 2016, arXiv 1606.03498).
    """

    probability = True

    def __init__(
        self,
        stable: bool = True,
        smoothing: float = 0.0,
        penalties: Mapping[str, LossTerm] = EMPTY,
    ) -> None:
        super().__init__(penalties)
        self.stable = stable
        self.smooth(smoothing)

    def smooth(self, smoothing: float) -> None:
        """Sets the target of real images.

        At the equilibrium, the optimal D's probability is half of the target for every image. With
        smoothing, real and fake cannot be swapped by reflecting the logits.
        """
        if not 0 <= smoothing < 1:
            name = type(self).__name__
            raise ValueError(f"{name}: smoothing={smoothing}: choose 0 or more, and below 1")
        self.target = t = 1 - smoothing
        p = t / 2
        self.decision_logit = 0.0 if t == 1 else None
        smoothed = 0.0 if t == 1 else (1 - t) * math.log(1 - p)
        self.equilibrium = (-t * math.log(p) - smoothed - math.log(1 - p), -math.log(p))

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return out.track("real", self.cross_entropy(out.real_logits, self.target)) + out.track(
            "fake", self.cross_entropy(out.fake_logits, 0.0)
        )

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.cross_entropy(out.fake_logits, 1.0)

    def cross_entropy(self, logits: Tensor, target: float) -> Tensor:
        """Mean cross-entropy, in nats, of logits (B,) with one target for all of them."""
        targets = torch.full_like(logits, target)
        if self.stable:
            return F.binary_cross_entropy_with_logits(logits, targets)
        # Autocast refuses this function, although these probabilities are float32.
        with torch.autocast(logits.device.type, enabled=False):
            probability = logits.sigmoid()
            loss = F.binary_cross_entropy(probability.nan_to_num(), targets)
        # `nan_to_num` avoids a failed assertion on a GPU. The added 0 * NaN makes the loss NaN.
        return loss + 0 * probability.sum()


class Minimax(BCE):
    """The minimax GAN: G maximizes D's loss (Goodfellow et al., 2014, arXiv 1406.2661).

    G's gradient, -E[s(f) grad f], vanishes where D is certain that an image is generated. The
    non-saturating loss avoids this.
    """

    def smooth(self, smoothing: float) -> None:
        super().smooth(smoothing)
        self.equilibrium = (self.equilibrium[0], math.log(1 - self.target / 2))

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return -self.cross_entropy(out.fake_logits, 0.0)


class LeastSquares(Objective):
    """LSGAN (Mao et al., 2016, arXiv 1611.04076): targets a for fake, b for real, c for G.

    The default is the paper's second choice of targets. With its first (a = -1, b = 1, c = 0), and
    against the optimal D, G minimizes the Pearson chi-squared divergence of p + q from 2 q, for the
    densities p of real and q of fake images.
    """

    def __init__(
        self,
        a: float = 0.0,
        b: float = 1.0,
        c: float = 1.0,
        penalties: Mapping[str, LossTerm] = EMPTY,
    ) -> None:
        super().__init__(penalties)
        self.a, self.b, self.c = a, b, c
        self.decision_logit = middle = (a + b) / 2
        self.equilibrium = ((b - a) ** 2 / 4, (middle - c) ** 2 / 2)

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        real = (out.real_logits - self.b).square().mean() / 2
        return real + (out.fake_logits - self.a).square().mean() / 2

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return (out.fake_logits - self.c).square().mean() / 2


class Wasserstein(Objective):
    """WGAN (Arjovsky et al., 2017, arXiv 1701.07875): -L_D estimates the earth mover's distance.

    With clipping, it does so up to a constant factor.

    Args:
        clip: bound of D's weights after every discriminator step, which makes D Lipschitz. None: no
            bound; a penalty takes its place (WGAN-GP: Gulrajani et al., 2017, arXiv 1704.00028).
    """

    equilibrium = (0.0, None)
    decision_logit = 0.0

    def __init__(
        self, clip: float | None = 0.01, penalties: Mapping[str, LossTerm] = EMPTY
    ) -> None:
        super().__init__(penalties)
        if clip is not None and clip <= 0:
            raise ValueError(f"objective.clip={clip}: choose a bound above 0, or null")
        self.clip = clip
        self.constrains_lipschitz = clip is not None
        self.supports_unrolling = clip is None  # unrolled steps do not clip

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        normalized = any("parametrizations" in name for name, _ in discriminator.named_modules())
        if self.clip is not None and normalized:
            raise ValueError(
                f"objective.clip={self.clip}: D divides its weights by their norm, so a bound has "
                "no effect. Use objective.clip=null, or neither stabilizer=spectral_norm nor "
                "model=noisy_mlp"
            )

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return out.fake_logits.mean() - out.real_logits.mean()

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return -out.fake_logits.mean()

    @torch.no_grad()
    def after_d_step(self, discriminator: Discriminator) -> None:
        if self.clip is not None:
            for p in discriminator.parameters():
                p.clamp_(-self.clip, self.clip)


class Hinge(Objective):
    """The hinge loss (Lim and Ye, 2017, arXiv 1705.02894)."""

    equilibrium = (2.0, None)
    decision_logit = 0.0

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return F.relu(1 - out.real_logits).mean() + F.relu(1 + out.fake_logits).mean()

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return -out.fake_logits.mean()


class RelativisticPairing(Objective):
    """RpGAN: pairs of real and fake images (RSGAN of Jolicoeur-Martineau, 2018, arXiv 1807.00734).

    The name RpGAN is from R3GAN (Huang et al., 2024, arXiv 2501.05441), whose loss has R1 and R2
    in addition.
    """

    equilibrium = (math.log(2), math.log(2))
    decision_logit = 0.0

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return F.softplus(out.fake_logits - out.real_logits).mean()

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return F.softplus(out.real_logits - out.fake_logits).mean()


class RelativisticAverage(Objective):
    """RaGAN (Jolicoeur-Martineau, 2018, arXiv 1807.00734).

    Each logit is compared with the mean logit of the other class, real or fake.
    """

    equilibrium = (2 * math.log(2), 2 * math.log(2))
    decision_logit = 0.0

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.cross_entropy(out.real_logits, out.fake_logits)

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.cross_entropy(out.fake_logits, out.real_logits)

    def cross_entropy(self, higher: Tensor, lower: Tensor) -> Tensor:
        """E -log s(higher - E lower) + E -log s(E higher - lower), in nats."""
        above, below = higher - lower.mean(), lower - higher.mean()
        return F.softplus(-above).mean() + F.softplus(below).mean()


class FGAN(Objective):
    """f-GAN (Nowozin et al., 2016, arXiv 1606.00709): -L_D is a lower bound of an f-divergence.

    phi is the generator function of the divergence (the paper's f), phi* its convex conjugate. The
    output activation g (the paper's g_f) maps D's logit v into the domain of phi*. For the
    optimal D, g(v) = phi'(u), where u = p(x) / q(x) is the ratio of the densities of real and
    generated images. G minimizes -E g(D(G(z))), the paper's second choice, which does not saturate.
    """

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return (
            self.conjugate_of_output(out.fake_logits).mean()
            - self.output_activation(out.real_logits).mean()
        )

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return -self.output_activation(out.fake_logits).mean()

    def output_activation(self, v: Tensor) -> Tensor:
        """g(v)"""
        raise NotImplementedError

    def conjugate_of_output(self, v: Tensor) -> Tensor:
        """phi*(g(v))"""
        raise NotImplementedError


class KL(FGAN):
    """phi(u) = u log u, large where G misses real images; the optimal v is 1 + log u."""

    equilibrium = (0.0, -1.0)
    decision_logit = 1.0

    def output_activation(self, v: Tensor) -> Tensor:
        return v

    def conjugate_of_output(self, v: Tensor) -> Tensor:
        return (v - 1).exp()


class ReverseKL(FGAN):
    """phi(u) = -log u, large where generated images are unrealistic; the optimal v is log u."""

    equilibrium = (0.0, 1.0)
    decision_logit = 0.0
    probability = True

    def output_activation(self, v: Tensor) -> Tensor:
        return -(-v).exp()

    def conjugate_of_output(self, v: Tensor) -> Tensor:
        return v - 1


class JensenShannon(FGAN):
    """phi(u) = u log u - (1 + u) log((1 + u) / 2), twice the divergence; the optimal v is log u."""

    equilibrium = (0.0, 0.0)
    decision_logit = 0.0
    probability = True

    def output_activation(self, v: Tensor) -> Tensor:
        return math.log(2) - F.softplus(-v)

    def conjugate_of_output(self, v: Tensor) -> Tensor:
        return F.softplus(v) - math.log(2)


class Pearson(FGAN):
    """phi(u) = (u - 1)^2; the optimal v is 2 (u - 1)."""

    equilibrium = (0.0, 0.0)

    def output_activation(self, v: Tensor) -> Tensor:
        return v

    def conjugate_of_output(self, v: Tensor) -> Tensor:
        return v.square() / 4 + v


class SquaredHellinger(FGAN):
    """phi(u) = (sqrt(u) - 1)^2; the optimal v is log(u) / 2."""

    equilibrium = (0.0, 0.0)
    decision_logit = 0.0

    def output_activation(self, v: Tensor) -> Tensor:
        return 1 - (-v).exp()

    def conjugate_of_output(self, v: Tensor) -> Tensor:
        return v.exp() - 1


class ObjectiveWrapper(Objective):
    """D's loss of another objective. A subclass defines G's loss.

    The wrapper calls all hooks of the other objective except `before_d_step`, which the GAN calls
    on every submodule.
    """

    def __init__(self, objective: Objective, penalties: Mapping[str, LossTerm] = EMPTY) -> None:
        super().__init__({**objective.penalties, **penalties})
        self.objective = objective
        self.probability = objective.probability
        self.trained_with = objective.trained_with
        self.constrains_lipschitz = objective.constrains_lipschitz
        self.supports_unrolling = objective.supports_unrolling

    # Properties, because the wrapped objective may change them later, as label smoothing does.

    @property
    def equilibrium(self) -> tuple[float | None, float | None]:  # type: ignore[override]
        return self.objective.equilibrium[0], None

    @property
    def needs_real_grad(self) -> bool:  # type: ignore[override]
        return self.objective.needs_real_grad

    @property
    def needs_fake_grad(self) -> bool:  # type: ignore[override]
        return self.objective.needs_fake_grad

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        self.objective.setup(generator, discriminator)

    def after_initialization(self, discriminator: Discriminator) -> None:
        self.objective.after_initialization(discriminator)

    def after_d_step(self, discriminator: Discriminator) -> None:
        self.objective.after_d_step(discriminator)

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.objective.d_loss(out)


class DiscriminatorOnly(ObjectiveWrapper):
    """D's loss alone. Another term trains G, such as feature matching."""

    def g_loss(self, out: DiscriminatorOutputs) -> None:
        return None
