"""Both recipes through ganmnist, everything switched on, against the loop most people write.

    python scripts/benchmark.py [--repeats 5] [--out docs/benchmarks.json]

The plain loop has the same networks, batch size and order of updates: a DataLoader over
torchvision's MNIST with ToTensor and Normalize, eager float32, standard Adam, losses read every
step. Contenders take turns, and what counts is the ratio within one turn, because the speed of a
shared machine drifts. Timed is training alone: no imports, no loading of files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from datetime import date
from itertools import chain, repeat
from pathlib import Path
from statistics import median

import lightning as L
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from ganmnist import cli
from ganmnist.duel import Sample
from ganmnist.paths import conf_dir
from ganmnist.train import build

RECIPES = {"paper_dcgan": 1, "report_mlp": 5}  # and the epochs of one turn


class Stopwatch(Callback):
    """Seconds from the first batch to the end of training, pictures and checkpoint included."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.start


def ours(recipe: str, epochs: int, root: str) -> float:
    """Images/s of ganmnist."""
    with tempfile.TemporaryDirectory() as folder:
        config = configuration(recipe, epochs, root, folder)
        trainer, gan, data = build(config)
        stopwatch = Stopwatch()
        trainer.callbacks.append(stopwatch)  # type: ignore[attr-defined]
        trainer.fit(gan, datamodule=data)
        return gan.batches_seen * config.batch_size / stopwatch.seconds


def plain(recipe: str, epochs: int, root: str) -> float:
    """Images/s of the plain loop."""
    config = configuration(recipe, epochs, root, "unused")
    torch.manual_seed(config.seed)
    generator = instantiate(config.model.generator)
    discriminator = instantiate(config.model.discriminator)
    betas = tuple(config.optimizer.d.betas)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), config.lr, betas)
    g_optimizer = torch.optim.Adam(generator.parameters(), config.lr, betas)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    mnist = datasets.MNIST(root, transform=transform)
    loader = DataLoader(mnist, config.batch_size, shuffle=True, drop_last=True)

    def loss(x: Tensor, target: float) -> Tensor:
        logits = discriminator(Sample(x))
        targets = torch.full_like(logits, target)
        if config.objective.stable:
            return F.binary_cross_entropy_with_logits(logits, targets)
        return F.binary_cross_entropy(torch.sigmoid(logits), targets)

    losses = []
    start = time.perf_counter()
    for real, _ in chain.from_iterable(repeat(loader, epochs)):
        fake = generator(torch.randn(len(real), config.latent_dim))
        d_optimizer.zero_grad()
        d_loss = loss(real, 1.0) + loss(fake.detach(), 0.0)
        d_loss.backward()
        d_optimizer.step()

        if config.gan.fresh_fakes:
            fake = generator(torch.randn(len(real), config.latent_dim))
        g_optimizer.zero_grad()
        g_loss = loss(fake, 1.0)
        g_loss.backward()
        g_optimizer.step()
        losses.append((d_loss.item(), g_loss.item()))
    return len(losses) * config.batch_size / (time.perf_counter() - start)


def configuration(recipe: str, epochs: int, root: str, folder: str) -> DictConfig:
    overrides = [f"epochs={epochs}", "data=mnist", f"data.root={root}", "trainer=cpu"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", [f"experiment={recipe}", f"folder={folder}", *overrides])


def measure(recipe: str, epochs: int, repeats: int, root: str) -> dict[str, object]:
    turns = []
    for turn in range(repeats):
        a, b = ours(recipe, epochs, root), plain(recipe, epochs, root)
        print(f"{recipe} turn {turn + 1}: ganmnist {a:.0f}, plain {b:.0f} images/s", flush=True)
        turns.append((a, b))
    ratios = [a / b for a, b in turns]
    return {
        "epochs": epochs,
        "images_per_s": {"ganmnist": [t[0] for t in turns], "plain": [t[1] for t in turns]},
        "ratio": {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--root", default=os.environ.get("GANMNIST_DATA", "data"))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.json"))
    arguments = parser.parse_args()

    cli.setup()
    report: dict[str, object] = {
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    for recipe, epochs in RECIPES.items():
        report[recipe] = measure(recipe, epochs, arguments.repeats, arguments.root)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
