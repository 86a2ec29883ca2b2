"""Warnings of collapse and of networks that do not learn; an error for losses that diverge."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ganmnist.gan import GAN
from ganmnist.losses.adversarial import BCE, Minimax
from ganmnist.losses.base import NetworkName
from ganmnist.utils.errors import UserError

log = logging.getLogger(__name__)

STATE = ("latest", "highest", "lows", "zero_since", "constant")  # in checkpoints
NETWORKS: tuple[NetworkName, ...] = ("d", "g")
MIN_ROWS = 10  # losses that are compared before they count as constant
TOLERANCE = 1e-6  # largest relative change of a constant loss
RECOVERED = 1e-3  # least relative change of the losses of a network that learns again


class Health(Callback):
    """Stops a run whose losses are not finite. Warns of collapse and of a network that is stuck.

    A network is stuck if all its gradients are 0 or its loss is constant. The loss is that of the
    objective, without other terms. Losses are compared at every batch. Gradients are read only when
    scalars are fetched, because a read makes a GPU wait. CUDA graphs of several kinds share
    `p.grad`: it then belongs to the kind that was captured last.

    Args:
        saturated: a warning if mean D(x) - D(G(z)) over an epoch is higher. D's outputs then hardly
            change with the images, and G has hardly a gradient.
        collapsed: a warning if the entropy of the generated images' classes, in nats, is lower.
            Ten equally frequent classes have ln 10 = 2.30, three have 1.10. A coverage below half
            of its highest value counts as collapse as well.
        patience: batches with zero gradients or a constant loss before a warning.
    """

    def __init__(self, saturated: float = 0.98, collapsed: float = 1.1, patience: int = 50) -> None:
        self.saturated = saturated
        self.patience = patience
        self.collapsed = collapsed
        self.warned: set[str] = set()
        self.latest: dict[str, float] = {}
        self.highest: dict[str, float] = {}
        self.lows: dict[str, int] = {}  # successive low values of a metric, from 1 if it was high
        # By network: the first batch of the latest series of zero gradients; and of the latest
        # series of constant losses the first batch, the number, the lowest and the highest.
        self.zero_since: dict[str, int] = {}
        self.constant: dict[str, tuple[int, int, float, float]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"warned": [*self.warned], **{name: {**getattr(self, name)} for name in STATE}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of a checkpoint.

        Raises:
            ValueError: it is not a state.
        """
        self.warned = {str(key) for key in state_dict["warned"]}
        for name in STATE:
            state = dict(state_dict[name])
            rows = [value if name == "constant" else [value] for value in state.values()]
            lengths = {len(row) for row in rows} | {4 if name == "constant" else 1}
            if len(lengths) > 1 or not all(type(x) in (int, float) for x in chain(*rows)):
                raise ValueError(f"the state {name} of the health check has other types")
            getattr(self, name).update(state)

    def on_scalars(self, rows: Mapping[int, Mapping[str, float]], gan: GAN) -> None:
        """Checks scalars by batches seen, and the gradients of the latest of these batches.

        Raises:
            UserError: a scalar is infinite or not a number.
        """
        for step, row in rows.items():
            for name, value in row.items():
                if not math.isfinite(value):
                    raise UserError(
                        f"{name} is {value} at batch {step:,}: the run has diverged. Use a lower "
                        "lr, or objective=bce_logits."
                    )
        for network in NETWORKS:
            losses = {
                step: row.get(f"train/{network}/{gan.loss_terms.objective_name}", row[total])
                for step, row in rows.items()
                if (total := f"train/{network}/loss") in row  # G has no step in some batches
            }
            if losses:
                for step, loss in losses.items():
                    self.compare_loss(network, step, loss, scale_of(rows[step], network, gan))
                self.check_gradients(network, gan, max(losses))
                self.check_learning(network, gan, losses)

    def compare_loss(self, network: NetworkName, step: int, loss: float, scale: float) -> None:
        """Extends the series of constant losses, or starts a new one."""
        first, count, low, high = self.constant.get(network, (step, 0, loss, loss))
        low, high = min(low, loss), max(high, loss)
        if high - low <= TOLERANCE * max(scale, abs(low + high) / 2):
            self.constant[network] = first, count + 1, low, high
        else:
            self.constant[network] = step, 1, loss, loss

    def check_gradients(self, network: NetworkName, gan: GAN, step: int) -> None:
        """Records whether all gradients of a network's latest step are 0."""
        if any(p.grad is not None and p.grad.any() for p in gan.parameters_of[network]):
            self.zero_since.pop(network, None)
        else:
            self.zero_since.setdefault(network, step)

    def check_learning(self, network: NetworkName, gan: GAN, losses: Mapping[int, float]) -> None:
        """Warns of a network that is stuck. After a recovery it may warn again."""
        name, key, step = network.upper(), f"{network}_stuck", max(losses)
        first, count, low, high = self.constant[network]
        since = self.zero_since.get(network)
        if count >= MIN_ROWS and step - first >= self.patience - 1:
            fact = f"the loss of {name} stays at {round((low + high) / 2, 3) + 0.0:.3f}"
            fact += " and its gradient is 0" if since is not None else ""
        elif since is not None and step - since >= 2 * self.patience:
            # Two zeros in a row are normal: a strong D has them with the hinge loss.
            first, fact = since, f"the gradient of {name} is 0 at every check"
        else:
            low, high = min(losses.values()), max(losses.values())
            if since is None and high - low > RECOVERED * max(1.0, abs(low)):
                self.warned.discard(key)
            return
        self.warn(
            key,
            f"Batches {first:,} to {step:,}: {fact}, so {name} does not learn. {fix_for(gan)}",
        )

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        scalars = {name.split("/", 1)[1]: float(v) for name, v in trainer.callback_metrics.items()}
        epoch = f"epoch {trainer.current_epoch + 1}"
        advantage = scalars.get("d/advantage", 0.0)
        if advantage > self.saturated:
            self.warn(
                "saturated",
                f"{epoch}: D separates real from generated images with D(x) - D(G(z)) = "
                f"{advantage:.3f} (1 at most), so G has hardly a gradient. Weaken D: dropout, a "
                "lower optimizer.d.lr, or penalty=r1.",
            )
        for name, value in scalars.items():
            if name.endswith("val_class_entropy"):
                classes = f"about {math.exp(value):.1f} classes"
                text = f"{epoch}: {name} is {value:.2f} (best: 2.30), {classes}"
                self.check_collapse(name, value, value < self.collapsed, text)
            elif name.endswith("val_coverage"):
                highest = self.highest[name] = max(value, self.highest.get(name, 0.0))
                text = f"{epoch}: {name} is {value:.2f}, after {highest:.2f} (higher is better)"
                self.check_collapse(name, value, value < highest / 2, text)

    def check_collapse(self, name: str, value: float, low: bool, text: str) -> None:
        """Warns of a metric that becomes low, or is low at its first two measurements.

        Every GAN is low at its first measurement. After a recovery it may warn again.
        """
        if self.latest.get(name) == value:
            return  # not measured since
        self.latest[name] = value
        if not low:
            self.lows[name] = 1
            self.warned.discard(name)
            return
        self.lows[name] = self.lows.get(name, 0) + 1
        if self.lows[name] > 1:
            fix = "Use stabilizer=minibatch_std, or a lower optimizer.g.lr."
            self.warn(name, f"{text}: mode collapse. {fix}")

    def warn(self, key: str, text: str) -> None:
        """Logs a warning once."""
        if key not in self.warned:
            self.warned.add(key)
            log.warning("%s", text)


def scale_of(row: Mapping[str, float], network: NetworkName, gan: GAN) -> float:
    """The magnitude of D's logits, at most 1. Those of a clipped critic are tiny at first."""
    if gan.objective.probability:
        return 1.0  # the row has probabilities instead of logits
    logits = (row.get(f"train/{network}/{side}_logit", 0.0) for side in ("real", "fake"))
    return min(max(map(abs, logits)), 1.0)


def fix_for(gan: GAN) -> str:
    """A sentence with settings that help a stuck network."""
    settings = ["a lower lr", "penalty=r1"]
    objective = gan.objective
    if isinstance(objective, BCE) and (isinstance(objective, Minimax) or not objective.stable):
        settings.insert(0, "objective=bce_logits")
    return f"Use one of: {', '.join(settings)}."
