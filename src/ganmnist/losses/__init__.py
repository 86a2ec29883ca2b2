"""Loss functions: adversarial objectives, penalties and auxiliary losses."""

from ganmnist.losses.adversarial import Objective
from ganmnist.losses.outputs import DiscriminatorOutputs, LossTerm

__all__ = ["DiscriminatorOutputs", "LossTerm", "Objective"]
