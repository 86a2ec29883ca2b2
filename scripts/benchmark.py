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
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
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

RECIPES = {"paper_dcgan": 200, "report_mlp": 1000}  # and the steps of one turn


class Stopwatch(Callback):
    """Seconds from the first batch to the end of training, pictures and checkpoint included."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.start


def ours(recipe: str, steps: int, root: str) -> float:
    """Images/s of ganmnist."""
    with tempfile.TemporaryDirectory() as folder:
        config = configuration(recipe, root, folder, f"trainer.limit_train_batches={steps}")
        trainer, gan, data = build(config)
        stopwatch = Stopwatch()
        trainer.callbacks.append(stopwatch)  # type: ignore[attr-defined]
        trainer.fit(gan, datamodule=data)
        return steps * config.batch_size / stopwatch.seconds


def plain(recipe: str, steps: int, root: str) -> float:
    """Images/s of the plain loop."""
    config = configuration(recipe, root, "unused")
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
    for real in endless(loader, steps):
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
    return steps * config.batch_size / (time.perf_counter() - start)


def endless(loader: DataLoader, steps: int) -> Iterator[Tensor]:
    while True:
        for x, _ in loader:
            if steps == 0:
                return
            steps -= 1
            yield x


def configuration(recipe: str, root: str, folder: str, *overrides: str) -> DictConfig:
    fixed = ["data=mnist", f"data.root={root}", "trainer=cpu", f"folder={folder}", "epochs=2"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", [f"experiment={recipe}", *fixed, *overrides])


def measure(recipe: str, steps: int, repeats: int, root: str) -> dict[str, object]:
    contenders: tuple[Callable[..., float], ...] = (ours, plain)
    for contender in contenders:  # warm-up
        contender(recipe, 20, root)
    turns = [[contender(recipe, steps, root) for contender in contenders] for _ in range(repeats)]
    ratios = [a / b for a, b in turns]
    return {
        "steps": steps,
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
        "command": "python scripts/benchmark.py",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    for recipe, steps in RECIPES.items():
        report[recipe] = result = measure(recipe, steps, arguments.repeats, arguments.root)
        print(recipe, json.dumps(result))
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
