"""Callbacks: scalars, samples, metrics, checkpoints, health checks, signals and CUDA graphs.

They do not change what a training computes.
"""

from ganmnist.callbacks.checkpoint import LastCheckpoint
from ganmnist.callbacks.evaluation import Evaluation
from ganmnist.callbacks.graphs import Graphs
from ganmnist.callbacks.health import Health
from ganmnist.callbacks.interrupt import Interrupt
from ganmnist.callbacks.plane import PlaneSamples
from ganmnist.callbacks.progress import ProgressBar
from ganmnist.callbacks.samples import Samples
from ganmnist.callbacks.scalars import Scalars

__all__ = [
    "Evaluation",
    "Graphs",
    "Health",
    "Interrupt",
    "LastCheckpoint",
    "PlaneSamples",
    "ProgressBar",
    "Samples",
    "Scalars",
]
