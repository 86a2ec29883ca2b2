"""Optional methods of modules, callbacks and loggers, as protocols.

A class takes part by defining the method; `isinstance` finds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

from ganmnist.utils.batch import Batch
from ganmnist.utils.schedules import TrainingProgress

# Modules inside a GAN.


@runtime_checkable
class BeforeDStep(Protocol):
    """Called before every discriminator step."""

    def before_d_step(self, progress: TrainingProgress) -> None: ...


@runtime_checkable
class InitFromInput(Protocol):
    """Initializes a layer from x, the rows of several training batches of `rows` rows each."""

    def init_from_input(self, x: Tensor, rows: int) -> None: ...


@runtime_checkable
class InitFromImages(Protocol):
    """Initializes a generator from 10,000 training images (N, C, H, W), if `mean_bias`."""

    mean_bias: bool

    def init_from_images(self, x: Tensor) -> None: ...


class StepRunner(Protocol):
    """Runs the discriminator step and the generator steps of an iteration."""

    def run_step(self, batches: Sequence[Batch]) -> None: ...


# Callbacks.


@runtime_checkable
class Flush(Protocol):
    """Called before a checkpoint is written: everything until this batch goes to disk."""

    def flush(self, trainer: Any, gan: Any) -> None: ...


@runtime_checkable
class OnScalars(Protocol):
    """Called with the scalars of every batch, by batches seen."""

    def on_scalars(self, rows: Mapping[int, Mapping[str, float]], gan: Any) -> None: ...


@runtime_checkable
class Summary(Protocol):
    """Entries of summary.json."""

    summary: dict[str, Any]


@runtime_checkable
class Ordered(Protocol):
    """Callbacks run in ascending order of `order`; others have 0."""

    order: int


# Loggers.


@runtime_checkable
class LogRows(Protocol):
    """Receives the scalars of every batch. Other loggers receive means over windows."""

    def log_rows(self, rows: Mapping[int, dict[str, float]]) -> None: ...


@runtime_checkable
class LogImage(Protocol):
    """Receives image grids. The signature is that of Lightning's WandbLogger."""

    def log_image(self, key: str, images: list[Image.Image], step: int | None = None) -> None: ...


@runtime_checkable
class LogAnimation(Protocol):
    """Receives progress.gif."""

    def log_animation(self, key: str, path: Path, step: int | None = None) -> None: ...


@runtime_checkable
class LogFinalHparams(Protocol):
    """Receives the settings at the end, for a table beside the final metrics."""

    def log_final_hparams(self, hparams: dict[str, str | int | float], step: int) -> None: ...


@runtime_checkable
class TruncateAfter(Protocol):
    """Called on resume: removes everything after `step`, and returns the scalars before it."""

    def truncate_after(self, step: int) -> dict[int, dict[str, float]] | None: ...


@runtime_checkable
class FlushLogger(Protocol):
    """Writes everything to disk."""

    def flush(self) -> None: ...
