"""The classifier behind the metrics: verified, frozen, and of the right data."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import changed, configuration, small_gan, snapshot
from launch import BRIEF
from torch import nn

from ganmnist.data import MNIST, DataModule, Digits, FashionMNIST
from ganmnist.errors import UserError
from ganmnist.metrics import FID, Evaluator, Extractor, Real
from ganmnist.metrics.classifier import Classifier, accuracy, fit
from ganmnist.metrics.extractor import SHIPPED, cached_path, classifier_path, save
from ganmnist.pixels import to_unit_range
from ganmnist.train import train


@pytest.fixture(scope="module")
def digits(digits_root: Path) -> DataModule:
    data = DataModule(Digits(digits_root), batch_size=1)
    data.prepare_data()
    data.setup()
    return data


def test_the_shipped_classifier_is_what_its_record_says() -> None:
    record = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert record["test_accuracy"] >= 0.995
    assert SHIPPED.stat().st_size < 1e6
    assert record["parameters"] == sum(p.numel() for p in Classifier().parameters())
    assert record["architecture"] == Classifier.architecture


def test_the_shipped_classifier_knows_mnist(mnist_root: Path) -> None:
    record = json.loads(SHIPPED.with_suffix(".json").read_text())
    mnist = MNIST(mnist_root)
    _, test = mnist.load()
    assert record["checksum"] == mnist.checksum
    extractor = Extractor(SHIPPED, mnist)
    hits = extractor(test.x).classes[:, 0] == test.y
    assert hits.double().mean().item() == pytest.approx(record["test_accuracy"], abs=2e-4)


def test_features_are_the_layer_before_the_last(digits: DataModule) -> None:
    extractor = Extractor(SHIPPED, digits.dataset)
    seen = extractor(digits.test.x[:30])
    assert (seen.features.shape, seen.logits.shape) == ((30, 64), (30, 1, 10))
    assert seen.features.dtype == seen.logits.dtype == torch.float64
    assert seen.features.min() == 0  # after a ReLU
    weight = extractor.classifier.last.weight.double()
    logits = seen.features @ weight.T + extractor.classifier.last.bias.double()
    torch.testing.assert_close(logits, seen.logits[:, 0], rtol=1e-5, atol=1e-4)


def test_the_extractor_is_no_module_and_cannot_be_trained(digits: DataModule) -> None:
    extractor = Extractor(SHIPPED, digits.dataset)
    assert not isinstance(extractor, nn.Module)
    assert not extractor.classifier.training
    assert not any(p.requires_grad for p in extractor.classifier.parameters())
    before = snapshot(extractor.classifier)
    gan = small_gan()
    gan.watcher = extractor  # held by a module, it is still none of its parts
    gan.train()
    assert not extractor.classifier.training
    assert not [name for name in gan.state_dict() if "watcher" in name]
    extractor(digits.test.x)
    assert changed(before, snapshot(extractor.classifier)) == set()


def test_no_checkpoint_holds_it(tmp_path: Path, data_root: Path) -> None:
    train(configuration(f"folder={tmp_path}", *BRIEF, "model=mlp"))
    for name in ("last", "best"):
        checkpoint = torch.load(tmp_path / f"checkpoints/{name}.ckpt", weights_only=True)
        parts = {key.split(".")[0] for key in checkpoint["state_dict"]}
        assert parts == {"generator", "discriminator", "ema"}
        assert checkpoint["callbacks"].keys() == {"Evaluation", "Health"}
        json.dumps(checkpoint["callbacks"])  # plain numbers and texts


def test_figures_do_not_hang_on_autocast_or_the_size_of_batches(
    digits: DataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = Extractor(SHIPPED, digits.dataset)
    expected = extractor(digits.test.x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extractor(digits.test.x).features, expected.features)
    monkeypatch.setattr("ganmnist.metrics.extractor.BATCH", 7)
    found = extractor(digits.test.x)
    torch.testing.assert_close(found.features.float(), expected.features.float())
    torch.testing.assert_close(found.logits.float(), expected.logits.float())


def test_colours_and_sizes_come_down_to_grey_28(digits: DataModule) -> None:
    extractor = Extractor(SHIPPED, digits.dataset)
    x = digits.test.x[:20]
    grey, large = extractor(x), extractor(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    rgb = extractor(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(rgb.features.float(), grey.features.float())
    assert large.features.shape == grey.features.shape


def test_one_gan_has_one_set_of_figures(digits: DataModule) -> None:
    def figures() -> dict[str, float]:
        evaluator = Evaluator({"fid": FID()}, n=150, val_n=120)
        evaluator.prepare(digits)
        images = evaluator.draw(gan, evaluator.n)
        return {
            **evaluator.measure(evaluator.extractor(images)),
            **evaluator.validate(images[:120]),
            "floor": evaluator.val_fid_floor,
        }

    gan = small_gan()
    first = figures()
    torch.randn(100)
    assert figures() == first
    names = {"digits_fid", "digits_fid_floor"}
    names |= {f"digits_val_{name}" for name in ("fid", "coverage", "class_entropy")}
    assert first.keys() == {*names, "floor"}


def test_a_changed_file_is_refused(tmp_path: Path, digits: DataModule) -> None:
    path = tmp_path / "mnist.safetensors"
    weights = bytearray(SHIPPED.read_bytes())
    weights[-1] ^= 1
    path.write_bytes(weights)
    shutil.copy(SHIPPED.with_suffix(".json"), tmp_path)
    with pytest.raises(UserError, match=r"is not the file that mnist\.json describes"):
        Extractor(path, digits.dataset)


def test_another_architecture_is_refused(tmp_path: Path, digits: DataModule) -> None:
    path = tmp_path / "mnist.safetensors"
    shutil.copy(SHIPPED, path)
    record = json.loads(SHIPPED.with_suffix(".json").read_text()) | {"architecture": "linear"}
    path.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"of another network \(linear\)"):
        Extractor(path, digits.dataset)


def test_other_data_need_a_classifier_of_their_own(tmp_path: Path) -> None:
    fashion = FashionMNIST(tmp_path)
    fashion.checksum = "0123456789abcdef0123"
    with pytest.raises(UserError, match=r"no classifier for the metrics of FashionMNIST.*=none"):
        classifier_path(fashion)
    with pytest.raises(UserError, match="knows MNIST and digits and StackedMNIST"):
        Extractor(SHIPPED, fashion)
    save(Classifier(), cached_path(fashion), {"data": ["FashionMNIST"]})
    assert classifier_path(fashion) == cached_path(fashion)
    Extractor(cached_path(fashion), fashion)
    with pytest.raises(UserError, match="knows FashionMNIST"):
        Extractor(cached_path(fashion), Digits(tmp_path))


def test_fit_learns_and_is_a_function_of_its_seed(digits: DataModule) -> None:
    x, y = to_unit_range(digits.train.x[:1500]), digits.train.y[:1500]
    one, other = (fit(x, y, epochs=2, batch_size=50) for _ in range(2))
    assert changed(snapshot(one), snapshot(other)) == set()
    assert not one.training
    assert accuracy(one, to_unit_range(digits.test.x), digits.test.y) > 0.8


def test_a_sweep_looks_at_real_images_once(digits: DataModule) -> None:
    def real(n: int) -> Real:
        evaluator = Evaluator({"fid": FID()}, n=n, val_n=120)
        evaluator.prepare(digits)
        return evaluator.real

    first, same, more = real(150), real(150), real(250)
    assert same is first
    assert more is not first
    assert len(more.validation.features) == 250
