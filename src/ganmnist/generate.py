"""python -m ganmnist.generate: images of a run, as a picture or as arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from ganmnist import cli
from ganmnist.config import check_ranges, one_of
from ganmnist.devices import find_device
from ganmnist.errors import UserError
from ganmnist.files import whole, writable

if TYPE_CHECKING:
    from ganmnist.latents import Labels


def main(words: Sequence[str] | None = None) -> None:
    cli.run(generate, "generate", words)


def generate(config: DictConfig) -> Path:
    """Writes the images that `config` asks for; returns where.

    Raises:
        UserError: there is no such generator, or no such way to write.
    """
    check_ranges(config, "generate")
    source, out = one_of(config, "run", "ckpt"), Path(config.out)
    if out.suffix not in (".png", ".npz"):
        raise UserError(f"out={out}: its name ends in .png (a picture) or .npz (arrays).")
    writable(out)
    walks, steps = parse_walks(config.interpolate)
    if walks and config.n is not None:
        raise UserError(
            f"n={config.n} interpolate={config.interpolate}: the walks say how many images there "
            "are, so leave out n."
        )

    import numpy as np

    from ganmnist import images
    from ganmnist.latents import interpolate
    from ganmnist.loading import load
    from ganmnist.pixels import to_bytes
    from ganmnist.rng import generator_for

    gan = load(source, config.which, find_device(config.device), list(config.trust))
    if config.labels is not None:
        gan.condition = only(gan.condition, list(config.labels), source)
    columns = 0 if gan.condition is None else gan.condition.columns
    n = config.n or 10 * columns or 64
    rng = generator_for("generate", config.seed)
    ema = config.weights == "ema"
    images.check_channels(gan.sample(1).shape[1])
    if walks:
        z, y = gan.prior(2 * walks, rng)
        latents = interpolate(z[:walks], z[walks:], steps).flatten(0, 1)
        y = None if y is None else y[:walks].repeat_interleave(steps, 0)  # what the walk began as
        x = to_bytes(gan.sample(latents, y, ema))
        columns = steps
    else:
        x, y = gan.draw(n, rng, ema), gan.labels(n)
        columns = columns or math.ceil(math.sqrt(n))
    arrays = x.cpu().permute(0, 2, 3, 1).numpy()
    if out.suffix == ".png":
        images.save(images.grid(arrays, columns), out)
    else:
        with whole(out) as part, part.open("wb") as file:
            held: dict[str, Any] = {"images": arrays[..., 0] if x.shape[1] == 1 else arrays}
            if y is not None:
                held["labels"] = y.cpu().numpy()
            np.savez_compressed(file, **held)
    print(f"{len(x)} images: {out}")
    return out


def only(condition: Labels | None, labels: list[int], source: str) -> Labels:
    """What makes pictures of these labels alone.

    Raises:
        UserError: the generator takes no labels, or not these.
    """
    from ganmnist.latents import Labels

    if condition is None:
        raise UserError(
            f"labels={labels}: the generator of {source} is told no labels; leave them out, or "
            "train one that is, with family=projection."
        )
    try:
        return Labels(condition.classes, labels)
    except ValueError as error:
        raise UserError(str(error)) from error


def parse_walks(text: str | None) -> tuple[int, int]:
    """Walks and steps: 8x10 is 8 walks of 10 steps each, None none."""
    if text is None:
        return 0, 0
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise UserError(f"interpolate={text}: write walks x steps, such as interpolate=8x10.")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    main()
