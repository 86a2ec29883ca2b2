"""Features of the classifier: verified weights, frozen, for the right data."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.config import settings_of
from helpers.gan import changed, small_gan, snapshot
from helpers.launch import BRIEF
from torch import nn

from ganmnist.data import MNIST, DataModule, Digits, FashionMNIST
from ganmnist.metrics import ClassifierFeatures
from ganmnist.metrics.classifier import Classifier
from ganmnist.metrics.extractor import BUNDLED, cached_path, classifier_path, save
from ganmnist.train import train
from ganmnist.utils.errors import UserError


def bundled_record() -> dict[str, Any]:
    return json.loads(BUNDLED.with_suffix(".json").read_text())


def test_the_bundled_classifier_matches_its_record() -> None:
    record = bundled_record()
    assert record["test_accuracy"] >= 0.995
    assert BUNDLED.stat().st_size < 1e6
    assert record["parameters"] == sum(p.numel() for p in Classifier().parameters())
    assert record["architecture"] == Classifier.architecture


@pytest.mark.mnist
def test_the_bundled_classifier_has_the_recorded_accuracy_on_mnist(mnist_root: Path) -> None:
    record = bundled_record()
    mnist = MNIST(mnist_root)
    _, test = mnist.load()
    assert record["checksum"] == mnist.checksum
    batch = ClassifierFeatures(BUNDLED, mnist)(test.x)
    correct = batch.predicted_labels == test.y
    assert correct.double().mean().item() == pytest.approx(record["test_accuracy"], abs=2e-4)


def test_features_are_the_input_of_the_last_layer(digits: DataModule) -> None:
    extractor = ClassifierFeatures(BUNDLED, digits.dataset)
    batch = extractor(digits.test.x[:30])
    assert (batch.features.shape, batch.logits.shape) == ((30, 64), (30, 1, 10))
    assert batch.features.dtype == batch.logits.dtype == torch.float64
    assert batch.features.min() == 0  # after a ReLU
    weight = extractor.classifier.last.weight.double()
    logits = batch.features @ weight.T + extractor.classifier.last.bias.double()
    torch.testing.assert_close(logits, batch.logits[:, 0], rtol=1e-5, atol=1e-4)


def test_a_module_that_holds_the_extractor_does_not_train_or_save_it(digits: DataModule) -> None:
    extractor = ClassifierFeatures(BUNDLED, digits.dataset)
    assert not isinstance(extractor, nn.Module)
    assert not extractor.classifier.training
    assert not any(p.requires_grad for p in extractor.classifier.parameters())
    before = snapshot(extractor.classifier)
    gan = small_gan()
    gan.extractor = extractor
    gan.train()
    assert not extractor.classifier.training
    assert not [name for name in gan.state_dict() if "extractor" in name]
    extractor(digits.test.x)
    assert changed(before, snapshot(extractor.classifier)) == set()


def test_a_checkpoint_has_no_classifier(tmp_path: Path, data_root: Path) -> None:
    train(settings_of(f"folder={tmp_path}", *BRIEF, "model=mlp"))
    for name in ("last", "best"):
        checkpoint = torch.load(tmp_path / f"checkpoints/{name}.ckpt", weights_only=True)
        modules = {key.split(".")[0] for key in checkpoint["state_dict"]}
        assert modules == {"generator", "discriminator", "ema"}
        assert checkpoint["callbacks"].keys() == {"Evaluation", "Health"}
        json.dumps(checkpoint["callbacks"])  # plain numbers and strings


def test_features_do_not_depend_on_autocast_or_the_batch_size(
    digits: DataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = ClassifierFeatures(BUNDLED, digits.dataset)
    expected = extractor(digits.test.x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extractor(digits.test.x).features, expected.features)
    monkeypatch.setattr("ganmnist.metrics.extractor.BATCH", 7)
    actual = extractor(digits.test.x)
    torch.testing.assert_close(actual.features.float(), expected.features.float())
    torch.testing.assert_close(actual.logits.float(), expected.logits.float())


def test_images_are_reduced_to_gray_28x28(digits: DataModule) -> None:
    extractor = ClassifierFeatures(BUNDLED, digits.dataset)
    x = digits.test.x[:20]
    gray, large = extractor(x), extractor(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    rgb = extractor(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(rgb.features.float(), gray.features.float())
    assert large.features.shape == gray.features.shape


def test_changed_weights_are_refused(tmp_path: Path, digits: DataModule) -> None:
    path = tmp_path / "mnist.safetensors"
    weights = bytearray(BUNDLED.read_bytes())
    weights[-1] ^= 1
    path.write_bytes(weights)
    shutil.copy(BUNDLED.with_suffix(".json"), tmp_path)
    with pytest.raises(UserError, match=r"checksum in mnist\.json"):
        ClassifierFeatures(path, digits.dataset)


def test_another_architecture_is_refused(tmp_path: Path, digits: DataModule) -> None:
    path = tmp_path / "mnist.safetensors"
    shutil.copy(BUNDLED, path)
    record = bundled_record() | {"architecture": "linear"}
    path.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"metrics\.classifier=.*\(linear\)"):
        ClassifierFeatures(path, digits.dataset)


def test_a_missing_record_is_refused(tmp_path: Path, digits: DataModule) -> None:
    with pytest.raises(UserError, match=r"metrics\.classifier=.*none\.json"):
        ClassifierFeatures(tmp_path / "none.safetensors", digits.dataset)


def test_each_data_set_needs_its_own_classifier(tmp_path: Path) -> None:
    fashion = FashionMNIST(tmp_path)
    fashion.checksum = "0123456789abcdef0123"
    with pytest.raises(UserError, match=r"FashionMNIST.*metrics=none"):
        classifier_path(fashion)
    with pytest.raises(UserError, match=r"metrics\.classifier=.*not for FashionMNIST"):
        ClassifierFeatures(BUNDLED, fashion)
    save(Classifier(), cached_path(fashion), {"data": ["FashionMNIST"]})
    assert classifier_path(fashion) == cached_path(fashion)
    ClassifierFeatures(cached_path(fashion), fashion)
    with pytest.raises(UserError, match="not for digits"):
        ClassifierFeatures(cached_path(fashion), Digits(tmp_path))
