"""Both recipes through ganmnist, everything switched on, against the loop most people write.

    python scripts/benchmark.py [--repeats 5] [--out docs/benchmarks.json] [CASE ...]

The plain loop has the same networks, batch size and order of updates: a DataLoader over
torchvision's MNIST with ToTensor and Normalize, eager float32, standard Adam, losses read every
step. Contenders take turns, ganmnist also in bfloat16, each in a process of its own, since ganmnist
keeps a process from giving memory back, which would speed up whoever comes after it. What counts is
the ratio within one turn, because the speed of a shared machine drifts. Timed is training with its
pictures, validation and checkpoints: no imports, no loading of files, and not what ends a run, such
as its table, which comes once in 20 or 100 epochs. Validation counts as often as in a whole run,
which validates about ten times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

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
from ganmnist.callbacks import Evaluation
from ganmnist.duel import Sample
from ganmnist.paths import conf_dir
from ganmnist.train import build

# The settings of each, the epochs of one turn, and those between validations in a whole run.
CASES = {
    "paper_dcgan": (["experiment=paper_dcgan"], 1, 2),
    "report_mlp": (["experiment=report_mlp"], 5, 10),
    "report_mlp_wide": (
        [
            "experiment=report_mlp",
            "model.generator.widths=[256,512,1024]",
            "model.discriminator.widths=[1024,512,256]",
        ],
        2,
        10,
    ),
}


class Stopwatch(Callback):
    """Seconds from the start of training to the end of the last epoch and of what follows it."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.start


def ours(settings: Sequence[str], every: int) -> float:
    """Images/s of ganmnist, where it validates after so many epochs."""
    with tempfile.TemporaryDirectory() as folder:
        config = configuration([*settings, f"folder={folder}"])
        trainer, gan, data = build(config)
        stopwatch = Stopwatch()
        trainer.callbacks.insert(0, stopwatch)  # type: ignore[attr-defined]
        trainer.fit(gan, datamodule=data)
        (evaluation,) = (c for c in trainer.callbacks if isinstance(c, Evaluation))  # type: ignore[attr-defined]
        validated = evaluation.summary["validation_seconds"]
        seconds = stopwatch.seconds - validated * (1 - 1 / every)
        return gan.batches_seen * config.batch_size / seconds


def plain(settings: Sequence[str]) -> float:
    """Images/s of the plain loop."""
    config = configuration(settings)
    torch.manual_seed(config.seed)
    generator = instantiate(config.model.generator)
    discriminator = instantiate(config.model.discriminator)
    betas = tuple(config.optimizer.d.betas)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), config.lr, betas)
    g_optimizer = torch.optim.Adam(generator.parameters(), config.lr, betas)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    mnist = datasets.MNIST(config.data.root, transform=transform)
    loader = DataLoader(mnist, config.batch_size, shuffle=True, drop_last=True)

    def loss(x: Tensor, target: float) -> Tensor:
        logits = discriminator(Sample(x))
        targets = torch.full_like(logits, target)
        if config.objective.stable:
            return F.binary_cross_entropy_with_logits(logits, targets)
        return F.binary_cross_entropy(torch.sigmoid(logits), targets)

    losses = []
    start = time.perf_counter()
    for real, _ in chain.from_iterable(repeat(loader, config.epochs)):
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


def configuration(settings: Sequence[str]) -> DictConfig:
    cli.setup()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", list(settings))


def alone(contender: Callable[..., float], *how: Any) -> float:
    """What a contender says in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(contender, *how).result()


def measure(case: str, repeats: int, root: str) -> dict[str, object]:
    settings, epochs, every = CASES[case]
    shown = [*settings, f"epochs={epochs}", "trainer=cpu"]
    settings = [*shown, "data=mnist", f"data.root={root}"]
    speeds: dict[str, list[float]] = {"float32": [], "plain": [], "bfloat16": []}
    for turn in range(repeats):
        speeds["float32"].append(alone(ours, settings, every))
        speeds["plain"].append(alone(plain, settings))
        speeds["bfloat16"].append(alone(ours, [*settings, "trainer.precision=bf16-mixed"], every))
        said = ", ".join(f"{name} {values[-1]:.0f}" for name, values in speeds.items())
        print(f"{case} turn {turn + 1}: {said} images/s", flush=True)
    report: dict[str, object] = {"settings": shlex.join(shown), "images_per_s": speeds}
    for name in ("float32", "bfloat16"):
        ratios = [a / b for a, b in zip(speeds[name], speeds["plain"], strict=True)]
        spread = {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)}
        report[f"{name}_over_plain"] = {key: round(value, 2) for key, value in spread.items()}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", default=[*CASES], help=", ".join(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--root", default=os.environ.get("GANMNIST_DATA", "data"))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.json"))
    asked = parser.parse_args()
    if unknown := {*asked.cases} - CASES.keys():
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")

    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for case in asked.cases:
        results[case] = {
            "command": f"python scripts/benchmark.py {case} --repeats {asked.repeats}",
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            **measure(case, asked.repeats, asked.root),
        }
        asked.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
