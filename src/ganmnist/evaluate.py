"""python -m ganmnist.evaluate: metrics of a run, of a checkpoint, or of images in a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from zipfile import BadZipFile

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ganmnist import cli
from ganmnist.config import check_ranges, check_types, one_of
from ganmnist.devices import find_device
from ganmnist.errors import UserError
from ganmnist.files import writable, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from ganmnist.data import DataModule
    from ganmnist.gan import GAN
    from ganmnist.metrics import Evaluator


def main(words: Sequence[str] | None = None) -> None:
    cli.run(evaluate, "evaluate", words)


def evaluate(config: DictConfig) -> dict[str, float]:
    """Measures what `config` names, prints the table and writes it as JSON.

    Raises:
        UserError: there is nothing to measure, or it cannot be.
    """
    check_ranges(config, "evaluate")
    source = one_of(config, "run", "ckpt", "images")
    if config.images is not None and config.n is not None:
        raise UserError(f"n={config.n}: images={source} are measured all, leave n out.")
    default = Path(source) if Path(source).is_dir() else Path(source).parent
    out = writable(Path(config.out or default / "metrics.json"))

    from rich import progress

    from ganmnist.console import console

    with cli.refusals():
        measured = of_file(config) if config.images else of_checkpoint(config, source)
    evaluator, data, images, labels, what, gan = measured
    evaluator.prepare(data, find_device(config.device))
    seen = evaluator.extractor(images)._replace(labels=labels)
    track = partial(progress.track, description="measuring", console=console, transient=True)
    figures = evaluator.measure(seen, track)
    if gan is not None and config.weights == "raw":
        figures |= evaluator.measure_family(gan, data)
    print_table(figures, f"{source}: {len(images):,} images")
    report = {**what, **evaluator.protocol, "metrics": figures}
    write_json(out, report)
    console.print(f"[dim]{out}[/]", highlight=False)
    return figures


class Measured(NamedTuple):
    """What is to be measured, by which protocol."""

    evaluator: Evaluator
    data: DataModule
    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor | None  # (N,), what each was to show
    what: dict[str, Any]  # it is, for the file
    gan: GAN | None = None


def of_file(config: DictConfig) -> Measured:
    """The images of a file."""
    evaluator = make_evaluator(config.metrics)
    data = data_of(config.data)
    images, labels = read_images(Path(config.images), data.dataset.stack)
    data.image_size = images.shape[-1]
    classes = 10**data.dataset.stack
    if labels is not None and not ((labels >= 0) & (labels < classes)).all():
        raise UserError(
            f"{config.images} holds labels from {labels.min()} to {labels.max()}: they must lie "
            f"between 0 and {classes - 1}, or be left out."
        )
    evaluator.check(len(images))
    evaluator.n = len(images)
    return Measured(evaluator, data, images, labels, {"images": config.images})


def of_checkpoint(config: DictConfig, source: str) -> Measured:
    """The images of a checkpoint, with the data and the protocol that its run had.

    `data=X` and `metrics=X` take their place, `data.x=y` and `metrics.x=y` change them.
    """
    from ganmnist.loading import OWN, find_checkpoint, load

    path = find_checkpoint(Path(source), config.which)
    gan = load(path, device=find_device(config.device), trust=list(config.trust))
    had, allowed = gan.hparams, (*OWN, *config.trust)
    settings = {
        group: merged(had.get(group) or plain(config[group]), config, group)
        for group in ("data", "metrics")
    }
    data = data_of(settings["data"], allowed)
    data.image_size = had["datamodule"]["image_size"] if "datamodule" in had else None
    if not settings["metrics"].get("table"):  # a run that was not measured
        settings["metrics"] = plain(config.metrics)
    evaluator = make_evaluator(settings["metrics"], allowed)
    if config.n is not None:
        evaluator.check(config.n)
        evaluator.n = config.n
    images = evaluator.draw(gan, evaluator.n, config.weights == "ema")
    what = {"checkpoint": str(path), "weights": config.weights, "batches_seen": gan.batches_seen}
    return Measured(evaluator, data, images, gan.labels(evaluator.n), what, gan)


def merged(had: dict[str, Any], config: DictConfig, group: str) -> dict[str, Any]:
    """What a run had of a group of settings, and what the command line says about it."""
    asked = HydraConfig.get().overrides.task
    if any(override.startswith(f"{group}=") for override in asked):
        return plain(config[group])
    changes = [o.removeprefix("++").removeprefix("+") for o in asked]
    mine = [o.removeprefix(f"{group}.") for o in changes if o.startswith(f"{group}.")]
    changed = OmegaConf.merge(OmegaConf.create(had), plain(OmegaConf.from_dotlist(mine)))
    # Unresolved: what a checkpoint says between ${ and } is a text, as in `loading.build`.
    settings = cast(dict[str, Any], OmegaConf.to_container(changed))
    if "root" in settings and not Path(settings["root"]).is_dir():  # of another machine
        settings["root"] = config.data.root
    return settings


def plain(settings: Any) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True))


def make_evaluator(settings: Any, allowed: tuple[str, ...] | None = None) -> Evaluator:
    from ganmnist.loading import build, find_class

    settings = plain(settings) if isinstance(settings, DictConfig) else settings
    check_types(settings, "metrics", partial(find_class, allowed=allowed))
    return build(settings, allowed)


def data_of(settings: Any, allowed: tuple[str, ...] | None = None) -> DataModule:
    """A data set in memory."""
    from ganmnist.data import DataModule
    from ganmnist.loading import build

    settings = plain(settings) if isinstance(settings, DictConfig) else settings
    data = DataModule(build(settings, allowed), batch_size=1)
    data.prepare_data()
    data.setup()
    return data


def read_images(path: Path, stack: int = 1) -> tuple[Tensor, Tensor | None]:
    """`images` uint8 (N, H, H) or (N, H, H, C) of an npz file, as (N, C, H, H), and its `labels`.

    Raises:
        UserError: the file holds anything else.
    """
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as file:
            images = file["images"]
            labels = file.get("labels")
    except (OSError, ValueError, KeyError, EOFError, TypeError, IndexError, BadZipFile) as error:
        raise UserError(f"{path} is no npz file with an array `images`: {error}.") from error
    channels = (stack,) if stack > 1 else (1, 3)
    forms = ["(N, 28, 28)"] if stack == 1 else []
    expected = " or ".join([*forms, *(f"(N, 28, 28, {c})" for c in channels)])
    grey = images[..., None] if images.ndim == 3 and stack == 1 else images
    fits = grey.ndim == 4 and grey.shape[1] == grey.shape[2] and grey.shape[3] in channels
    if images.dtype != np.uint8 or not fits or not images.size:
        raise UserError(
            f"{path} holds images {images.shape} of {images.dtype}: they must be uint8 from 0 to "
            f"255, square, channels last: {expected}."
        )
    if images.max() == 1:
        raise UserError(f"{path} holds values of 0 and 1 alone: images go from 0 to 255.")
    if labels is not None and not (labels.shape == (len(images),) and labels.dtype.kind in "iu"):
        raise UserError(
            f"{path} holds labels {labels.shape} of {labels.dtype}: they must be one whole number "
            f"an image, ({len(images)},), or be left out."
        )
    x = torch.from_numpy(grey).permute(0, 3, 1, 2).contiguous()
    return x, None if labels is None else torch.from_numpy(labels.astype(np.int64))


def print_table(figures: dict[str, float], title: str) -> None:
    from rich.table import Table

    from ganmnist.console import console

    table = Table("metric", "value", title=title)
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)


if __name__ == "__main__":
    main()
