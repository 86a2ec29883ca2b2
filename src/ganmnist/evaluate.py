"""python -m ganmnist.evaluate: metrics of a run, of a checkpoint, or of images in a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ganmnist import cli
from ganmnist.config import check_ranges, one_of
from ganmnist.errors import UserError
from ganmnist.paths import write_json

if TYPE_CHECKING:
    from torch import Tensor

    from ganmnist.data import DataModule
    from ganmnist.metrics import Evaluator


def main() -> None:
    cli.run(evaluate, "evaluate")


def evaluate(config: DictConfig) -> dict[str, float]:
    """Measures what `config` names, prints the table and writes it as JSON.

    Raises:
        UserError: there is nothing to measure, or it cannot be.
    """
    check_ranges(config, "evaluate")
    source = one_of(config, "run", "ckpt", "images")

    from rich import progress

    from ganmnist.console import console

    if config.images is None:
        evaluator, data, images, what = of_checkpoint(config, source)
    else:
        evaluator, data = instantiate(config.metrics), data_of(config.data)
        images, what = read_images(Path(source)), {"images": source}
    evaluator.prepare(data, config.device)
    track = partial(progress.track, description="measuring", console=console, transient=True)
    figures = evaluator.measure(evaluator.extractor(images), track)
    print_table(figures, f"{source}: {len(images):,} images")
    report = {**what, **evaluator.protocol, "n": len(images), "metrics": figures}
    default = Path(source) if Path(source).is_dir() else Path(source).parent
    out = Path(config.out or default / "metrics.json")
    write_json(out, report)
    console.print(f"[dim]{out}[/]", highlight=False)
    return figures


def of_checkpoint(
    config: DictConfig, source: str
) -> tuple[Evaluator, DataModule, Tensor, dict[str, Any]]:
    """The protocol, the data and the images of a checkpoint, and what to say about them."""
    from ganmnist.loading import OWN, build, load

    gan = load(source, config.which, config.device, list(config.trust))
    asked = {override.split("=")[0].split(".")[0] for override in HydraConfig.get().overrides.task}
    had = gan.hparams
    allowed = (*OWN, *config.trust)
    data = data_of(config.data if "data" in asked else had["data"], allowed)
    own = "metrics" not in asked and had.get("metrics", {}).get("table")
    evaluator = build(had["metrics"], allowed) if own else instantiate(config.metrics)
    if config.n is not None:
        evaluator.n = config.n
    images = evaluator.draw(gan, evaluator.n, config.weights == "ema")
    which = {"which": config.which} if config.ckpt is None else {}
    what = {"weights": config.weights, "batches_seen": gan.batches_seen, **which}
    return evaluator, data, images, what


def data_of(settings: Any, allowed: tuple[str, ...] | None = None) -> DataModule:
    """A data set in memory."""
    from ganmnist.data import DataModule
    from ganmnist.loading import build

    if isinstance(settings, DictConfig):
        settings = OmegaConf.to_container(settings, resolve=True)
    data = DataModule(build(settings, allowed), batch_size=1)
    data.prepare_data()
    data.setup()
    return data


def read_images(path: Path) -> Tensor:
    """`images` uint8 (N, H, W) or (N, H, W, C) of an npz file, as (N, C, H, W).

    Raises:
        UserError: the file holds anything else.
    """
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as file:
            images = file["images"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path} is no npz file with an array `images`: {error}.") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise UserError(
            f"{path} holds images {images.shape} of {images.dtype}: they must be uint8, "
            "(N, 28, 28) or (N, H, W, C)."
        )
    x = torch.from_numpy(images)
    return x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()


def print_table(figures: dict[str, float], title: str) -> None:
    from rich.table import Table

    from ganmnist.console import console

    table = Table("metric", "value", title=title)
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)


if __name__ == "__main__":
    main()
