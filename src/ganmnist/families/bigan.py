"""BiGAN (Donahue et al., 2016, arXiv 1605.09782), concurrent with ALI (arXiv 1606.00704).

An encoder E maps images to latents. D classifies pairs (x, E(x)) and (G(z), z):

    L_D = l_D(D(x, E(x)), D(G(z), z)),    L_G,E = l_G(D(G(z), z)) + l_G(2c - D(x, E(x)))

At the optimum, E and G invert each other. E's loss is G's loss with real and fake swapped. A swap
is a reflection of the logits about the objective's decision logit c. Not every objective has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from ganmnist.families.encoder_gan import EncoderGAN
from ganmnist.losses.adversarial import Objective, ObjectiveWrapper
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.base import Discriminator, DiscriminatorWrapper
from ganmnist.networks.encoders import Encoder
from ganmnist.utils.batch import SPLITS, Batch, Split, at_least_float32, concat_columns
from ganmnist.utils.modules import batch_statistics
from ganmnist.utils.neighbors import nearest


class ReflectedDiscriminator(DiscriminatorWrapper):
    """Reflects the logits about `decision_logit`."""

    def __init__(self, discriminator: Discriminator, decision_logit: float) -> None:
        super().__init__(discriminator)
        self.decision_logit = decision_logit

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return 2 * self.decision_logit - super().logits(features, batch)


class BiGANObjective(ObjectiveWrapper):
    """Adds E's loss to G's loss.

    Raises:
        ValueError: real and fake cannot be swapped in the objective.
    """

    @property
    def equilibrium(self) -> tuple[float | None, float | None]:  # type: ignore[override]
        d_loss, g_loss = self.objective.equilibrium
        return d_loss, None if g_loss is None else 2 * g_loss

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        super().setup(generator, discriminator)
        decision_logit_of(self.objective)

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        reflected = ReflectedDiscriminator(out.discriminator, decision_logit_of(self.objective))
        swapped = DiscriminatorOutputs(reflected, out.fake, out.real)
        g_loss, e_loss = self.objective.g_loss(out), self.objective.g_loss(swapped)
        assert g_loss is not None
        assert e_loss is not None
        return out.track("generator", g_loss) + out.track("encoder", e_loss)


def decision_logit_of(objective: Objective) -> float:
    """The logit about which a reflection swaps real and fake.

    Raises:
        ValueError: there is none.
    """
    if objective.decision_logit is None:
        raise ValueError(
            f"family=bigan: real and fake cannot be swapped in {type(objective).__name__} with "
            "these settings. Use an objective that allows it, such as objective=bce_logits without "
            "label smoothing"
        )
    return objective.decision_logit


class BiGAN(EncoderGAN):
    """A GAN whose D sees pairs. `untrained` is a copy of the untrained encoder, for comparison."""

    def __init__(self, encoder: Callable[..., Encoder], **settings: Any) -> None:
        super().__init__(encoder, **settings)
        self.untrained = deepcopy(self.encoder).requires_grad_(False)

    def initialize(self, real_images: Callable[[int], Batch], batch_size: int) -> None:
        super().initialize(real_images, batch_size)
        self.untrained.load_state_dict(self.encoder.state_dict())

    def real_inputs(self, batch: Batch, z: Tensor) -> Batch:
        return Batch(batch.x, batch.y, at_least_float32(self.encoder(batch)))

    def extra_images(self, real_images: Callable[[int], Batch]) -> dict[str, Tensor]:
        return {"reconstructions": self.reconstruction_grid(real_images(50))}

    def extra_metrics(self, real_batches: Callable[[Split], Iterable[Batch]]) -> dict[str, float]:
        """1-NN accuracies on test images, and `reconstruction_error`.

        The neighbors are compared by E's last hidden layer, as in the paper (`nn_accuracy_hidden`),
        by E(x) (`nn_accuracy`), and by the hidden layer of the untrained E
        (`nn_accuracy_untrained`).
        """
        views: dict[str, Callable[[Batch], Tensor]] = {
            "nn_accuracy_hidden": self.encoder.features,
            "nn_accuracy": self.encoder,
            "nn_accuracy_untrained": self.untrained.features,
        }
        # The untrained encoder's batch norm has no running statistics.
        with batch_statistics(self.untrained):
            metrics = {name: nn_accuracy(view, real_batches) for name, view in views.items()}
        return metrics | {"reconstruction_error": self.reconstruction_error(real_batches("test"))}


def nn_accuracy(
    view: Callable[[Batch], Tensor],
    real_batches: Callable[[Split], Iterable[Batch]],
    n: int = 50_000,
) -> float:
    """1-NN accuracy on test images, with n training images.

    view: batches to rows (B, F), which are compared by Euclidean distance.
    """
    (train, train_labels), (test, test_labels) = (
        concat_columns((view(batch), batch.y) for batch in real_batches(split)) for split in SPLITS
    )
    _, index = nearest(test.cpu().double(), train[:n].cpu().double())
    return (train_labels[:n].cpu()[index] == test_labels.cpu()).double().mean().item()
