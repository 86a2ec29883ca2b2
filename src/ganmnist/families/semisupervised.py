"""Semi-supervised learning (Salimans et al., 2016, arXiv 1606.03498).

D is a classifier (networks/classifier.py). Its adversarial loss needs no labels. A second loss

    w E[-log p(y | x, real)]

uses the few labeled images. The paper's G matches features (objective=feature_matching). As in the
paper, a moving average of D's weights classifies test images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.gan import GAN
from ganmnist.losses.auxiliary import require_single_images
from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.base import Discriminator
from ganmnist.networks.classifier import ClassifierDiscriminator
from ganmnist.utils.batch import Batch, Split, concat_columns
from ganmnist.utils.ema import EMA
from ganmnist.utils.modules import batch_statistics
from ganmnist.utils.schedules import TrainingProgress, check_number


class SupervisedLoss(LossTerm):
    """Cross-entropy of the labeled images, in nats.

    Args:
        batch_size: labeled images per discriminator step, sampled without replacement. If it is
            larger than their number, all are used before one is used again.
        weight: w.
        ema: decay of the moving average of D's weights.
    """

    supports_unrolling = False

    def __init__(self, batch_size: int, weight: float = 1.0, ema: float = 0.9999) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(
                f"family.auxiliary.supervised.batch_size={batch_size}: choose 1 or more"
            )
        check_number("family.auxiliary.supervised.weight", weight)
        self.batch_size = batch_size
        self.weight = weight
        self.decay = ema
        self.d_iteration = 0
        self.labeled: Batch | None = None  # x (n, C, H, W) and y (n,), set when training starts

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        require_single_images(discriminator)
        # A bound method, not the module: the GAN registers the module.
        self.classify = find_classifier(discriminator).classify
        self.ema = EMA(discriminator, self.decay)

    def after_initialization(self, discriminator: Discriminator) -> None:
        self.ema.reset(discriminator)

    def before_d_step(self, progress: TrainingProgress) -> None:
        self.d_iteration = progress.d_iteration

    def after_d_step(self, discriminator: Discriminator) -> None:
        self.ema.update(discriminator, self.d_iteration)

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        assert self.labeled is not None
        x, y = self.labeled.x, self.labeled.condition
        rounds = -(-self.batch_size // len(y))
        index = torch.cat([torch.randperm(len(y), device=y.device) for _ in range(rounds)])
        index = index[: self.batch_size]
        logits = self.classify(out.discriminator.features(Batch(x[index])))
        return self.weight * F.cross_entropy(logits, y[index])


def find_classifier(discriminator: Discriminator) -> ClassifierDiscriminator:
    """The module of a discriminator that classifies.

    Raises:
        ValueError: there is none.
    """
    for module in discriminator.modules():
        if isinstance(module, ClassifierDiscriminator):
            return module
    raise ValueError(
        "SupervisedLoss: this discriminator does not classify. Use family=semisupervised"
    )


class SemiSupervised(GAN):
    """A GAN whose D learns classes from `labeled` training images, sampled with `label_seed`."""

    def __init__(self, labeled: int, label_seed: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self.labeled = labeled
        self.label_seed = label_seed

    @cached_property
    def supervised(self) -> SupervisedLoss:
        (term,) = (term for term in self.loss_terms.all if isinstance(term, SupervisedLoss))
        return term

    @property
    def expected_classes(self) -> dict[str, int]:
        classifier = find_classifier(self.discriminator)
        return {"family.discriminator.n_classes": classifier.n_classes}

    def on_fit_start(self) -> None:
        super().on_fit_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.supervised.labeled = data.labeled_subset(self.labeled, self.label_seed, self.device)

    def extra_images(self, real_images: Callable[[int], Batch]) -> dict[str, Tensor]:
        """`labeled`: the labeled images, one column per class, at most ten rows and columns."""
        labeled = self.supervised.labeled
        if labeled is None:
            return {}
        n_classes = find_classifier(self.discriminator).n_classes
        return {"labeled": torch.unflatten(labeled.x, 0, (-1, n_classes))[:10, :10]}

    def extra_metrics(self, real_batches: Callable[[Split], Iterable[Batch]]) -> dict[str, float]:
        """`test_error` of D as a classifier, and `test_error_ema` of the average of its weights.

        Batch norm uses the statistics of each batch. Its running statistics mix real and generated
        images.
        """
        average = cast(Discriminator, self.supervised.ema.network)
        networks = {"test_error": self.discriminator, "test_error_ema": average}
        metrics = {}
        for name, network in networks.items():
            classify = find_classifier(network).classify
            with batch_statistics(network):
                rows = (
                    (classify(network.features(batch)).argmax(1), batch.y)
                    for batch in real_batches("test")
                )
                predicted, labels = concat_columns(rows)
            metrics[name] = (predicted != labels).double().mean().item()
        return metrics
