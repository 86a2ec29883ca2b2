"""Says once, and clearly, when a run goes wrong."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import lightning as L
from lightning.pytorch.callbacks import Callback

from ganmnist.errors import UserError
from ganmnist.gan import GAN

log = logging.getLogger(__name__)


class Health(Callback):
    """Stops a run whose losses are no numbers any more; warns of collapse and of a D that has won.

    Args:
        saturated: mean D(x) minus mean D(G(z)) over an epoch from which on D has won: its answers
            no longer change with the images, so G learns nothing from them.
        collapsed: entropy of the generated images' classes, in nats, under which G draws a few
            digits only; ten equally frequent ones have ln 10 = 2.30, three 1.10.
    """

    def __init__(self, saturated: float = 0.98, collapsed: float = 1.1) -> None:
        self.saturated = saturated
        self.collapsed = collapsed
        self.said: set[str] = set()

    def look_at(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Looks at scalars by batches seen.

        Raises:
            UserError: one is infinite or not a number.
        """
        for step, row in rows.items():
            for name, value in row.items():
                if not math.isfinite(value):
                    raise UserError(
                        f"{name} is {value} at batch {step:,}: the run has diverged. Try a lower "
                        "lr, or objective=bce_logits; checkpoints/ has the last finite weights."
                    )

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        seen = {name.split("/", 1)[1]: float(v) for name, v in trainer.callback_metrics.items()}
        at = f"epoch {trainer.current_epoch + 1}"
        advantage = seen.get("d/advantage", 0.0)
        if advantage > self.saturated:
            self.warn(
                "saturated",
                f"{at}: D tells real from generated with D(x) - D(G(z)) = {advantage:.3f}, so G "
                "has hardly a gradient: weaken D (dropout, a lower optimizer.d.lr) or regularise.",
            )
        for name, entropy in seen.items():
            if name.endswith("val_class_entropy") and entropy < self.collapsed:
                self.warn(
                    "collapsed",
                    f"{at}: the generated digits' classes have an entropy of {entropy:.2f} of 2.30 "
                    f"nats, about {math.exp(entropy):.1f} digits: mode collapse.",
                )

    def warn(self, what: str, text: str) -> None:
        if what not in self.said:
            self.said.add(what)
            log.warning("%s", text)
