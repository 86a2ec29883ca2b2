"""ganmnist generate: images of a trained generator, as a grid or as arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from ganmnist.runs import command_line
from ganmnist.runs.checks import check_ranges, require_one
from ganmnist.runs.hardware import find_device
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import atomic_write, check_writable

if TYPE_CHECKING:
    from ganmnist.networks.latents import Labels


def main(args: Sequence[str] | None = None) -> None:
    command_line.run(generate, "generate", args)


def generate(config: DictConfig) -> Path:
    """Writes the images of a configuration and returns their path.

    Raises:
        UserError: a setting is invalid, or the generator does not support it.
    """
    check_ranges(config, "generate")
    source, out = require_one(config, "run", "ckpt"), Path(config.out)
    if out.suffix not in (".png", ".npz"):
        raise UserError(f"out={out}: use a name that ends in .png (a grid) or .npz (arrays).")
    check_writable(out)
    rows, steps = parse_interpolate(config.interpolate)
    if rows and config.n is not None:
        raise UserError(
            f"n={config.n}: interpolate={config.interpolate} sets the number of images. Leave n "
            "out."
        )

    import numpy as np

    from ganmnist.networks.latents import interpolate
    from ganmnist.reporting import images
    from ganmnist.runs.loading import load
    from ganmnist.utils.pixels import to_bytes
    from ganmnist.utils.rng import generator_for

    gan = load(source, config.which, find_device(config.device), list(config.trusted_modules))
    if config.labels is not None:
        gan.labels = select_labels(gan.labels, list(config.labels), source)
    columns = 0 if gan.labels is None else gan.labels.columns
    n = config.n or 10 * columns or 64
    rng = generator_for("generate", config.seed)
    ema = config.weights == "ema"
    images.check_channels(gan.sample(1).shape[1])
    if rows:
        z, y = gan.sampler.prior(2 * rows, rng)
        latents = interpolate(z[:rows], z[rows:], steps).flatten(0, 1)
        y = None if y is None else y[:rows].repeat_interleave(steps, 0)  # one label per row
        x = to_bytes(gan.sample(latents, y, ema))
        columns = steps
    else:
        x, y = gan.sampler.uint8(n, rng, ema), gan.sampler.conditions(n)
        columns = columns or math.ceil(math.sqrt(n))
    arrays = x.cpu().permute(0, 2, 3, 1).numpy()
    if out.suffix == ".png":
        images.save(images.grid(arrays, columns), out)
    else:
        with atomic_write(out) as part, part.open("wb") as file:
            content: dict[str, Any] = {"images": arrays[..., 0] if x.shape[1] == 1 else arrays}
            if y is not None:
                content["labels"] = y.cpu().numpy()
            np.savez_compressed(file, **content)
    print(f"{len(x)} images: {out}")
    return out


def select_labels(labels: Labels | None, selected: list[int], source: str) -> Labels:
    """The labels of a generator, restricted to some of them.

    Raises:
        UserError: the generator takes no labels, or not these.
    """
    from ganmnist.networks.latents import Labels

    if labels is None:
        raise UserError(
            f"labels={selected}: the generator of {source} takes no labels. Leave this out, or "
            "train a conditional GAN, such as family=projection."
        )
    try:
        return Labels(labels.n_classes, selected)
    except ValueError as error:
        raise UserError(str(error)) from error


def parse_interpolate(text: str | None) -> tuple[int, int]:
    """Rows and steps: 8x10 is 8 rows of 10 images each, None is (0, 0).

    Raises:
        UserError: the text has another form.
    """
    if text is None:
        return 0, 0
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise UserError(f"interpolate={text}: use ROWSxSTEPS, such as interpolate=8x10.")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    main()
