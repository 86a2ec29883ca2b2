"""ganmnist evaluate: metrics of a run, of a checkpoint, or of images in a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ganmnist.runs import command_line
from ganmnist.runs.arguments import check_arguments, foreign_path, path_arguments
from ganmnist.runs.checks import check_ranges, require_one
from ganmnist.runs.composition import plain
from ganmnist.runs.folders import refuse_links
from ganmnist.runs.hardware import find_device
from ganmnist.runs.instantiate import TRUSTED, find_target, instantiate
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import check_writable, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from ganmnist.data import DataModule
    from ganmnist.gan import GAN
    from ganmnist.metrics import Evaluator


MAX_BYTES = 1 << 33  # of the arrays in a file of images


def main(args: Sequence[str] | None = None) -> None:
    command_line.run(evaluate, "evaluate", args)


def evaluate(config: DictConfig) -> dict[str, float]:
    """Measures the generator or the images of a configuration, prints and writes the metrics.

    Raises:
        UserError: a setting is invalid, or a file.
    """
    check_ranges(config, "evaluate")
    source = require_one(config, "run", "ckpt", "images")
    if config.images is not None and config.n is not None:
        raise UserError(f"n={config.n}: all images of images={source} are measured. Leave n out.")
    folder = Path(source)
    if folder.is_dir():
        refuse_links(folder)
    default = folder if folder.is_dir() else folder.parent
    out = check_writable(Path(config.out or default / "metrics.json"))

    from rich import progress

    from ganmnist.reporting.console import console

    subject = from_file(config) if config.images else from_checkpoint(config, source)
    evaluator, data, images, labels, origin, gan = subject
    evaluator.prepare(data, find_device(config.device))
    features = evaluator.extractor(images)._replace(labels=labels)
    track = partial(progress.track, description="measuring", console=console, transient=True)
    metrics = evaluator.measure(features, track)
    if gan is not None and config.weights == "raw":
        metrics |= evaluator.measure_extra(gan, data)
    print_table(metrics, f"{source}: {len(images):,} images")
    write_json(out, {**origin, **evaluator.protocol, "metrics": metrics})
    console.print(f"[dim]{out}[/]", highlight=False)
    return metrics


class Subject(NamedTuple):
    """The images that are measured, and the protocol."""

    evaluator: Evaluator
    data: DataModule
    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor | None  # (N,), the conditions of the images
    origin: dict[str, Any]  # entries of the output file
    gan: GAN | None = None


def from_file(config: DictConfig) -> Subject:
    """The images of a file.

    Raises:
        UserError: the file contains no images that fit the data set.
    """
    evaluator = build_evaluator(config.metrics)
    data = load_data(config.data)
    images, labels = read_images(Path(config.images), data.dataset.stack)
    data.dataset.image_size = images.shape[-1]
    classes = 10**data.dataset.stack
    if labels is not None and not ((labels >= 0) & (labels < classes)).all():
        raise UserError(
            f"{config.images} has labels from {labels.min()} to {labels.max()}. Use labels from 0 "
            f"to {classes - 1}, or none."
        )
    evaluator.check(len(images))
    evaluator.n = len(images)
    return Subject(evaluator, data, images, labels, {"images": config.images})


def from_checkpoint(config: DictConfig, source: str) -> Subject:
    """Images of a checkpoint's generator, with the data and the protocol of its run.

    `data=X` and `metrics=X` replace them, `data.x=y` and `metrics.x=y` change them.
    """
    from ganmnist.runs.loading import find_checkpoint, load

    path = find_checkpoint(Path(source), config.which)
    gan = load(
        path, device=find_device(config.device), trusted_modules=list(config.trusted_modules)
    )
    saved, allowed = gan.hparams, (*TRUSTED, *config.trusted_modules)
    settings = {
        group: merge(saved.get(group) or plain(config[group]), config, group, allowed)
        for group in ("data", "metrics")
    }
    data = load_data(settings["data"], allowed)
    if not settings["metrics"].get("table"):  # of a run with metrics=none
        settings["metrics"] = plain(config.metrics)
    evaluator = build_evaluator(settings["metrics"], allowed)
    if config.n is not None:
        evaluator.check(config.n)
        evaluator.n = config.n
    images = evaluator.sample(gan, evaluator.n, config.weights == "ema")
    origin = {
        "checkpoint": str(path),
        "weights": config.weights,
        "batches_seen": gan.state.batches_seen,
    }
    labels = gan.sampler.labels(evaluator.n)
    return Subject(evaluator, data, images, labels, origin, gan)


def merge(
    saved: dict[str, Any], config: DictConfig, group: str, allowed: Sequence[str]
) -> dict[str, Any]:
    """The saved settings of a group with those of the command line.

    Raises:
        UserError: the saved settings have a path, which is not typed.
    """
    overrides = HydraConfig.get().overrides.task
    if any(override.startswith(f"{group}=") for override in overrides):
        return cast(dict[str, Any], plain(config[group]))
    stripped = [override.lstrip("+") for override in overrides]
    typed = [word.removeprefix(f"{group}.") for word in stripped if word.startswith(f"{group}.")]
    if not isinstance(saved, dict):
        raise UserError(f"The checkpoint has no settings for {group}. Choose another one.")
    # Unresolved: `${...}` in a checkpoint is a string, as in `instantiate`.
    changes = plain(OmegaConf.from_dotlist(typed))
    merged = OmegaConf.merge(OmegaConf.create(saved), changes)
    settings = cast(dict[str, Any], OmegaConf.to_container(merged))
    find = partial(find_target, allowed=allowed)
    for node, name, place in path_arguments(settings, find, group):
        is_typed = any(f"{group}.{word}".startswith(f"{place}=") for word in typed)
        if place == "data.root":
            node[name] = config.data.root
        elif node[name] is not None and not is_typed:
            raise foreign_path(place, node[name])
    return settings


def build_evaluator(settings: Any, allowed: tuple[str, ...] | None = None) -> Evaluator:
    settings = plain(settings) if isinstance(settings, DictConfig) else settings
    check_arguments(settings, "metrics", partial(find_target, allowed=allowed))
    evaluator: Evaluator = instantiate(settings, allowed)
    return evaluator


def load_data(settings: Any, allowed: tuple[str, ...] | None = None) -> DataModule:
    """The data module of a data set."""
    from ganmnist.data import DataModule, DataSet

    settings = plain(settings) if isinstance(settings, DictConfig) else settings
    check_arguments(settings, "data", partial(find_target, allowed=allowed))
    dataset = instantiate(settings, allowed)
    if not isinstance(dataset, DataSet):
        raise UserError(
            f"data: a {type(dataset).__name__} is not a data set. Correct its _target_."
        )
    data = DataModule(dataset, batch_size=1)
    data.prepare_data()
    data.setup()
    return data


def read_images(path: Path, stack: int = 1) -> tuple[Tensor, Tensor | None]:
    """Reads `images` uint8 (N, H, H) or (N, H, H, C) of an npz file as (N, C, H, H), and `labels`.

    Raises:
        UserError: the file contains anything else.
    """
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as file:
            size = sum(member.file_size for member in file.zip.infolist())
            if size > MAX_BYTES:  # a small file may expand to any size
                raise ValueError(f"{size:,} bytes")
            images = file["images"]
            labels = file.get("labels")
            if not all(isinstance(x, np.ndarray | None) for x in (images, labels)):
                raise TypeError("it has something else than arrays")
    except Exception as error:  # numpy and zipfile raise a dozen kinds over damaged bytes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is not an npz file with an array `images` ({reason}).") from error
    channels = (stack,) if stack > 1 else (1, 3)
    shapes = ["(N, 28, 28)"] if stack == 1 else []
    expected = " or ".join([*shapes, *(f"(N, 28, 28, {c})" for c in channels)])
    x = images[..., None] if images.ndim == 3 and stack == 1 else images
    fits = x.ndim == 4 and x.shape[1] == x.shape[2] and x.shape[3] in channels
    if images.dtype != np.uint8 or not fits or not images.size:
        raise UserError(
            f"{path} has images {images.shape} of type {images.dtype}. Use uint8 from 0 to 255 and "
            f"the shape {expected}."
        )
    if images.max() == 1:
        raise UserError(f"{path} has no values but 0 and 1. Use images from 0 to 255.")
    if labels is not None and not (labels.shape == (len(images),) and labels.dtype.kind in "iu"):
        raise UserError(
            f"{path} has labels {labels.shape} of type {labels.dtype}. Use one whole number per "
            f"image, ({len(images)},), or none."
        )
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    return tensor, None if labels is None else torch.from_numpy(labels.astype(np.int64))


def print_table(metrics: dict[str, float], title: str) -> None:
    """Prints each metric with its direction, and the value of real images or of a perfect GAN."""
    from rich.table import Table

    from ganmnist.reporting.console import console
    from ganmnist.reporting.metric_info import find_info, reference

    table = Table("metric", "value", "", "reference", title=title)
    for name, value in metrics.items():
        info = find_info(name)
        table.add_row(name, f"{value:.4f}", info.direction, reference(info, metrics))
    console.print(table)


if __name__ == "__main__":
    main()
