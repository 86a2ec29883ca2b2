"""Trains the classifier whose features the metrics of a data set compare.

    python scripts/train_classifier.py [--data mnist] [--root data] [--epochs 20] [--bundled]

Its weights are cached beside the data, by their checksum. --bundled writes those of the package.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from datetime import date

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException

from ganmnist.data import DataSet
from ganmnist.metrics.classifier import accuracy, fit
from ganmnist.metrics.extractor import BUNDLED, cached_path, read_record, save
from ganmnist.runs import composition
from ganmnist.runs.folders import conf_dir
from ganmnist.runs.instantiate import instantiate
from ganmnist.utils.errors import UserError
from ganmnist.utils.pixels import to_signed_range

MIN_ACCURACY = 0.995  # of the bundled classifier on MNIST's test images


def main() -> None:
    try:
        run()
    except (UserError, MissingConfigException) as error:
        sys.exit(f"train_classifier: {' '.join(str(error).split())}")


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="mnist", help="a file of conf/data/")
    parser.add_argument("--root", default=os.environ.get("GANMNIST_DATA", "data"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundled", action="store_true", help="write the weights of the package")
    arguments = parser.parse_args()

    dataset = find_dataset(arguments.data, arguments.root)
    train, test = dataset.load()
    if not arguments.bundled and dataset.name in read_record(BUNDLED)["data"]:
        raise UserError(f"--data {arguments.data}: the package has a classifier for it already.")
    x, test_x = (dataset.to_digits(to_signed_range(images.x)) for images in (train, test))

    start = time.perf_counter()
    classifier = fit(x, train.y, epochs=arguments.epochs, seed=arguments.seed)
    seconds = time.perf_counter() - start
    test_accuracy = accuracy(classifier, test_x, test.y)
    if arguments.bundled and test_accuracy < MIN_ACCURACY:
        raise UserError(
            f"--bundled: the test accuracy is {test_accuracy:.2%}, and {MIN_ACCURACY:.1%} is "
            "necessary. Train more epochs."
        )
    record = {
        "data": ["MNIST", "digits", "StackedMNIST"] if arguments.bundled else [dataset.name],
        "checksum": dataset.checksum,
        "test_accuracy": test_accuracy,
        "epochs": arguments.epochs,
        "seconds": round(seconds),
        "command": shlex.join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "date": date.today().isoformat(),
    }
    path = BUNDLED if arguments.bundled else cached_path(dataset)
    save(classifier, path, record)
    print(f"test accuracy {test_accuracy:.2%} after {seconds:.0f} s: {path}")


def find_dataset(name: str, root: str) -> DataSet:
    """The data set of conf/data/NAME.yaml, on disk."""
    composition.setup()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = [f"data={name}", f"data.root={root}", "folder=unused"]
        dataset: DataSet = instantiate(
            composition.plain(compose("train", overrides).data)
        ).resolve()
    dataset.prepare()
    return dataset


if __name__ == "__main__":
    main()
