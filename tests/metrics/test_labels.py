"""GAN-test and GAN-train."""

from pathlib import Path

import pytest
import torch
from helpers.config import configuration
from helpers.features import predicting
from hydra.utils import instantiate

from ganmnist.data import DataModule
from ganmnist.metrics import GANTest, GANTrain, ReferenceSet
from ganmnist.utils.rng import generator_for

REAL = ReferenceSet.__new__(ReferenceSet)


def test_gan_test_is_the_fraction_of_predicted_labels() -> None:
    fake = predicting([3, 4, 5, 5])._replace(labels=torch.tensor([3, 4, 5, 6]))
    assert GANTest()(fake, REAL) == {"gan_test": 0.75}
    # The first channel of a stacked image is the ones.
    stacked = predicting([[3, 2, 1], [3, 2, 1]])._replace(labels=torch.tensor([123, 321]))
    assert GANTest()(stacked, REAL) == {"gan_test": 0.5}
    assert GANTest()(predicting([3]), REAL) == {}


@pytest.mark.parametrize("epochs", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_gan_train_of_real_images_is_real_train(epochs: int, data_root: Path) -> None:
    config = configuration("folder=here", "data=digits")
    data = DataModule(instantiate(config.data), 8)
    data.prepare_data()
    data.setup()
    evaluator = instantiate(config.metrics)
    evaluator.prepare(data)
    subset = torch.randperm(len(data.train.x), generator=generator_for("still"))[:1024]
    x, y = data.train.x[subset], data.train.y[subset]
    fake = evaluator.extractor(x)._replace(labels=y)
    metrics = GANTrain(epochs)(fake, evaluator.real)
    assert metrics.keys() == {"gan_train", "real_train"}
    assert metrics["gan_train"] == metrics["real_train"]
    if epochs == 6:
        wrong = fake._replace(labels=(y + 1) % 10)
        gan_train = GANTrain(epochs)(wrong, evaluator.real)["gan_train"]
        assert gan_train < 0.1 < 0.5 < metrics["real_train"]
    assert GANTrain()(fake._replace(labels=None), evaluator.real) == {}
