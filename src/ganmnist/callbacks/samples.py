"""Pictures of a run: what the generator makes of the same latents as it learns."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor

from ganmnist import images
from ganmnist.duel import Sample
from ganmnist.errors import Hurry
from ganmnist.gan import GAN
from ganmnist.rng import generator_for


class Samples(Callback):
    """Grids of real and generated images, an animation and a film of the epochs.

    Every `every` batches samples/real_*.png and fake_*.png, after each epoch
    samples/epoch_*.png, progress.gif and epochs.png. The latents are a function of the seed and
    stay the same for the whole run. The generator draws in evaluation mode.

    Args:
        folder: the run's.
        every: batches between pictures.
        count: images a grid, a square number; a conditional GAN has a class a column instead.
        most_frames: of progress.gif, spread evenly over the run.
        most_rows: of epochs.png, likewise.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int,
        count: int = 64,
        most_frames: int = 60,
        most_rows: int = 100,
    ) -> None:
        self.folder = Path(folder)
        self.every = every
        self.count = count
        self.columns = self.rows = math.isqrt(count)
        self.frames: images.Spread[Image.Image] = images.Spread(most_frames)
        self.strips: images.Spread[tuple[str, Image.Image]] = images.Spread(most_rows)
        self.real: Tensor | None = None  # the newest real batch
        self.active = False  # until training starts: what fails before that has no pictures

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        self.data = trainer.datamodule.dataset.name
        if gan.condition is not None:
            self.columns = gan.condition.columns
            self.rows = math.ceil(self.count / self.columns)
            self.count = self.rows * self.columns
        self.latents = gan.prior(self.count, generator_for("fixed latents", gan.seed))
        if not trainer.is_global_zero:
            return
        if gan.batches_seen:
            self.remember(gan)
        else:
            untrained = self.draw(gan, gan.sample(*self.latents), "untrained")
            self.save(untrained, "fake_000000.png")
            self.frames.add(images.indexed(untrained))
        self.active = True

    def remember(self, gan: GAN) -> None:
        """Takes up the pictures of a run that goes on."""
        an_epoch = gan.epoch_start // max(gan.epochs_seen, 1)
        epochs = self.saved("epoch", gan.epochs_seen)
        frames = {n * an_epoch: picture for n, picture in epochs.items()}
        frames |= self.saved("fake", gan.batches_seen)
        for _, picture in sorted(frames.items()):
            self.frames.add(images.indexed(picture))
        for n, picture in epochs.items():
            self.strips.add((f"epoch {n}", self.strip(picture)))

    def saved(self, kind: str, last: int) -> dict[int, Image.Image]:
        """The pictures KIND_NUMBER.png up to a number, in order."""
        files = (self.folder / "samples").glob(f"{kind}_*.png")
        numbered = {file: file.stem.partition("_")[2] for file in files}
        known = sorted((int(n), file) for file, n in numbered.items() if n.isdigit())
        found = {}
        for n, file in known:
            with suppress(OSError):  # empty or cut, where the machine has lost power
                if n <= last:
                    found[n] = images.read(file)
        return found

    def on_train_batch_end(
        self, trainer: L.Trainer, gan: GAN, outputs: Any, batch: list[Sample], batch_idx: int
    ) -> None:
        self.real = batch[-1].x
        if not self.active or gan.batches_seen % self.every:
            return
        at = f"epoch {trainer.current_epoch + 1}, batch {gan.batches_seen:,}"
        name = f"{gan.batches_seen:06d}.png"
        assert self.real is not None
        self.save(self.draw_real(self.real, f"real, {at}"), f"real_{name}")
        fake = self.draw(gan, gan.sample(*self.latents), at)
        self.save(fake, f"fake_{name}")
        self.frames.add(images.indexed(fake))

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        if not self.active:
            return
        epoch = trainer.current_epoch + 1
        x = gan.sample(*self.latents)
        picture = self.draw(gan, x, f"epoch {epoch}")
        self.save(picture, f"epoch_{epoch:03d}.png")
        if gan.batches_seen % self.every:
            self.frames.add(images.indexed(picture))
        self.strips.add((f"epoch {epoch}", self.strip(picture)))
        further = gan.pictures(partial(trainer.datamodule.some, "test", device=gan.device))
        shown = {name: self.lay_out(x, f"{name}, epoch {epoch}") for name, x in further.items()}
        for name, grid in shown.items():
            self.save(grid, f"{name}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("samples/generated", [picture], step=gan.batches_seen)
                for name, grid in shown.items():
                    logger.log_image(f"samples/{name}", [grid], step=gan.batches_seen)
                if self.real is not None:
                    real = self.draw_real(self.real, f"real, epoch {epoch}")
                    logger.log_image("samples/real", [real], step=gan.batches_seen)
        self.assemble()

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        self.finish(trainer, gan)

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        if not isinstance(exception, Hurry):
            self.finish(trainer, gan)

    def finish(self, trainer: L.Trainer, gan: GAN) -> None:
        if not self.active:
            return
        path = self.assemble()
        for logger in trainer.loggers:
            if hasattr(logger, "log_animation") and path.exists():
                logger.log_animation("samples/progress", path, step=gan.batches_seen)

    # What other data than images draw in their own way.

    def draw(self, gan: GAN, x: Tensor, what: str) -> Image.Image:
        """The picture of generated samples x (count, C, H, W)."""
        return self.grid(x, what)

    def draw_real(self, x: Tensor, what: str) -> Image.Image:
        """The picture of a real batch x (B, C, H, W)."""
        return self.grid(x[: self.count], what)

    def strip(self, picture: Image.Image) -> Image.Image:
        """The row of epochs.png that is made of an epoch's picture: the first of its own."""
        rows = images.uncaptioned(picture)
        return rows.crop((0, 0, rows.width, (rows.height - images.GAP) // self.rows + images.GAP))

    def grid(self, x: Tensor, what: str) -> Image.Image:
        caption = f"{self.data}, {what}"
        return images.captioned(images.grid(images.to_uint8(x), self.columns), caption)

    def lay_out(self, x: Tensor, what: str) -> Image.Image:
        """The picture of a grid (rows, columns, C, H, W)."""
        grid = images.grid(images.to_uint8(x.flatten(0, 1)), x.shape[1])
        return images.captioned(grid, f"{self.data}, {what}")

    def save(self, picture: Image.Image, name: str) -> None:
        images.save(picture, self.folder / "samples" / name)

    def assemble(self) -> Path:
        """Writes the animation and the film of what there is; returns the animation's path."""
        path = self.folder / "progress.gif"
        if frames := self.frames.items():  # a run that goes on may find none
            images.save_gif(frames, path)
        if strips := self.strips.items():
            some = f", {len(strips)} of them shown" if len(strips) < self.strips.seen else ""
            caption = f"{self.data}, the same latents after each epoch{some}"
            film = images.film(strips, caption)
            images.save(film, self.folder / "epochs.png")
        return path
