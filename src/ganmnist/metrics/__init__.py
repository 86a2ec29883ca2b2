"""Figures for generated images, without downloads: one protocol a file."""

from ganmnist.metrics.base import Metric, Real, Seen
from ganmnist.metrics.class_kl import ClassKL
from ganmnist.metrics.evaluator import Evaluator
from ganmnist.metrics.extractor import Extractor
from ganmnist.metrics.fid import FID
from ganmnist.metrics.inception_score import InceptionScore
from ganmnist.metrics.kid import KID
from ganmnist.metrics.labels import GANTest, GANTrain
from ganmnist.metrics.memorization import Memorization
from ganmnist.metrics.modes import Modes
from ganmnist.metrics.parzen import Parzen
from ganmnist.metrics.plane import PlaneEvaluator, Recovered
from ganmnist.metrics.prdc import PRDC

__all__ = [
    "FID",
    "KID",
    "PRDC",
    "ClassKL",
    "Evaluator",
    "Extractor",
    "GANTest",
    "GANTrain",
    "InceptionScore",
    "Memorization",
    "Metric",
    "Modes",
    "Parzen",
    "PlaneEvaluator",
    "Real",
    "Recovered",
    "Seen",
]
