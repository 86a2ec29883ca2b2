"""Measures the throughput of both recipes, relative to a plain PyTorch loop.

    python scripts/benchmark.py [--repeats 5] [--out docs/benchmarks.json] [CASE ...]

The plain loop has the same networks, batch size and order of updates: a DataLoader over
torchvision's MNIST with ToTensor and Normalize, eager float32, standard Adam, losses read at every
step. ganmnist runs with logging, images, validation and checkpoints, in float32 and, on a CPU with
instructions for bfloat16, in bfloat16. The results of each kind of CPU are kept. To measure as on a
CPU without AVX-512:

    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python scripts/benchmark.py

The case `emulation` measures how much longer recipe A takes in bfloat16 without these instructions.

The programs run one after the other, each in its own process, because ganmnist changes the memory
allocator's settings, which would speed up the next program. The result is the ratio within one
repetition, because the speed of a shared machine drifts. The time is that of training with images,
validation and checkpoints. It excludes imports, data loading and the final metrics, which a run
computes once in 20 or 100 epochs. Validation counts as often as in a whole run, about ten times.
"""

from __future__ import annotations

import argparse
import json
import os
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
from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from ganmnist.callbacks import Evaluation
from ganmnist.runs.build import build
from ganmnist.runs.composition import plain, setup
from ganmnist.runs.cpu import available_cores, capability, cpu_model, native_bfloat16
from ganmnist.runs.folders import conf_dir
from ganmnist.runs.instantiate import instantiate
from ganmnist.runs.norm import resolve_norm
from ganmnist.utils.batch import Batch

# Settings, epochs of one repetition, and epochs between validations in a whole run.
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
    """Seconds from the start of training to the end of the last epoch and its callbacks."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.start


def ganmnist_speed(settings: Sequence[str], every: int) -> float:
    """Images/s of ganmnist with a validation every `every` epochs."""
    with tempfile.TemporaryDirectory() as folder:
        config = configuration([*settings, f"folder={folder}"])
        trainer, gan, data = build(plain(config))
        stopwatch = Stopwatch()
        trainer.callbacks.insert(0, stopwatch)  # type: ignore[attr-defined]
        trainer.fit(gan, datamodule=data)
        (evaluation,) = (c for c in trainer.callbacks if isinstance(c, Evaluation))  # type: ignore[attr-defined]
        validated = evaluation.summary["validation_seconds"]
        seconds = stopwatch.seconds - validated * (1 - 1 / every)
        return float(gan.state.batches_seen * config.batch_size / seconds)


def plain_speed(settings: Sequence[str]) -> float:
    """Images/s of the plain loop."""
    config = configuration(settings)
    torch.manual_seed(config.seed)
    model = instantiate(plain(config.model))
    generator = model["generator"](latent_dim=config.latent_dim, channels=1)
    discriminator = model["discriminator"](channels=1)
    betas = tuple(config.optimizer.d.betas)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), config.lr, betas)
    g_optimizer = torch.optim.Adam(generator.parameters(), config.lr, betas)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    mnist = datasets.MNIST(config.data.root, transform=transform)
    loader = DataLoader(mnist, config.batch_size, shuffle=True, drop_last=True)

    def loss(x: Tensor, target: float) -> Tensor:
        logits = discriminator(Batch(x))
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

        if config.gan.resample_fakes:
            fake = generator(torch.randn(len(real), config.latent_dim))
        g_optimizer.zero_grad()
        g_loss = loss(fake, 1.0)
        g_loss.backward()
        g_optimizer.step()
        losses.append((d_loss.item(), g_loss.item()))
    return float(len(losses) * config.batch_size / (time.perf_counter() - start))


def configuration(words: Sequence[str]) -> DictConfig:
    setup()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [*words])
    settings = plain(config)
    resolve_norm(settings)
    return cast(DictConfig, OmegaConf.create(settings))


def in_new_process(function: Callable[..., float], *arguments: Any) -> float:
    """The result of a function in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(case: str, repeats: int, root: str) -> dict[str, object]:
    settings, epochs, every = CASES[case]
    public = [*settings, f"epochs={epochs}", "trainer=cpu"]
    settings = [*public, "data=mnist", f"data.root={root}"]
    speeds: dict[str, list[float]] = {"float32": [], "plain": []}
    if native_bfloat16():
        speeds["bfloat16"] = []
    for repetition in range(repeats):
        speeds["float32"].append(in_new_process(ganmnist_speed, settings, every))
        speeds["plain"].append(in_new_process(plain_speed, settings))
        if "bfloat16" in speeds:
            bfloat16 = [*settings, "trainer.precision=bf16-mixed"]
            speeds["bfloat16"].append(in_new_process(ganmnist_speed, bfloat16, every))
        newest = ", ".join(f"{name} {values[-1]:.0f}" for name, values in speeds.items())
        print(f"{case} repetition {repetition + 1}: {newest} images/s", flush=True)
    report: dict[str, object] = {"settings": shlex.join(public), "images_per_s": speeds}
    for name in speeds.keys() - {"plain"}:
        ratios = [a / b for a, b in zip(speeds[name], speeds["plain"], strict=True)]
        spread = {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)}
        report[f"{name}_over_plain"] = {key: round(value, 2) for key, value in spread.items()}
    return report


def measure_emulation(repeats: int, root: str) -> dict[str, object]:
    """Seconds of 20 batches of recipe A in emulated bfloat16, over those in float32."""
    if native_bfloat16():
        raise SystemExit("emulation: this CPU has bfloat16. Set ONEDNN_MAX_CPU_ISA=AVX2.")
    public = ["experiment=paper_dcgan", "epochs=1", "trainer.limit_train_batches=20", "trainer=cpu"]
    settings = [*public, "metrics=none", "data=mnist", f"data.root={root}"]
    ratios = []
    for _ in range(repeats):
        float32, bfloat16 = (
            in_new_process(bare_speed, [*settings, f"trainer.precision={precision}"])
            for precision in ("32-true", "bf16-mixed")
        )
        ratios.append(round(float32 / bfloat16, 1))
        print(f"emulation: {ratios[-1]} times as long", flush=True)
    return {"settings": shlex.join(public), "float32_over_bfloat16": ratios}


def bare_speed(settings: Sequence[str]) -> float:
    """Images/s of the training steps alone."""
    with tempfile.TemporaryDirectory() as folder:
        config = configuration([*settings, f"folder={folder}", "callbacks=none", "logger=none"])
        trainer, gan, data = build(plain(config))
        stopwatch = Stopwatch()
        trainer.callbacks.append(stopwatch)  # type: ignore[attr-defined]
        trainer.fit(gan, datamodule=data)
        return float(gan.state.batches_seen * config.batch_size / stopwatch.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", default=[*CASES], help=", ".join(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--root", default=os.environ.get("GANMNIST_DATA", "data"))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.json"))
    arguments = parser.parse_args()
    if unknown := {*arguments.cases} - {*CASES, "emulation"}:
        available = ", ".join([*CASES, "emulation"])
        parser.error(f"Unknown case {', '.join(unknown)}. Available: {available}.")

    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for case in arguments.cases:
        measured = (
            measure_emulation(arguments.repeats, arguments.root)
            if case == "emulation"
            else measure(case, arguments.repeats, arguments.root)
        )
        results.setdefault(case, {})[capability()] = {
            "command": f"python scripts/benchmark.py {case} --repeats {arguments.repeats}",
            "date": date.today().isoformat(),
            "machine": f"{cpu_model()}, {available_cores()} cores, torch {torch.__version__}",
            **measured,
        }
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
