"""Learning classes of a few labels and many images (Salimans et al., 2016, arXiv 1606.03498).

D names K classes (networks/classes.py). Beside the game, which needs no labels, it is charged

    w E[-log p(y | x, real)]

over the few images whose labels are known; all others are seen without theirs. The paper's G
matches the features of D, objective=feature_matching.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.auxiliary import check_singles
from ganmnist.duel import Duel, Part, Sample, Term
from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.networks.classes import Classes
from ganmnist.schedules import checked_number

if TYPE_CHECKING:
    from ganmnist.networks.base import Discriminator


class FewLabels(Term):
    """The surprise at the known labels, in nats; `batch_size` of them are drawn in each update."""

    of_any_d = False

    def __init__(self, batch_size: int, weight: float = 1.0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"terms.few_labels.batch_size={batch_size}: choose 1 or more")
        checked_number("the weight of FewLabels", weight)
        self.batch_size = batch_size
        self.weight = weight
        self.known = Sample()  # x (n, C, H, W) and y (n,), once training begins

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        check_singles(discriminator)
        self.classify = names_in(discriminator).classify  # not the module, which is the GAN's own

    def d_loss(self, duel: Duel) -> Tensor:
        x, y, _ = self.known
        assert x is not None
        assert y is not None
        drawn = torch.randint(len(y), (self.batch_size,), device=y.device)
        logits = self.classify(duel.discriminator.features(Sample(x[drawn])))
        return self.weight * F.cross_entropy(logits, y[drawn])


def names_in(discriminator: Discriminator) -> Classes:
    """The part of a discriminator that names classes."""
    (names,) = (part for part in discriminator.modules() if isinstance(part, Classes))
    return names


class SemiSupervised(GAN):
    """A GAN whose D learns the classes of `labelled` training images, chosen by `label_seed`."""

    def __init__(self, labelled: int, label_seed: int = 0, **parts: Any) -> None:
        super().__init__(**parts)
        self.labelled = labelled
        self.label_seed = label_seed

    @cached_property
    def few(self) -> FewLabels:
        (few,) = (term for term in self.all_terms if isinstance(term, FewLabels))
        return few

    @cached_property
    def names(self) -> Classes:
        return names_in(self.discriminator)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.classes != self.names.last.out_features:
            raise UserError(
                f"family.discriminator.classes={self.names.last.out_features}, but "
                f"{data.dataset.name} has {data.classes} classes: choose "
                f"family.discriminator.classes={data.classes}."
            )
        self.few.known = data.labelled(self.labelled, self.label_seed, self.device)

    def pictures(self, real: Callable[[int], Sample]) -> dict[str, Tensor]:
        """The images whose labels are known, a column a class."""
        x, _, _ = self.few.known
        return {} if x is None else {"labelled": x.unflatten(0, (-1, self.names.last.out_features))}

    def figures(self, real: Callable[[Part], Sample]) -> dict[str, float]:
        """`test_error`: the share of test images that D names wrong."""
        x, y, _ = real("test")
        assert x is not None
        assert y is not None
        features = (self.discriminator.features(Sample(part)) for part in x.split(250))
        named = torch.cat([self.names.classify(part).argmax(1) for part in features])
        return {"test_error": (named != y).float().mean().item()}
