"""Learning classes of a few labels and many images (Salimans et al., 2016, arXiv 1606.03498).

D names K classes (networks/classes.py). Beside the game, which needs no labels, it is charged

    w E[-log p(y | x, real)]

over the few images whose labels are known; all others are seen without theirs. The paper's G
matches the features of D, objective=feature_matching, and its D names test images by an average of
its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.auxiliary import check_singles
from ganmnist.duel import Clock, Duel, Part, Sample, Term, columns
from ganmnist.ema import Average
from ganmnist.gan import GAN
from ganmnist.networks.classes import Classes
from ganmnist.passes import batch_statistics
from ganmnist.schedules import checked_number

if TYPE_CHECKING:
    from ganmnist.networks.base import Discriminator


class FewLabels(Term):
    """The surprise at the known labels, in nats; `batch_size` of them are drawn in each update.

    They are drawn without replacement: where `batch_size` is a multiple of their number, an update
    sees each of them equally often. `average` is the decay of an average of D's weights, which
    classifies images beside the last ones.
    """

    of_any_d = False

    def __init__(self, batch_size: int, weight: float = 1.0, average: float = 0.9999) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"terms.few_labels.batch_size={batch_size}: choose 1 or more")
        checked_number("the weight of FewLabels", weight)
        self.batch_size = batch_size
        self.weight = weight
        self.decay = average
        self.turn = 0
        self.known = Sample()  # x (n, C, H, W) and y (n,), once training begins

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        check_singles(discriminator)
        self.classify = names_in(discriminator).classify  # not the module, which is the GAN's own
        self.average = Average(discriminator, self.decay)

    def after_initialization(self, discriminator: Discriminator) -> None:
        self.average.reset(discriminator)

    def tick(self, clock: Clock) -> None:
        self.turn = clock.turn

    def after_d_update(self, discriminator: Discriminator) -> None:
        self.average.update(discriminator, self.turn)

    def d_loss(self, duel: Duel) -> Tensor:
        x, y, _ = self.known
        assert x is not None
        assert y is not None
        rounds = -(-self.batch_size // len(y))
        drawn = torch.cat([torch.randperm(len(y), device=y.device) for _ in range(rounds)])
        drawn = drawn[: self.batch_size]
        logits = self.classify(duel.discriminator.features(Sample(x[drawn])))
        return self.weight * F.cross_entropy(logits, y[drawn])


def names_in(discriminator: Discriminator) -> Classes:
    """The part of a discriminator that names classes.

    Raises:
        ValueError: it has none.
    """
    for part in discriminator.modules():
        if isinstance(part, Classes):
            return part
    raise ValueError("FewLabels needs a D that names classes: choose family=semisupervised")


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

    @property
    def classes(self) -> dict[str, int]:
        return {"family.discriminator.classes": names_in(self.discriminator).classes}

    def on_fit_start(self) -> None:
        super().on_fit_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.few.known = data.labelled(self.labelled, self.label_seed, self.device)

    def pictures(self, real: Callable[[int], Sample]) -> dict[str, Tensor]:
        """Images whose labels are known, a column a class, ten at most either way."""
        x, _, _ = self.few.known
        classes = names_in(self.discriminator).classes
        return {} if x is None else {"labelled": x.unflatten(0, (-1, classes))[:10, :10]}

    def figures(self, real: Callable[[Part], Iterable[Sample]]) -> dict[str, float]:
        """`test_error`: the share of test images that D names wrong; `_ema`: its average does.

        Batch norm, where D has it, takes the statistics of each batch: the running ones would mix
        those of real and of generated images.
        """
        figures = {}
        average = cast("Discriminator", self.few.average.network)
        networks = {"test_error": self.discriminator, "test_error_ema": average}
        for name, network in networks.items():
            classify = names_in(network).classify
            with batch_statistics(network):
                named, labels = columns(
                    (classify(network.features(batch)).argmax(1), batch.y) for batch in real("test")
                )
            figures[name] = (named != labels).double().mean().item()
        return figures
