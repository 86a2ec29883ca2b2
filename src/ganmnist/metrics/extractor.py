"""The classifier in use: its weights found, verified and frozen.

It is no module, so that nothing that holds it can train it, switch its mode, or write it into a
checkpoint.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from ganmnist.errors import UserError
from ganmnist.metrics.base import Seen
from ganmnist.metrics.classifier import Classifier
from ganmnist.pixels import to_unit_range

if TYPE_CHECKING:
    from ganmnist.data import DataSet

SHIPPED = Path(__file__).with_name("mnist.safetensors")
SIZE = 28  # pixels of the images that classifiers see
BATCH = 250


class Extractor:
    """Images to features and logits, in float32, in evaluation mode, without gradients.

    Args:
        path: weights (safetensors), with a record of them beside it (`save` writes both).
        dataset: what is looked at.
        device: where to compute.

    Raises:
        UserError: the weights are not there, not what their record says, or of other data.
    """

    def __init__(self, path: Path, dataset: DataSet, device: torch.device | str = "cpu") -> None:
        self.record = read_record(path)
        self.sha256: str = self.record["sha256"]
        if dataset.name not in self.record["data"]:
            raise UserError(
                f"The classifier {path} knows {' and '.join(self.record['data'])}, and its "
                f"features mean nothing for {dataset.name}: leave metrics.classifier out."
            )
        weights = path.read_bytes() if path.is_file() else b""
        if sha256(weights).hexdigest() != self.sha256:
            raise UserError(
                f"{path} is not the file that {path.with_suffix('.json').name} describes: install "
                "ganmnist again, or train the classifier again."
            )
        self.glyphs = dataset.glyphs
        self.device = torch.device(device)
        self.classifier = Classifier()
        self.classifier.load_state_dict(load_safetensors(weights))
        self.classifier.eval().requires_grad_(False)
        # Channels last takes two thirds of the time on a CPU.
        self.classifier.to(self.device).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Seen:
        """Looks at images (N, C, H, W) uint8."""
        parts = [self.look(batch.to(self.device)) for batch in images.split(BATCH)]
        features, logits = (torch.cat(part) for part in zip(*parts, strict=True))
        return Seen(images, features, logits)

    def look(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) uint8 to features (B, K x 64) and logits (B, K, 10), both float64."""
        x = self.glyphs_of(batch)
        with (
            torch.autocast(self.device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            features = self.classifier.features(x.flatten(0, 1).unsqueeze(1))
            logits = self.classifier.last(features)
        # To the CPU first: not every device has float64.
        features, logits = (t.cpu().double().unflatten(0, x.shape[:2]) for t in (features, logits))
        return features.flatten(1), logits

    def glyphs_of(self, batch: Tensor) -> Tensor:
        """(B, C, H, W) uint8 to the digits that they show, (B, K, 28, 28) in [-1, 1]."""
        x = self.glyphs(to_unit_range(batch))
        if x.shape[-2:] != (SIZE, SIZE):
            x = transforms.resize(x, [SIZE, SIZE], antialias=True)
        return x


def classifier_path(dataset: DataSet) -> Path:
    """Where the classifier of a loaded data set is: shipped, or cached by the data's checksum.

    Raises:
        UserError: nobody has trained one yet.
    """
    if dataset.name in read_record(SHIPPED)["data"]:
        return SHIPPED
    path = cached_path(dataset)
    if not path.is_file():
        raise UserError(
            f"There is no classifier for the metrics of {dataset.name} yet: train it once, with "
            "scripts/train_classifier.py --data NAME for data=NAME, or use metrics=none."
        )
    return path


def cached_path(dataset: DataSet) -> Path:
    return dataset.root / "classifiers" / f"{dataset.checksum[:16]}.safetensors"


def read_record(path: Path) -> dict[str, Any]:
    """What is known about a file of weights.

    Raises:
        UserError: it is not there, or of another architecture.
    """
    try:
        record = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path.with_suffix('.json')} does not describe {path}: {error}") from error
    if record.get("architecture") != Classifier.architecture:
        raise UserError(
            f"{path} holds the weights of another network ({record.get('architecture')}) than this "
            f"version's ({Classifier.architecture}): train the classifier again."
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
