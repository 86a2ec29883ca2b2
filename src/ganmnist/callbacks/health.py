"""Says once, and clearly, when a run goes wrong."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ganmnist.errors import UserError
from ganmnist.gan import GAN

log = logging.getLogger(__name__)

REMEMBERED = ("latest", "highest", "lows")


class Health(Callback):
    """Stops a run whose losses are no numbers any more; warns of collapse and of a D that has won.

    Args:
        saturated: mean D(x) minus mean D(G(z)) over an epoch from which on D has won: its answers
            no longer change with the images, so G learns nothing from them.
        collapsed: entropy of the generated images' classes, in nats, under which G draws a few
            digits only; ten equally frequent ones have ln 10 = 2.30, three 1.10. A coverage that
            falls under half of its highest is taken for collapse too.
    """

    def __init__(self, saturated: float = 0.98, collapsed: float = 1.1) -> None:
        self.saturated = saturated
        self.collapsed = collapsed
        self.said: set[str] = set()
        self.latest: dict[str, float] = {}
        self.highest: dict[str, float] = {}
        self.lows: dict[str, int] = {}  # how often running; a figure that was fine counts as one

    def state_dict(self) -> dict[str, Any]:
        return {"said": [*self.said], **{name: {**getattr(self, name)} for name in REMEMBERED}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.said = set(state_dict["said"])
        for name in REMEMBERED:
            getattr(self, name).update(state_dict[name])

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
                        "lr, or objective=bce_logits. If there is a checkpoint, it is finite."
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
        for name, value in seen.items():
            if name.endswith("val_class_entropy"):
                text = f"{value:.2f} of 2.30 nats, about {math.exp(value):.1f} digits"
                text = f"{at}: the generated digits' classes have an entropy of {text}"
                self.watch(name, value, value < self.collapsed, text)
            elif name.endswith("val_coverage"):
                highest = self.highest[name] = max(value, self.highest.get(name, 0.0))
                text = f"{at}: the generated images are near {value:.0%} of the real ones, after"
                self.watch(name, value, value < highest / 2, f"{text} {highest:.0%}")

    def watch(self, name: str, value: float, low: bool, text: str) -> None:
        """Warns of a figure that falls, or is low twice running as it never was otherwise.

        Every GAN is low before it has learned anything. Once it recovers, the next fall counts.
        """
        if self.latest.get(name) == value:
            return  # it was not measured since
        self.latest[name] = value
        if not low:
            self.lows[name] = 1
            self.said.discard(name)
            return
        self.lows[name] = self.lows.get(name, 0) + 1
        if self.lows[name] > 1:
            self.warn(name, f"{text}: mode collapse.")

    def warn(self, what: str, text: str) -> None:
        if what not in self.said:
            self.said.add(what)
            log.warning("%s", text)
