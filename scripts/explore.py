"""Inverts a trained generator and finds directions in its latent space.

    python scripts/explore.py logs/train/... [--which best] [--out .]

- inversion.png: test images, and below each the generator's nearest image.
- ink.png, slant.png: one digit per row along the direction of more ink and of a larger slant.
- explore.json: mean squared distance of inverted images, of the test set and of the generator's
  own; mean ink and slant at each step of the walk.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor

from ganmnist.data import DataModule
from ganmnist.gan import GAN
from ganmnist.networks.latents import direction, invert
from ganmnist.reporting import images
from ganmnist.runs.instantiate import instantiate
from ganmnist.runs.loading import load
from ganmnist.utils.errors import UserError
from ganmnist.utils.modules import frozen
from ganmnist.utils.rng import generator_for

STEPS = 9  # of a walk along a direction, from -1 to 1


def ink(x: Tensor) -> Tensor:
    """The share of white, (N,), in images (N, C, H, W)."""
    return (x.flatten(1).mean(1) + 1) / 2


def slant(x: Tensor) -> Tensor:
    """The slant of digits, (N,), in columns per row: -cov(row, column) / var(row)."""
    weight = ((x + 1) / 2).mean(1) + 1e-6
    weight = weight / weight.sum((1, 2), keepdim=True)
    row, column = (torch.arange(n, dtype=x.dtype, device=x.device) for n in x.shape[2:])
    of_row, of_column = weight.sum(2), weight.sum(1)
    row = row - (of_row * row).sum(1, keepdim=True)
    column = column - (of_column * column).sum(1, keepdim=True)
    covariance = torch.einsum("nij,ni,nj->n", weight, row, column)
    return -covariance / (of_row * row.square()).sum(1)


def nearest_images(gan: GAN, x: Tensor, y: Tensor | None, starts: int, steps: int) -> Tensor:
    """The generator's images (N, C, H, W) nearest to x, by inversion from `starts` latents each."""
    z = gan.latent(starts * len(x), "cpu", generator_for("explore")).to(x.device)
    labels = None if gan.labels is None or y is None else y.repeat(starts)
    with frozen([*gan.parameters()]):
        z = invert(partial(gan.generator, y=labels), x, z.unflatten(0, (starts, len(x))), steps)
    return gan.sample(z, None if labels is None else y)


def distance(x: Tensor, other: Tensor) -> float:
    """The mean of |x - other|^2 with pixels in [0, 1]."""
    return ((x - other) / 2).square().flatten(1).sum(1).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--which", default="best")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--n", type=int, default=50, help="number of digits, a multiple of 10")
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.n < 10 or arguments.n % 10:
        parser.error(f"--n {arguments.n}: choose a multiple of 10, as rows have 10 images")
    if arguments.starts < 1 or arguments.steps < 0:
        parser.error(
            f"--starts {arguments.starts} --steps {arguments.steps}: choose 1 or more starts and 0 "
            "or more steps"
        )
    try:
        explore(parser, arguments)
    except UserError as error:
        parser.error(str(error))


def explore(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    gan = load(arguments.run, arguments.which)
    if gan.labels is None and gan.sampler.prior(1)[1] is not None:
        parser.error(f"{arguments.run}: its generator takes images. Use a run of another family.")
    settings = gan.hparams
    data = DataModule(instantiate(settings["data"]), 1)
    data.prepare_data()
    data.setup()

    test = data.fixed_batch("test", arguments.n, gan.device)
    z, y = gan.sampler.prior(arguments.n, generator_for("explore own"))
    own = gan.sample(z, y)
    results: dict[str, object] = {"run": arguments.run}
    for name, x, labels in (("test", test.x, test.y), ("own", own, y)):
        nearest = nearest_images(gan, x, labels, arguments.starts, arguments.steps)
        results[f"distance_{name}"] = distance(x, nearest)
        if name == "test":
            arguments.out.mkdir(parents=True, exist_ok=True)
            rows = (part.unflatten(0, (-1, 10)) for part in (x, nearest))
            pairs = torch.stack([*rows], 1).flatten(0, 2)
            images.save(images.grid(images.to_uint8(pairs), 10), arguments.out / "inversion.png")

    many, labels = gan.sampler.prior(5000, generator_for("explore directions"))
    conditions = labels.split(100) if labels is not None else repeat(None)
    parts = zip(many.split(100), conditions, strict=False)
    generated = torch.cat([gan.sample(*part) for part in parts])
    for property_of in (ink, slant):
        move = direction(many, property_of(generated))
        walk = [gan.sample(z + t * move, y) for t in torch.linspace(-1, 1, STEPS)]
        results[property_of.__name__] = [round(property_of(x).mean().item(), 4) for x in walk]
        x = torch.stack([part[:10] for part in walk], 1).flatten(0, 1)
        path = arguments.out / f"{property_of.__name__}.png"
        images.save(images.grid(images.to_uint8(x), STEPS), path)
    (arguments.out / "explore.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
