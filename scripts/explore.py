"""What the latents of a trained generator mean.

    python scripts/explore.py logs/train/... [--which best] [--out .]

inversion.png has test digits, and below each what the generator makes of the latent found for it.
ink.png and slant.png move a digit a row along the direction of more ink and of a greater slant.
explore.json has the figures: the mean squared distance of digits found again, of the test set and,
for comparison, of the generator's own; ink and slant at each step.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor

from ganmnist import images
from ganmnist.data import DataModule
from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.latents import direction, invert
from ganmnist.loading import build, load
from ganmnist.passes import frozen
from ganmnist.rng import generator_for

STEPS = 9  # of a walk, from -1 to 1


def ink(x: Tensor) -> Tensor:
    """(N,) the share of white in images (N, C, H, W)."""
    return (x.flatten(1).mean(1) + 1) / 2


def slant(x: Tensor) -> Tensor:
    """(N,) columns to the right that a digit moves a row up: -cov(row, column) / var(row)."""
    weight = ((x + 1) / 2).mean(1) + 1e-6
    weight = weight / weight.sum((1, 2), keepdim=True)
    row, column = (torch.arange(n, dtype=x.dtype, device=x.device) for n in x.shape[2:])
    of_row, of_column = weight.sum(2), weight.sum(1)
    row = row - (of_row * row).sum(1, keepdim=True)
    column = column - (of_column * column).sum(1, keepdim=True)
    together = torch.einsum("nij,ni,nj->n", weight, row, column)
    return -together / (of_row * row.square()).sum(1)


def found_again(gan: GAN, x: Tensor, y: Tensor | None, starts: int, steps: int) -> Tensor:
    """The generator's nearest images (N, C, H, W) to x."""
    z = gan.latent(starts * len(x), "cpu", generator_for("explore")).to(x.device)
    labels = None if gan.condition is None or y is None else y.repeat(starts)
    with frozen([*gan.parameters()]):
        z = invert(partial(gan, y=labels), x, z.unflatten(0, (starts, len(x))), steps)
    return gan.sample(z, None if labels is None else y)


def distance(x: Tensor, made: Tensor) -> float:
    """The mean of |x - made|^2, a pixel in [0, 1]."""
    return ((x - made) / 2).square().flatten(1).sum(1).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--which", default="best")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--n", type=int, default=50, help="digits to find again")
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    if asked.n < 10 or asked.n % 10:
        parser.error(f"--n {asked.n}: ten digits make a row, so choose a multiple of 10")
    if asked.starts < 1 or asked.steps < 0:
        parser.error(f"--starts {asked.starts} --steps {asked.steps}: choose 1 and 0 or more")
    try:
        explore(parser, asked)
    except UserError as error:
        parser.error(str(error))


def explore(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    gan = load(asked.run, asked.which)
    if gan.condition is None and gan.prior(1)[1] is not None:
        parser.error(f"{asked.run} makes images of images, which its latents say little about")
    settings = gan.hparams
    data = DataModule(build(settings["data"]), 1, image_size=settings["model"]["image_size"])
    data.prepare_data()
    data.setup()

    test = data.some("test", asked.n, gan.device)
    z, y = gan.prior(asked.n, generator_for("explore own"))
    own = gan.sample(z, y)
    figures: dict[str, object] = {"run": asked.run}
    for name, x, labels in (("test", test.x, test.y), ("own", own, y)):
        assert x is not None
        again = found_again(gan, x, labels, asked.starts, asked.steps)
        figures[f"distance_{name}"] = distance(x, again)
        if name == "test":
            asked.out.mkdir(parents=True, exist_ok=True)
            rows = (part.unflatten(0, (-1, 10)) for part in (x, again))
            pairs = torch.stack([*rows], 1).flatten(0, 2)
            images.save(images.grid(images.to_uint8(pairs), 10), asked.out / "inversion.png")

    many, labels = gan.prior(5000, generator_for("explore directions"))
    conditions = labels.split(100) if labels is not None else repeat(None)
    parts = zip(many.split(100), conditions, strict=False)
    drawn = torch.cat([gan.sample(*part) for part in parts])
    for of in (ink, slant):
        move = direction(many, of(drawn))
        walk = [gan.sample(z + t * move, y) for t in torch.linspace(-1, 1, STEPS)]
        figures[of.__name__] = [round(of(x).mean().item(), 4) for x in walk]
        x = torch.stack([part[:10] for part in walk], 1).flatten(0, 1)
        images.save(images.grid(images.to_uint8(x), STEPS), asked.out / f"{of.__name__}.png")
    (asked.out / "explore.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
