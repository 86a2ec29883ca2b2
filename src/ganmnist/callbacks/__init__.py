"""What watches a run and writes it down. Callbacks read the model and never change it."""

from ganmnist.callbacks.checkpoint import LastCheckpoint
from ganmnist.callbacks.evaluation import Evaluation
from ganmnist.callbacks.health import Health
from ganmnist.callbacks.interrupt import Interrupt
from ganmnist.callbacks.plane import Plane
from ganmnist.callbacks.progress import ProgressBar
from ganmnist.callbacks.samples import Samples
from ganmnist.callbacks.scalars import Scalars

__all__ = [
    "Evaluation",
    "Health",
    "Interrupt",
    "LastCheckpoint",
    "Plane",
    "ProgressBar",
    "Samples",
    "Scalars",
]
