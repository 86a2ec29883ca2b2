"""Loads a trained GAN from its files, without running code that they name.

PyTorch's restricted unpickler reads the weights. The settings beside them may name classes of this
package, PyTorch's optimizers and classes of modules that the caller trusts. No others are called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from packaging.version import InvalidVersion, Version

from ganmnist.gan import GAN
from ganmnist.runs.instantiate import TRUSTED, instantiate
from ganmnist.utils.errors import UserError
from ganmnist.utils.values import is_plain

OLDEST = Version("0.2")  # the first version with the current structure of checkpoints


def load(
    run: str | Path,
    which: str = "best",
    device: torch.device | str = "cpu",
    trusted_modules: Sequence[str] | None = (),
) -> GAN:
    """The GAN of a run, in evaluation mode.

    Args:
        run: the run's folder, or a checkpoint file.
        which: the checkpoint of a folder: "best" (lowest `val_fid`) or "last".
        device: device of the returned GAN.
        trusted_modules: modules besides this package that its settings may name, such as
            "my_losses". None trusts all, for files that this process has written.

    Raises:
        UserError: there is no such checkpoint, ganmnist did not write it, or it names other
            modules.
    """
    path = find_checkpoint(Path(run), which)
    checkpoint = read_checkpoint(path)
    settings = checkpoint["hyper_parameters"]
    with translate_load_errors(path, checkpoint):
        allowed = None if trusted_modules is None else (*TRUSTED, *trusted_modules)
        gan = instantiate(settings["family"], allowed)
        if not isinstance(gan, GAN):
            raise TypeError(f"its settings build a {type(gan).__name__}, not a GAN")
        gan.save_hyperparameters(settings)
        restore(gan, checkpoint)
        gan.sample(1)
    for name, value in gan.state_dict().items():
        if not value.isfinite().all():
            raise UserError(
                f"{path}: {name} is not finite, because the training diverged. Choose another "
                "checkpoint, such as which=best."
            )
    return gan.to(device).eval()


def find_checkpoint(run: Path, which: str) -> Path:
    """The checkpoint of a run's folder; a file is its own.

    Raises:
        UserError: there is none.
    """
    if run.is_file():
        return run
    folder = run / "checkpoints"
    path = folder / f"{which}.ckpt"
    if path.is_file():
        return path
    if stems := sorted(file.stem for file in folder.glob("*.ckpt") if file.is_file()):
        available = ", ".join(f"which={stem}" for stem in stems)
        raise UserError(f"{run} has no {which}.ckpt. Available: {available}.")
    raise UserError(
        f"{run} is neither a checkpoint nor the folder of a run with checkpoints. Name one, such "
        "as logs/train/2026-01-01_12-00-00."
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: plain containers and tensors.

    Raises:
        UserError: the file is damaged, of another program or of another version.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict):
            raise ValueError("it contains something else")
    except Exception as error:  # unpicklers raise a dozen kinds over damaged bytes
        reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
        raise UserError(f"{path} is not a checkpoint, or damaged ({reason}).") from error
    check_oldest(path, checkpoint)
    if missing := {"state_dict", "hyper_parameters", "batches_seen"} - checkpoint.keys():
        check_newest(path, checkpoint)
        raise UserError(f"{path} is not a checkpoint of ganmnist: it has no {min(missing)}.")
    if not is_plain(checkpoint["hyper_parameters"]):
        raise UserError(f"{path}: its hyper_parameters are not plain settings.")
    return checkpoint


def restore(gan: GAN, checkpoint: dict[str, Any]) -> None:
    """Restores the weights and the training state."""
    gan.on_load_checkpoint(checkpoint)
    gan.load_state_dict(checkpoint["state_dict"])


@contextmanager
def translate_load_errors(path: Path, checkpoint: dict[str, Any]) -> Iterator[None]:
    """Turns the errors of a checkpoint that this version cannot use into a UserError."""
    try:
        yield
    except (
        *(AttributeError, ImportError, IndexError, KeyError, RuntimeError, TypeError, ValueError),
        UserError,
    ) as error:
        check_newest(path, checkpoint)
        if isinstance(error, UserError):
            raise UserError(f"{path}: {error}") from error
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} does not fit the networks of this version ({reason}). Choose another "
            "checkpoint, or install the version of ganmnist that wrote it."
        ) from error


def check_oldest(path: Path, checkpoint: dict[str, Any]) -> None:
    """Raises UserError for a checkpoint of version 0.1, which has another structure."""
    wrote = version_of(checkpoint)
    if wrote and wrote < OLDEST:
        minor = f"{wrote.major}.{wrote.minor}"
        raise UserError(
            f"{path} was written by ganmnist {minor}, which this version cannot load. Train again, "
            f"or install ganmnist {minor}."
        )


def check_newest(path: Path, checkpoint: dict[str, Any]) -> None:
    """Raises UserError for a checkpoint of a newer version. Called only if it does not load."""
    wrote, installed = version_of(checkpoint), Version(version("ganmnist"))
    if wrote and wrote > installed:
        raise UserError(
            f"{path} was written by ganmnist {wrote}, but {installed} is installed. Update "
            "ganmnist."
        )


def version_of(checkpoint: dict[str, Any]) -> Version | None:
    try:
        return Version(str(checkpoint.get("ganmnist")))
    except InvalidVersion:
        return None
