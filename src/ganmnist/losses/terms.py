"""All loss terms of a GAN."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from ganmnist.losses.adversarial import Objective
from ganmnist.losses.base import LossTerm, NetworkName
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.base import Discriminator
from ganmnist.utils.errors import UserError

# Names of other logged scalars.
RESERVED = {
    "loss",
    "grad_norm",
    "real",
    "real_prob",
    "real_logit",
    "fake",
    "fake_prob",
    "fake_logit",
}


class LossTerms(nn.ModuleDict):
    """The objective, under the name of its class, and all other terms by name.

    Raises:
        ValueError: a name is used twice, or two terms constrain D's gradient.
    """

    def __init__(self, objective: Objective, *groups: Mapping[str, LossTerm]) -> None:
        terms: dict[str, LossTerm] = {type(objective).__name__.lower(): objective}
        for name, term in (item for group in groups for item in group.items()):
            if name in RESERVED:
                raise ValueError(f"Loss term {name}: the name is reserved. Use another name")
            if name in terms:
                raise ValueError(f"Loss term {name}: two terms have this name. Remove one")
            terms[name] = term
        constraints = [name for name, term in terms.items() if term.constrains_lipschitz]
        if len(constraints) > 1:
            names = " and ".join(constraints)
            raise ValueError(f"Loss terms {names}: both constrain D's gradient. Remove one")
        super().__init__(terms)

    @property
    def named(self) -> list[tuple[str, LossTerm]]:
        return cast(list[tuple[str, LossTerm]], [*self.items()])

    @property
    def all(self) -> list[LossTerm]:
        return [term for _, term in self.named]

    @property
    def objective(self) -> Objective:
        return cast(Objective, self.named[0][1])

    @property
    def objective_name(self) -> str:
        """The name of the objective in logged scalars."""
        return self.named[0][0]

    @property
    def equilibrium(self) -> tuple[float | None, float | None]:
        """The losses of D and G at equilibrium; (None, None) if other terms are added."""
        return self.objective.equilibrium if len(self) == 1 else (None, None)

    @property
    def needs_real_grad(self) -> bool:
        return any(term.needs_real_grad for term in self.all)

    @property
    def needs_fake_grad(self) -> bool:
        return any(term.needs_fake_grad for term in self.all)

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        for term in self.all:
            term.setup(generator, discriminator)

    def loss(self, network: NetworkName, out: DiscriminatorOutputs) -> Tensor:
        """The sum of all terms for this network, a scalar. If there are several, each is logged.

        Raises:
            UserError: no term trains this network.
        """
        losses = {}
        for name, term in self.named:
            loss = term.d_loss(out) if network == "d" else term.g_loss(out)
            if loss is not None:
                losses[name] = loss
        if not losses:
            raise UserError(
                f"No loss term trains {network.upper()}. Use another objective, or add a term such "
                "as penalty=feature_matching."
            )
        if len(losses) > 1:
            out.tracked.update(losses)
        return reduce(torch.add, losses.values())
