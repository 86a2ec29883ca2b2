"""What watches a run and writes it down; Graphs alone changes how it is played, not what."""

from ganmnist.callbacks.checkpoint import LastCheckpoint
from ganmnist.callbacks.evaluation import Evaluation
from ganmnist.callbacks.graphs import Graphs
from ganmnist.callbacks.health import Health
from ganmnist.callbacks.interrupt import Interrupt
from ganmnist.callbacks.plane import Plane
from ganmnist.callbacks.progress import ProgressBar
from ganmnist.callbacks.samples import Samples
from ganmnist.callbacks.scalars import Scalars

__all__ = [
    "Evaluation",
    "Graphs",
    "Health",
    "Interrupt",
    "LastCheckpoint",
    "Plane",
    "ProgressBar",
    "Samples",
    "Scalars",
]
