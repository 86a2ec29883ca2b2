"""Image grids of fixed latents during training, progress.gif and epochs.png."""

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

from ganmnist.gan import GAN
from ganmnist.reporting import images
from ganmnist.utils.batch import Batch
from ganmnist.utils.errors import ForcedExit
from ganmnist.utils.hooks import LogAnimation, LogImage
from ganmnist.utils.rng import generator_for
from ganmnist.utils.values import check_interval


class Samples(Callback):
    """Saves grids of real and generated images, progress.gif and epochs.png.

    Every `sample_every` batches it saves samples/real_*.png and fake_*.png; after each epoch
    samples/epoch_*.png, progress.gif and epochs.png. The latents are a function of the seed and
    stay the same for the whole run. The generator is in evaluation mode.

    Args:
        folder: the folder of the run.
        sample_every: batches between saved images.
        count: images per grid, a square number. A conditional GAN has one class per column.
        max_frames: frames of progress.gif, evenly spread over the run.
        max_rows: rows of epochs.png, evenly spread over the run.
    """

    def __init__(
        self,
        folder: str | Path,
        sample_every: int,
        count: int = 64,
        max_frames: int = 60,
        max_rows: int = 100,
    ) -> None:
        check_interval("sample_every", sample_every)
        check_interval("callbacks.samples.count", count)
        check_interval("callbacks.samples.max_rows", max_rows)
        if max_frames < 2:
            raise ValueError(f"callbacks.samples.max_frames={max_frames}: choose 2 or more")
        self.folder = Path(folder)
        self.sample_every = sample_every
        self.count = count
        self.columns = self.rows = math.isqrt(count)
        self.frames: images.Subsampler[Image.Image] = images.Subsampler(max_frames)
        self.strips: images.Subsampler[tuple[str, Image.Image]] = images.Subsampler(max_rows)
        self.real: Tensor | None = None  # the newest real batch
        self.active = False  # True from the start of training

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        self.data = trainer.datamodule.dataset.name
        if gan.labels is not None:
            self.columns = gan.labels.columns
            self.rows = math.ceil(self.count / self.columns)
            self.count = self.rows * self.columns
        self.latents = gan.sampler.prior(
            self.count, generator_for("fixed latents", gan.options.seed)
        )
        if not trainer.is_global_zero:
            return
        if gan.state.batches_seen:
            self.restore_images(gan)
        else:
            untrained = self.plot_generated(gan, gan.sample(*self.latents), "untrained")
            self.save(untrained, "fake_000000.png")
            self.frames.add(images.indexed(untrained))
        self.active = True

    def restore_images(self, gan: GAN) -> None:
        """Loads the images that a resumed run has saved."""
        batches_per_epoch = gan.state.epoch_start // max(gan.state.epochs_seen, 1)
        now = self.plot_generated(gan, gan.sample(*self.latents), "")
        epochs = self.load("epoch", gan.state.epochs_seen, now)
        frames = {n * batches_per_epoch: image for n, image in epochs.items()}
        frames |= self.load("fake", gan.state.batches_seen, now)
        for _, image in sorted(frames.items()):
            self.frames.add(images.indexed(image))
        for n, image in epochs.items():
            self.strips.add((f"epoch {n}", self.strip(image)))

    def load(self, kind: str, last: int, like: Image.Image) -> dict[int, Image.Image]:
        """The images KIND_NUMBER.png up to a number, in order, of the size and mode of `like`."""
        files = (self.folder / "samples").glob(f"{kind}_*.png")
        numbers = {file: file.stem.partition("_")[2] for file in files}
        known = sorted((int(n), file) for file, n in numbers.items() if n.isdecimal())
        found = {}
        for n, file in known:
            with suppress(OSError):  # empty or truncated after a power loss
                image = images.read(file) if n <= last else None
                if image is not None and (image.size, image.mode) == (like.size, like.mode):
                    found[n] = image
        return found

    def on_train_batch_end(
        self, trainer: L.Trainer, gan: GAN, outputs: Any, batch: Batch | list[Batch], batch_idx: int
    ) -> None:
        self.real = (batch[-1] if isinstance(batch, list) else batch).x
        if not self.active or gan.state.batches_seen % self.sample_every:
            return
        position = f"epoch {trainer.current_epoch + 1}, batch {gan.state.batches_seen:,}"
        name = f"{gan.state.batches_seen:06d}.png"
        self.save(self.plot_real(self.real, f"real, {position}"), f"real_{name}")
        fake = self.plot_generated(gan, gan.sample(*self.latents), position)
        self.save(fake, f"fake_{name}")
        self.frames.add(images.indexed(fake))

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        if not self.active:
            return
        epoch = trainer.current_epoch + 1
        generated = self.plot_generated(gan, gan.sample(*self.latents), f"epoch {epoch}")
        self.save(generated, f"epoch_{epoch:03d}.png")
        if gan.state.batches_seen % self.sample_every:
            self.frames.add(images.indexed(generated))
        self.strips.add((f"epoch {epoch}", self.strip(generated)))
        real = partial(trainer.datamodule.fixed_batch, "test", device=gan.device)
        extra = {
            name: self.extra_grid(x, f"{name}, epoch {epoch}")
            for name, x in gan.extra_images(real).items()
        }
        for name, grid in extra.items():
            self.save(grid, f"{name}.png")
        for logger in trainer.loggers:
            if isinstance(logger, LogImage):
                logger.log_image("samples/generated", [generated], step=gan.state.batches_seen)
                for name, grid in extra.items():
                    logger.log_image(f"samples/{name}", [grid], step=gan.state.batches_seen)
                if self.real is not None:
                    image = self.plot_real(self.real, f"real, epoch {epoch}")
                    logger.log_image("samples/real", [image], step=gan.state.batches_seen)
        self.save_progress()

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        self.finish(trainer, gan)

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        if not isinstance(exception, ForcedExit):
            self.finish(trainer, gan)

    def finish(self, trainer: L.Trainer, gan: GAN) -> None:
        if not self.active:
            return
        path = self.save_progress()
        for logger in trainer.loggers:
            if isinstance(logger, LogAnimation) and path.exists():
                logger.log_animation("samples/progress", path, step=gan.state.batches_seen)

    # Plots. A subclass for other data than images overrides these.

    def plot_generated(self, gan: GAN, x: Tensor, caption: str) -> Image.Image:
        """Generated samples x (count, C, H, W)."""
        return self.grid(x, caption)

    def plot_real(self, x: Tensor, caption: str) -> Image.Image:
        """A real batch x (B, C, H, W)."""
        return self.grid(x[: self.count], caption)

    def strip(self, image: Image.Image) -> Image.Image:
        """The row of epochs.png for the image of an epoch: its first row."""
        rows = images.uncaptioned(image)
        return rows.crop((0, 0, rows.width, (rows.height - images.GAP) // self.rows + images.GAP))

    def grid(self, x: Tensor, caption: str) -> Image.Image:
        grid = images.grid(images.to_uint8(x), self.columns)
        return images.captioned(grid, f"{self.data}, {caption}")

    def extra_grid(self, x: Tensor, caption: str) -> Image.Image:
        """A family's own grid (rows, columns, C, H, W)."""
        grid = images.grid(images.to_uint8(x.flatten(0, 1)), x.shape[1])
        return images.captioned(grid, f"{self.data}, {caption}")

    def save(self, image: Image.Image, name: str) -> None:
        images.save(image, self.folder / "samples" / name)

    def save_progress(self) -> Path:
        """Writes progress.gif and epochs.png. Returns the path of the GIF."""
        path = self.folder / "progress.gif"
        if frames := self.frames.items():  # a resumed run may have none
            images.save_gif(frames, path)
        if strips := self.strips.items():
            n = len(strips)
            shown = f", {n} of {self.strips.seen} epochs" if n < self.strips.seen else ""
            caption = f"{self.data}, the same latents after each epoch{shown}"
            images.save(images.filmstrip(strips, caption), self.folder / "epochs.png")
        return path
