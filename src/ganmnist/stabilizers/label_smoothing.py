"""One-sided label smoothing (Salimans et al., 2016, arXiv 1606.03498)."""

from __future__ import annotations

from ganmnist.losses.adversarial import BCE, Objective, ObjectiveWrapper
from ganmnist.stabilizers.base import Stabilizer


class LabelSmoothing(Stabilizer):
    """One-sided label smoothing (Salimans et al., 2016, arXiv 1606.03498).

    The target of real images in D's cross-entropy is 1 - `smoothing`.
    """

    def __init__(self, smoothing: float = 0.1) -> None:
        self.smoothing = smoothing

    def wrap_objective(self, objective: Objective) -> Objective:
        inner = objective.objective if isinstance(objective, ObjectiveWrapper) else objective
        if not isinstance(inner, BCE):
            raise ValueError(
                f"stabilizer=label_smoothing: {type(inner).__name__} is not a cross-entropy. Use "
                "objective=bce, bce_logits or minimax"
            )
        if inner.target < 1:
            raise ValueError(
                f"stabilizer=label_smoothing: the objective has smoothing={1 - inner.target:g} "
                "already. Use stabilizer=none, or objective.smoothing=0"
            )
        inner.smooth(self.smoothing)
        return objective
