"""Says once, and clearly, when a run goes wrong."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ganmnist.duel import Player
from ganmnist.errors import UserError
from ganmnist.gan import GAN, name_of
from ganmnist.objectives import BCE, Minimax

log = logging.getLogger(__name__)

REMEMBERED = ("latest", "highest", "lows", "zero_since", "constant")
PLAYERS: tuple[Player, ...] = ("d", "g")
MIN_ROWS = 10  # losses that are compared before they count as constant
TOLERANCE = 1e-6  # largest relative change of a constant loss
RECOVERED = 1e-3  # least relative change of the losses of a network that learns again


class Health(Callback):
    """Stops a run whose losses are not finite; warns of collapse and of a network that is stuck.

    A network is stuck when all its gradients are 0 or when its loss is constant. The loss is the
    objective's part of it where other terms exist. Losses are compared at every batch. Gradients
    are read only when scalars are fetched, because a read makes a GPU wait. CUDA graphs of several
    kinds share `p.grad`: it then belongs to the kind that was recorded last.

    Args:
        saturated: mean D(x) minus mean D(G(z)) over an epoch from which on D has won: its answers
            no longer change with the images, so G learns nothing from them.
        collapsed: entropy of the generated images' classes, in nats, under which G draws a few
            digits only; ten equally frequent ones have ln 10 = 2.30, three 1.10. A coverage that
            falls under half of its highest is taken for collapse too.
        patience: batches for which the gradients of a network are 0, or its loss is constant,
            before a warning.
    """

    def __init__(self, saturated: float = 0.98, collapsed: float = 1.1, patience: int = 50) -> None:
        self.saturated = saturated
        self.patience = patience
        self.collapsed = collapsed
        self.said: set[str] = set()
        self.latest: dict[str, float] = {}
        self.highest: dict[str, float] = {}
        self.lows: dict[str, int] = {}  # how often running; a figure that was fine counts as one
        # By player: the first batch of the latest series of zero gradients, and of the latest
        # series of constant losses with the number of losses, the lowest and the highest.
        self.zero_since: dict[str, int] = {}
        self.constant: dict[str, tuple[int, int, float, float]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"said": [*self.said], **{name: {**getattr(self, name)} for name in REMEMBERED}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.said = set(state_dict["said"])
        for name in REMEMBERED:
            getattr(self, name).update(state_dict[name])

    def look_at(self, rows: Mapping[int, Mapping[str, float]], gan: GAN) -> None:
        """Checks scalars by batches seen, and the gradients of the latest of these batches.

        Raises:
            UserError: a scalar is infinite or not a number.
        """
        for step, row in rows.items():
            for name, value in row.items():
                if not math.isfinite(value):
                    raise UserError(
                        f"{name} is {value} at batch {step:,}: the run has diverged. Try a lower "
                        "lr, or objective=bce_logits. If there is a checkpoint, it is finite."
                    )
        for player in PLAYERS:
            losses = {
                step: row.get(f"train/{player}/{name_of(gan.objective)}", row[total])
                for step, row in rows.items()
                if (total := f"train/{player}/loss") in row  # this row has an update of the player
            }
            if losses:
                for step, loss in losses.items():
                    self.compare_loss(player, step, loss, scale_of(rows[step], player, gan))
                self.check_gradients(player, gan, max(losses))
                self.check_learning(player, gan, losses)

    def compare_loss(self, player: Player, step: int, loss: float, scale: float) -> None:
        """Extends the series of constant losses, or starts a new one."""
        first, count, low, high = self.constant.get(player, (step, 0, loss, loss))
        low, high = min(low, loss), max(high, loss)
        if high - low <= TOLERANCE * max(scale, abs(low + high) / 2):
            self.constant[player] = first, count + 1, low, high
        else:
            self.constant[player] = step, 1, loss, loss

    def check_gradients(self, player: Player, gan: GAN, step: int) -> None:
        """Records whether all gradients of a player's latest update are 0."""
        if any(p.grad is not None and p.grad.any() for p in gan.parameters_of[player]):
            self.zero_since.pop(player, None)
        else:
            self.zero_since.setdefault(player, step)

    def check_learning(self, player: Player, gan: GAN, losses: Mapping[int, float]) -> None:
        """Warns of a network that is stuck. After a recovery it may warn again."""
        name, key, step = player.upper(), f"{player}_stuck", max(losses)
        first, count, low, high = self.constant[player]
        since = self.zero_since.get(player)
        if count >= MIN_ROWS and step - first >= self.patience - 1:
            fact = f"the loss of {name} stays at {round((low + high) / 2, 3) + 0.0:.3f}"
            fact += " and its gradient is 0" if since is not None else ""
        elif since is not None and step - since >= 2 * self.patience:
            # Two zeros in a row are normal: a strong D has them with the hinge loss.
            first, fact = since, f"the gradient of {name} is 0 at every check"
        else:
            low, high = min(losses.values()), max(losses.values())
            if since is None and high - low > RECOVERED * max(1.0, abs(low)):
                self.said.discard(key)
            return
        self.warn(
            key,
            f"Batches {first:,} to {step:,}: {fact}, so {name} does not learn. {fix_for(gan)}",
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


def scale_of(row: Mapping[str, float], player: Player, gan: GAN) -> float:
    """The size of D's logits up to 1: at first a clipped Wasserstein critic has tiny ones."""
    if gan.objective.probability:
        return 1.0  # the row has probabilities in place of logits
    logits = (row.get(f"train/{player}/{side}_logit", 0.0) for side in ("real", "fake"))
    return min(max(map(abs, logits)), 1.0)


def fix_for(gan: GAN) -> str:
    """A sentence with the settings that help a network that is stuck."""
    settings = ["a lower lr", "penalty=r1"]
    objective = gan.objective
    if isinstance(objective, BCE) and (isinstance(objective, Minimax) or not objective.stable):
        settings.insert(0, "objective=bce_logits")
    return f"Use one of: {', '.join(settings)}."
