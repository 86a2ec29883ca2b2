"""Features of images: the trained classifier, with its weights verified and frozen."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from ganmnist.data import DataSet
from ganmnist.metrics.base import FeatureBatch
from ganmnist.metrics.classifier import Classifier
from ganmnist.utils.batch import concat_columns
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import read_json
from ganmnist.utils.pixels import to_signed_range

BUNDLED = Path(__file__).with_name("mnist.safetensors")
SIZE = 28  # pixels of the classifier's input
BATCH = 250


class ClassifierFeatures:
    """Maps images to features and logits, in float32, in evaluation mode, without gradients.

    It is not an nn.Module. A module that holds it does not train it, change its mode or write it
    into a checkpoint.

    Args:
        path: weights (safetensors) with a record beside them (`save` writes both).
        dataset: the data set of the images.
        device: the device of the computation.

    Raises:
        UserError: the weights are missing, differ from their record, or are for other data.
    """

    def __init__(self, path: Path, dataset: DataSet, device: torch.device | str = "cpu") -> None:
        self.record = read_record(path)
        self.sha256: str = self.record["sha256"]
        if dataset.name not in self.record["data"]:
            raise UserError(
                f"metrics.classifier={path}: this classifier is for "
                f"{' and '.join(self.record['data'])}, not for {dataset.name}. Use "
                "metrics.classifier=null."
            )
        weights = path.read_bytes() if path.is_file() else b""
        if sha256(weights).hexdigest() != self.sha256:
            raise UserError(
                f"{path} does not have the checksum in {path.with_suffix('.json').name}. Install "
                "ganmnist again, or train the classifier again."
            )
        self.dataset = dataset
        self.device = torch.device(device)
        self.classifier = Classifier()
        try:
            self.classifier.load_state_dict(load_safetensors(weights))
        except (SafetensorError, RuntimeError) as error:
            raise UserError(
                f"metrics.classifier={path}: these are not the weights of the classifier. Train it "
                "again."
            ) from error
        self.classifier.eval().requires_grad_(False)
        # Channels last takes two thirds of the time on a CPU.
        self.classifier.to(self.device).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> FeatureBatch:
        """Features and logits of images (N, C, H, W) uint8."""
        rows = (self.features_of(batch.to(self.device)) for batch in images.split(BATCH))
        return FeatureBatch(images, *concat_columns(rows))

    def features_of(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) uint8 to features (B, K x 64) and logits (B, K, 10), both float64."""
        x = self.to_digits(batch)
        with (
            torch.autocast(self.device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            features = self.classifier.features(x.flatten(0, 1).unsqueeze(1))
            logits = self.classifier.last(features)
        # To the CPU first: not every device has float64.
        features, logits = (t.cpu().double().unflatten(0, x.shape[:2]) for t in (features, logits))
        return features.flatten(1), logits

    def to_digits(self, batch: Tensor) -> Tensor:
        """(B, C, H, W) uint8 to single digits (B, K, 28, 28) in [-1, 1]."""
        x = self.dataset.to_digits(to_signed_range(batch))
        if x.shape[-2:] != (SIZE, SIZE):
            x = transforms.resize(x, [SIZE, SIZE], antialias=True)
        return x


def classifier_path(dataset: DataSet) -> Path:
    """The weights for a loaded data set: the bundled ones, or those cached by its checksum.

    Raises:
        UserError: there are none yet.
    """
    if dataset.name in read_record(BUNDLED)["data"]:
        return BUNDLED
    path = cached_path(dataset)
    if not path.is_file():
        raise UserError(
            f"metrics: there is no classifier for {dataset.name} yet. Train it once with python "
            "scripts/train_classifier.py --data NAME, or use metrics=none."
        )
    return path


def cached_path(dataset: DataSet) -> Path:
    return dataset.root / "classifiers" / f"{dataset.checksum[:16]}.safetensors"


def read_record(path: Path) -> dict[str, Any]:
    """The record of a file of weights.

    Raises:
        UserError: it is missing, or of another architecture.
    """
    try:
        record: dict[str, Any] = read_json(path.with_suffix(".json"))
        if not isinstance(record["data"], list) or not isinstance(record["sha256"], str):
            raise ValueError("it is not the record of a classifier")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"metrics.classifier={path}: {path.with_suffix('.json').name} cannot be read ({error})."
            " Train the classifier again."
        ) from error
    if record.get("architecture") != Classifier.architecture:
        raise UserError(
            f"metrics.classifier={path}: its architecture is ({record.get('architecture')}), and "
            f"this version uses ({Classifier.architecture}). Train the classifier again."
        )
    return record


def save(classifier: Classifier, path: Path, record: dict[str, Any]) -> None:
    """Writes the weights and, beside them, their record with architecture and checksum."""
    weights = save_safetensors(classifier.state_dict())
    record = {
        "architecture": Classifier.architecture,
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "sha256": sha256(weights).hexdigest(),
        **record,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(weights)
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
