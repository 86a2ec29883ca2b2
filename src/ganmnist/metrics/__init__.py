"""Metrics of generated images, without downloads. One file has one metric."""

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet
from ganmnist.metrics.class_kl import ClassKL
from ganmnist.metrics.evaluator import Evaluator
from ganmnist.metrics.extractor import ClassifierFeatures
from ganmnist.metrics.fid import FID
from ganmnist.metrics.inception_score import InceptionScore
from ganmnist.metrics.kid import KID
from ganmnist.metrics.labels import GANTest, GANTrain
from ganmnist.metrics.memorization import Memorization
from ganmnist.metrics.modes import Modes
from ganmnist.metrics.parzen import Parzen
from ganmnist.metrics.plane import ModesCaptured, PlaneEvaluator
from ganmnist.metrics.prdc import PRDC

__all__ = [
    "FID",
    "KID",
    "PRDC",
    "ClassKL",
    "ClassifierFeatures",
    "Evaluator",
    "FeatureBatch",
    "GANTest",
    "GANTrain",
    "InceptionScore",
    "Memorization",
    "Metric",
    "Modes",
    "ModesCaptured",
    "Parzen",
    "PlaneEvaluator",
    "ReferenceSet",
]
