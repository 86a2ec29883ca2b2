"""Meaning, direction and reference of each metric, for people who read its value."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeGuard


class MetricInfo(NamedTuple):
    """What a metric measures, and which values are good."""

    meaning: str
    better: Literal["lower", "higher", ""] = ""
    best: str = ""  # the value of a perfect generator, where it is a constant
    real: str = ""  # the metric that is its reference, mostly the value of real images

    @property
    def direction(self) -> str:
        """Such as "lower is better"; empty if neither is."""
        return f"{self.better} is better" if self.better else ""


METRICS = {
    "fid": MetricInfo("Fréchet distance to the test images", "lower", real="fid_floor"),
    "val_fid": MetricInfo("Fréchet distance to training images", "lower", real="val_fid_floor"),
    "val_coverage": MetricInfo(
        "share of training images with a generated image nearby", "higher", best="1"
    ),
    "val_class_entropy": MetricInfo(
        "entropy of the predicted classes, in nats", "higher", best=f"{math.log(10):.2f}"
    ),
    "kid": MetricInfo("kernel distance to the test images", "lower", best="0"),
    "is": MetricInfo("Inception score with the MNIST classifier", "higher", best="10"),
    "inception_fid": MetricInfo("Fréchet distance with Inception-v3", "lower"),
    "precision": MetricInfo("share of generated images near a real one", "higher", best="1"),
    "recall": MetricInfo("share of real images near a generated one", "higher", best="1"),
    "density": MetricInfo("number of real neighborhoods around a generated image", "higher", "1"),
    "coverage": MetricInfo("share of real images with a generated neighbor", "higher", best="1"),
    "class_kl": MetricInfo("KL divergence of the predicted classes", "lower", best="0"),
    "gan_test": MetricInfo("accuracy of the classifier on generated images", "higher", best="1"),
    "gan_train": MetricInfo(
        "test accuracy of a classifier trained on generated images", "higher", real="real_train"
    ),
    "real_train": MetricInfo("test accuracy of a classifier trained on real images"),
    "code_error": MetricInfo(
        "error of the categorical code as a classifier of test images", "lower", best="0"
    ),
    "nn_accuracy_hidden": MetricInfo(
        "1-NN accuracy on the encoder's last hidden layer", "higher", real="nn_accuracy_untrained"
    ),
    "nn_accuracy": MetricInfo("1-NN accuracy on the encoder's latents", "higher", best="1"),
    "nn_accuracy_untrained": MetricInfo("1-NN accuracy on the hidden layer before training"),
    "reconstruction_error": MetricInfo(
        "squared distance of a test image to its reconstruction", "lower", best="0"
    ),
    "test_error": MetricInfo("classification error of D on test images", "lower", best="0"),
    "test_error_ema": MetricInfo("the same with EMA weights of D", "lower", best="0"),
    "l1": MetricInfo("mean absolute error per pixel, from 0 to 1", "lower", real="l1_input"),
    "l1_input": MetricInfo("the same for the input of the generator"),
    "parzen": MetricInfo("Parzen log-likelihood of the test images, in nats", "higher"),
    "parzen_error": MetricInfo("standard error of parzen"),
    "parzen_sigma": MetricInfo("width of the Parzen windows"),
    "parzen_fine": MetricInfo("parzen with the best width of a finer grid", "higher"),
    "parzen_fine_error": MetricInfo("standard error of parzen_fine"),
    "parzen_fine_sigma": MetricInfo("width of the Parzen windows on the finer grid"),
    "memorization": MetricInfo(
        "distance to training images, relative to that of test images (0: copies)", best="1"
    ),
    "modes": MetricInfo("modes that the samples contain", "higher", real="real_modes"),
    "mode_kl": MetricInfo("KL divergence of the modes, in nats", "lower", real="real_mode_kl"),
    "high_quality": MetricInfo("share of points near a mode", "higher", real="real_high_quality"),
    "jsd": MetricInfo(
        "Jensen-Shannon divergence from equally frequent modes", "lower", real="real_jsd"
    ),
}
REFERENCES = dict.fromkeys((info.real for info in METRICS.values() if info.real), "real images")
REFERENCES |= {"l1_input": "input", "nn_accuracy_untrained": "untrained encoder"}


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    # Not math.isfinite, which raises an error for huge whole numbers.
    return isinstance(value, int | float) and -sys.float_info.max < value < sys.float_info.max


def is_metric(key: str, name: str) -> bool:
    """Whether a key names a metric. Keys of other data than MNIST begin with its name."""
    return re.fullmatch(rf"(metrics/)?((?!val_)[^/_]+_)?{name}", key) is not None


def find(metrics: Mapping[str, Any], name: str) -> Any:
    """The value of a metric by its name; None if there is none."""
    return next((value for key, value in metrics.items() if is_metric(key, name)), None)


def find_info(key: str) -> MetricInfo:
    """The information on a key, also with the suffix of EMA weights."""
    names = [*METRICS, *(f"{name}_ema" for name in METRICS)]
    name = next((name for name in names if is_metric(key, name)), "")
    return METRICS.get(name) or METRICS.get(name.removesuffix("_ema"), MetricInfo(""))


def reference(info: MetricInfo, metrics: Mapping[str, Any]) -> str:
    """The optimal value, or the value of real images among `metrics`; empty if unknown."""
    value = find(metrics, info.real) if info.real else None
    if is_number(value):
        return f"{REFERENCES[info.real]}: {value:.3g}"
    return f"best: {info.best}" if info.best else ""


def describe(key: str, values: Mapping[str, float], metrics: Mapping[str, Any]) -> str:
    """A metric with direction and reference: "fid 3.6 (lower is better; real images: 0.13)".

    Args:
        values: by weights; those of "ema" are named.
        metrics: where the value of real images is looked up.
    """
    info = find_info(key)
    numbers = [f"{'EMA ' * (name == 'ema')}{value + 0.0:.3g}" for name, value in values.items()]
    remarks = "; ".join(filter(None, (info.direction, reference(info, metrics))))
    return f"{key} {', '.join(numbers)}" + (f" ({remarks})" if remarks else "")
