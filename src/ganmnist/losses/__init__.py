"""Loss functions: adversarial objectives, penalties and auxiliary losses."""

from ganmnist.losses.adversarial import Objective
from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs

__all__ = ["DiscriminatorOutputs", "LossTerm", "Objective"]
