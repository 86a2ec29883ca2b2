"""Unrolled GANs (Metz et al., 2016, arXiv 1611.02163).

Before the generator step, k steps of gradient descent update a copy of D on the same images:

    w_0 = w,    w_(i+1) = w_i - lr dL_D(w_i, G) / dw_i

G minimizes L_G(w_k, G), and the gradient flows through the dependence of w_k on G. D keeps w.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.losses.terms import LossTerms
from ganmnist.networks.base import Discriminator
from ganmnist.stabilizers.base import Stabilizer
from ganmnist.utils.batch import Batch
from ganmnist.utils.schedules import check_number


class Unrolled(Stabilizer):
    """The generator step uses D after `steps` more steps with learning rate `lr`."""

    def __init__(self, steps: int = 5, lr: float = 1e-3) -> None:
        self.steps = steps
        self.lr = lr
        if steps < 0:
            raise ValueError(f"stabilizer.unrolled.steps={steps}: choose 0 or more")
        check_number("stabilizer.unrolled.lr", lr)

    def check(self, loss_terms: LossTerms) -> None:
        unsupported = [name for name, term in loss_terms.named if not term.supports_unrolling]
        if unsupported:
            raise ValueError(
                f"stabilizer=unrolled: the loss terms {', '.join(unsupported)} do not support it. "
                "Use another objective or family, penalty=none, or stabilizer=none"
            )

    def discriminator_for_g(
        self, discriminator: Discriminator, loss_terms: LossTerms, real: Batch, fake: Batch
    ) -> Discriminator:
        named = discriminator.named_parameters()
        weights = {name: w.detach().requires_grad_() for name, w in named}
        buffers = {name: buffer.clone() for name, buffer in discriminator.named_buffers()}
        for _ in range(self.steps):
            unrolled = FunctionalDiscriminator(discriminator, {**weights, **buffers})
            loss = loss_terms.loss("d", DiscriminatorOutputs(unrolled, real, fake))
            grads = torch.autograd.grad(loss, [*weights.values()], create_graph=True)
            updates = zip(weights.items(), grads, strict=True)
            weights = {name: w - self.lr * grad for (name, w), grad in updates}
        return FunctionalDiscriminator(discriminator, {**weights, **buffers})


class FunctionalDiscriminator(Discriminator):
    """A discriminator with given parameters and buffers in the place of its own."""

    def __init__(self, discriminator: Discriminator, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.call = MethodCall(discriminator)
        self.state = {f"discriminator.{name}": value for name, value in state.items()}
        self.n_features = discriminator.n_features

    def features(self, batch: Batch) -> Tensor:
        return self.apply_method("features", batch)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return self.apply_method("logits", features, batch)

    def apply_method(self, *arguments: Any) -> Tensor:
        output: Tensor = functional_call(self.call, self.state, arguments)
        return output


class MethodCall(nn.Module):
    """Calls a method of a discriminator: `functional_call` can only call `forward`."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, method: str, *arguments: Any) -> Tensor:
        output: Tensor = getattr(self.discriminator, method)(*arguments)
        return output
