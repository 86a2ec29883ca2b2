"""Penalties: further terms of the losses, one class for each.

    R1                  E |grad D(x)|^2 / 2           real images x
    R2                  E |grad D(G(z))|^2 / 2        generated images
    gradient penalty    E (|grad D(x_hat)| - 1)^2     x_hat between a real and a generated image
    DRAGAN              E (|grad D(x_hat)| - 1)^2     x_hat near a real image
    feature matching    |E h(x) - E h(G(z))|^2        h: D's features; in G's loss
    historical average  |w - mean of w so far|^2      w: the weights; in both losses

each times a weight. D(x) is the logit. The gradient is with respect to the inputs of D: image and
latent together in a BiGAN, the latent in an adversarial autoencoder, all images of a pack with
PacGAN. It is not taken with respect to the condition. With batch norm a logit depends on the other
images, too. R1 and R2 then include the effect on the other logits, because they differentiate the
sum of all logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganmnist.losses.base import LossTerm, NetworkName
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.base import Discriminator
from ganmnist.utils.batch import Batch
from ganmnist.utils.schedules import TrainingProgress, Value, at, check_number, check_value


class Penalty(LossTerm):
    """A weighted term of D's loss. A subclass defines `penalty`.

    Args:
        weight: a number, or a schedule over the run.
        interval: the penalty is computed in every `interval`-th discriminator step, with `interval`
            times the weight (lazy regularization: Karras et al., 2020, arXiv 1912.04958).
    """

    weight_name = "weight"  # of the argument, for messages

    def __init__(self, weight: Value, interval: int = 1) -> None:
        super().__init__()
        name = type(self).__name__
        if interval < 1:
            raise ValueError(f"{name}: interval={interval}: choose 1 or more")
        self.weight = check_value(f"{name}: {self.weight_name}", weight)
        self.interval = interval
        self.before_d_step(TrainingProgress())

    def before_d_step(self, progress: TrainingProgress) -> None:
        """Updates the weight, and whether the next discriminator step has the penalty."""
        self.due = progress.d_iteration % self.interval == 0
        self.strength = self.interval * at(self.weight, progress.fraction)

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor | None:
        return self.strength * self.penalty(out) if self.due else None

    def penalty(self, out: DiscriminatorOutputs) -> Tensor:
        """The penalty without its weight, a scalar."""
        raise NotImplementedError


class InputGradientPenalty(Penalty):
    """A penalty that uses dD/dx.

    The class sets `needs_real_grad` or `needs_fake_grad` if it differentiates with respect to the
    real or to the fake inputs. Between two multiples of `interval`, they are False.
    """

    # Each unrolled step would multiply the size of the graph of second derivatives.
    supports_unrolling = False

    def before_d_step(self, progress: TrainingProgress) -> None:
        super().before_d_step(progress)
        self.needs_real_grad = self.due and type(self).needs_real_grad
        self.needs_fake_grad = self.due and type(self).needs_fake_grad


def inputs_of(discriminator: Discriminator, batch: Batch) -> dict[str, Tensor]:
    """The images x, the latents z, or both: all inputs of D except the condition y."""
    fields = {"x": batch.x, "z": batch.z}
    return {
        name: value
        for name, value in fields.items()
        if name in discriminator.input_fields and value is not None
    }


def gradients(logits: Tensor, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """The gradient of the sum of the logits with respect to each input."""
    grads = torch.autograd.grad(logits.sum(), [*inputs.values()], create_graph=True)
    return [grad.float() for grad in grads]


def mean_squared_gradient(out: DiscriminatorOutputs, logits: Tensor, batch: Batch) -> Tensor:
    """The mean of |grad logit|^2 over the logits."""
    squares = (g.square().sum() for g in gradients(logits, inputs_of(out.discriminator, batch)))
    return sum(squares, torch.zeros((), device=logits.device)) / len(logits)


class R1(InputGradientPenalty):
    """gamma / 2 E|grad D(x)|^2 at real images (Mescheder et al., 2018, arXiv 1801.04406)."""

    needs_real_grad = True
    weight_name = "gamma"

    def __init__(self, gamma: Value, interval: int = 1) -> None:
        super().__init__(gamma, interval)

    def penalty(self, out: DiscriminatorOutputs) -> Tensor:
        return mean_squared_gradient(out, out.real_logits, out.real) / 2


class R2(InputGradientPenalty):
    """gamma / 2 E|grad D(G(z))|^2 at generated images (Mescheder et al., arXiv 1801.04406)."""

    needs_fake_grad = True
    weight_name = "gamma"

    def __init__(self, gamma: Value, interval: int = 1) -> None:
        super().__init__(gamma, interval)

    def penalty(self, out: DiscriminatorOutputs) -> Tensor:
        return mean_squared_gradient(out, out.fake_logits, out.fake) / 2


class GradientPenalty(InputGradientPenalty):
    """WGAN-GP's penalty E(|grad D(x_hat)| - 1)^2 (Gulrajani et al., 2017, arXiv 1704.00028).

    x_hat = t x + (1 - t) G(z), with a uniform t for each image.
    """

    constrains_lipschitz = True
    discriminator_norm = "layer"

    def __init__(self, weight: Value = 10.0, interval: int = 1) -> None:
        super().__init__(weight, interval)

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        if any(isinstance(module, _BatchNorm) for module in discriminator.modules()):
            raise ValueError(
                f"{type(self).__name__}: it needs the gradient at each image, and with batch norm "
                "D's logits depend on the whole batch. Use model.discriminator.norm=layer or none, "
                "or a model without batch norm, such as mlp, resnet or r3gan"
            )
        if discriminator.n_scales > 1:
            raise ValueError(
                f"{type(self).__name__}: it needs one logit per image, and this family's D has "
                f"{discriminator.n_scales}. Use penalty=r1, and an objective without "
                f"{type(self).__name__}"
            )

    def penalty(self, out: DiscriminatorOutputs) -> Tensor:
        real, fake = (inputs_of(out.discriminator, batch) for batch in (out.real, out.fake))
        points = {k: v.detach().requires_grad_() for k, v in self.points(real, fake).items()}
        logits = out.discriminator(out.real._replace(**points)).float()
        rows = [grad.reshape(len(logits), -1) for grad in gradients(logits, points)]
        norms: Tensor = torch.linalg.vector_norm(torch.cat(rows, 1), dim=1)
        return (norms - 1).square().mean()

    def points(self, real: dict[str, Tensor], fake: dict[str, Tensor]) -> dict[str, Tensor]:
        """The points x_hat, from the real and the fake inputs (B, ...)."""
        t = uniform(next(iter(real.values())))
        return {name: lerp(fake[name], real[name], t) for name in real}


class Dragan(GradientPenalty):
    """DRAGAN's penalty E(|grad D(x_hat)| - 1)^2 (Kodali et al., 2017, arXiv 1705.07215).

    As in the authors' code, x_hat = x + t u std(x) / 2, with a uniform t for each image and a
    uniform u for each pixel. The paper has Gaussian noise.
    """

    def points(self, real: dict[str, Tensor], fake: dict[str, Tensor]) -> dict[str, Tensor]:
        t = uniform(next(iter(real.values())))
        return {name: lerp(x, x + torch.rand_like(x) * x.std() / 2, t) for name, x in real.items()}


def uniform(x: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), one for each image of x (B, ...)."""
    return torch.rand(len(x), device=x.device)


def lerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """start + t (end - start) (B, ...), for t (B,)."""
    return torch.lerp(start, end, t.view(-1, *[1] * (start.dim() - 1)))


class FeatureMatching(LossTerm):
    """G matches the mean of D's features (Salimans et al., 2016, arXiv 1606.03498).

    weight |E h(x) - E h(G(z))|^2, with the features h of D
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        check_number("FeatureMatching: weight", weight)
        self.weight = weight

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        gap = out.real_features.float().mean(0) - out.fake_features.float().mean(0)
        return self.weight * gap.square().sum()


class HistoricalAverage(LossTerm):
    """Both networks stay near the mean of their past (Salimans et al., 2016, arXiv 1606.03498).

    weight |w - mean of all past w|^2, summed over the parameters w of a network.
    """

    supports_unrolling = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        check_number("HistoricalAverage: weight", weight)
        self.weight = weight
        self.d_iteration = 0

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        networks = {"d": discriminator, "g": generator}
        # Lists of parameters, because the GAN registers the modules.
        self.now: dict[str, list[Tensor]] = {
            name: [*network.parameters()] for name, network in networks.items()
        }
        past = {name: deepcopy(network) for name, network in networks.items()}
        self.past = nn.ModuleDict(past).requires_grad_(False)

    def after_initialization(self, discriminator: Discriminator) -> None:
        for network, now in self.now.items():
            for past, w in zip(self.past[network].parameters(), now, strict=True):
                past.copy_(w.detach())

    def before_d_step(self, progress: TrainingProgress) -> None:
        self.d_iteration = progress.d_iteration

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.distance("d")

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.distance("g")

    def distance(self, network: NetworkName) -> Tensor:
        pairs = zip(self.now[network], self.past[network].parameters(), strict=True)
        return self.weight * torch.stack([(now - past).square().sum() for now, past in pairs]).sum()

    @torch.no_grad()
    def after_d_step(self, discriminator: Discriminator) -> None:
        for network, now in self.now.items():
            past: list[Tensor] = [*self.past[network].parameters()]
            torch._foreach_lerp_(past, now, 1 / (self.d_iteration + 1))
