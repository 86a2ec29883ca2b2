"""Trains the classifier whose features the metrics of a data set compare.

    python scripts/train_classifier.py [--data mnist] [--root data] [--epochs 20] [--shipped]

Its weights are cached beside the data, under their checksum; --shipped writes those that come with
the package.
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
from hydra.utils import instantiate

from ganmnist import cli
from ganmnist.errors import UserError
from ganmnist.metrics.classifier import accuracy, fit
from ganmnist.metrics.extractor import SHIPPED, cached_path, read_record, save
from ganmnist.paths import conf_dir
from ganmnist.pixels import to_unit_range


def main() -> None:
    try:
        run()
    except (UserError, MissingConfigException) as error:
        sys.exit(f"train_classifier: {' '.join(str(error).split())}")


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="mnist", help="a choice of conf/data/")
    parser.add_argument("--root", default=os.environ.get("GANMNIST_DATA", "data"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shipped", action="store_true", help="write the package's own weights")
    arguments = parser.parse_args()

    cli.setup()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = [f"data={arguments.data}", f"data.root={arguments.root}", "folder=unused"]
        dataset = instantiate(compose("train", overrides).data)
    dataset = dataset.resolve()
    dataset.prepare()
    train, test = dataset.load()
    if not arguments.shipped and dataset.name in read_record(SHIPPED)["data"]:
        raise UserError(f"the classifier that ganmnist ships is the one for {dataset.name}")
    x, test_x = (dataset.glyphs(to_unit_range(part.x)) for part in (train, test))

    start = time.perf_counter()
    classifier = fit(x, train.y, epochs=arguments.epochs, seed=arguments.seed)
    seconds = time.perf_counter() - start
    reached = accuracy(classifier, test_x, test.y)
    if arguments.shipped and reached < 0.995:
        raise UserError(f"an accuracy of {reached:.2%} is below the 99.5 % of what is shipped")
    record = {
        "data": ["MNIST", "digits", "StackedMNIST"] if arguments.shipped else [dataset.name],
        "checksum": dataset.checksum,
        "test_accuracy": reached,
        "epochs": arguments.epochs,
        "seconds": round(seconds),
        "command": shlex.join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "date": date.today().isoformat(),
    }
    path = SHIPPED if arguments.shipped else cached_path(dataset)
    save(classifier, path, record)
    print(f"{record['test_accuracy']:.2%} of the test images, {seconds:.0f} s: {path}")


if __name__ == "__main__":
    main()
