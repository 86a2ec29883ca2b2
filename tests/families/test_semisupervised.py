"""Semi-supervised learning: the loss of the labeled images, and D as a classifier."""

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.data import RandomImages, images
from helpers.gan import fit, small_gan, watch
from helpers.networks import d_8x8, trained_names
from torch import nn

from ganmnist.data import DataModule, Images
from ganmnist.families.semisupervised import SemiSupervised, SupervisedLoss
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.classifier import ClassifierDiscriminator
from ganmnist.runs.build import check_labels
from ganmnist.utils.batch import Batch
from ganmnist.utils.errors import UserError

close = torch.testing.assert_close
CPU = torch.device("cpu")


def classifier(n_classes: int = 10) -> ClassifierDiscriminator:
    return ClassifierDiscriminator(d_8x8, n_classes)


def semisupervised(**settings: Any) -> SemiSupervised:
    default = {
        "discriminator": partial(ClassifierDiscriminator, body=d_8x8, n_classes=10),
        "auxiliary": {"supervised": SupervisedLoss(batch_size=6)},
        "labeled": 10,
    }
    return small_gan(SemiSupervised, **{**default, **settings})


def supervised_loss(d: ClassifierDiscriminator, labeled: Batch, **settings: Any) -> SupervisedLoss:
    term = SupervisedLoss(**{"batch_size": 6, **settings})
    term.setup(nn.Identity(), d)
    term.labeled = labeled
    return term


def test_a_constant_classifier_has_the_loss_ln_10_and_probability_10_11() -> None:
    d = classifier()
    nn.init.zeros_(d.last.weight)
    nn.init.zeros_(d.last.bias)
    out = DiscriminatorOutputs(d, images(), images())
    close(supervised_loss(d, images(), weight=0.5).d_loss(out).item(), math.log(10) / 2)
    close(out.real_logits.sigmoid(), torch.full((8,), 10 / 11))


def test_a_perfect_classifier_has_the_loss_0() -> None:
    d = classifier()
    with torch.no_grad():
        d.last.weight.zero_()
        d.last.bias.copy_(1e3 * F.one_hot(torch.tensor(3), 10))
    term = supervised_loss(d, images()._replace(y=torch.full((8,), 3)))
    assert term.d_loss(DiscriminatorOutputs(d, images(), images())).item() == 0.0


@pytest.mark.parametrize(("n", "batch_size"), [(6, 6), (3, 6), (6, 4), (4, 6)])
def test_a_step_uses_labeled_images_equally_often(n: int, batch_size: int) -> None:
    d, inputs = classifier(), []
    labeled = Batch(torch.arange(n).float().view(-1, 1, 1, 1), torch.arange(n))
    term = supervised_loss(d, labeled, batch_size=batch_size)
    term.classify = lambda features: features
    d.features = lambda batch: inputs.append(batch.x) or torch.zeros(batch_size, 10)
    term.d_loss(DiscriminatorOutputs(d, images(), images()))
    counts = torch.bincount(inputs[0].flatten().long(), minlength=n)
    assert counts.sum() == batch_size
    assert counts.max() - counts.min() <= 1


def test_labels_train_d_only() -> None:
    gan = semisupervised()
    moved = watch(gan)
    fit(gan, batches=2)
    trained = trained_names(gan)
    assert moved["d"] & trained == trained_names(gan, "discriminator")
    assert moved["g"] & trained == trained_names(gan, "generator")


def test_the_average_of_d_follows_its_steps() -> None:
    gan = semisupervised()
    average = gan.supervised.ema.network.last.weight
    before = average.clone()
    fit(gan, batches=1)
    close(average, before.lerp(gan.discriminator.last.weight.detach(), 9 / 11))


@pytest.mark.parametrize("change_labeled", [False, True])
def test_only_the_labels_of_labeled_images_change_the_training(
    change_labeled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All labels change except those of the labeled images, or all of them."""

    class OtherLabels(RandomImages):
        def read(self) -> tuple[Images, Images]:
            train, test = super().read()
            return train._replace(y=(train.y + 1) % 10), test

    def trained() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        gan = semisupervised()
        fit(gan, batches=2)
        return gan.state_dict()

    data = DataModule(RandomImages(19), 8)
    data.prepare_data()
    data.setup()
    labeled = data.labeled_subset(10, 0, CPU)
    if not change_labeled:
        monkeypatch.setattr(DataModule, "labeled_subset", lambda *arguments: labeled)
    expected = trained()
    monkeypatch.setattr("helpers.gan.RandomImages", OtherLabels)
    found = trained()
    same = all(torch.equal(value, found[name]) for name, value in expected.items())
    assert same != change_labeled


def test_another_number_of_classes_than_the_data_has_is_refused() -> None:
    data = DataModule(RandomImages(60), 8)
    data.prepare_data()
    data.setup()
    with pytest.raises(UserError, match=r"family\.discriminator\.n_classes=9"):
        check_labels(semisupervised(discriminator=classifier(9)), data)


def test_a_discriminator_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="family=semisupervised"):
        small_gan(auxiliary={"supervised": SupervisedLoss(batch_size=6)})


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"supervised\.batch_size=0"):
        SupervisedLoss(batch_size=0)


def test_test_error_is_the_fraction_of_wrong_predictions() -> None:
    gan = semisupervised()
    with torch.no_grad():
        for network, label in ((gan.discriminator, 3), (gan.supervised.ema.network, 5)):
            network.last.weight.zero_()
            network.last.bias.copy_(F.one_hot(torch.tensor(label), 10))
    y = torch.tensor([3, 3, 4, 3, 5, 3, 3, 3])
    metrics = gan.extra_metrics(lambda split: [images()._replace(y=y)])
    assert metrics == {"test_error": 2 / 8, "test_error_ema": 7 / 8}


def test_the_grid_has_at_most_ten_rows_of_labeled_images() -> None:
    gan = semisupervised()
    assert gan.extra_images(images) == {}
    gan.supervised.labeled = Batch(torch.arange(120.0).view(120, 1, 1, 1), torch.arange(120) % 10)
    grid = gan.extra_images(images)["labeled"]
    close(grid.flatten(), torch.arange(100.0))
