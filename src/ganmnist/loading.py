"""A trained GAN back from its files, without running anything that they say.

Weights are read by PyTorch's restricted unpickler. Of the settings kept with them, only classes of
this package, PyTorch's optimisers and modules that the caller trusts are ever called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from packaging.version import InvalidVersion, Version

from ganmnist.errors import UserError
from ganmnist.gan import GAN

OWN = ("ganmnist", "torch.optim")


def load(
    run: str | Path,
    which: str = "best",
    device: torch.device | str = "cpu",
    trust: Sequence[str] | None = (),
) -> GAN:
    """The GAN of a run, in evaluation mode.

    Args:
        run: its folder, or a checkpoint file.
        which: the checkpoint of a folder: "best" (by `val_fid`) or "last".
        device: where to put it.
        trust: modules besides this package that its settings may name, such as "my_losses"; None
            trusts all, for files that this process has written.

    Raises:
        UserError: there is no such checkpoint, it is not one of ours, or it names other modules.
    """
    path = find_checkpoint(Path(run), which)
    checkpoint = read_checkpoint(path)
    settings = checkpoint["hyper_parameters"]
    with fitting(path, checkpoint):
        gan = build(settings["gan"], None if trust is None else (*OWN, *trust))
        if not isinstance(gan, GAN):
            raise TypeError(f"its settings build a {type(gan).__name__}, no GAN")
        gan.save_hyperparameters(settings)
        restore(gan, checkpoint)
        gan.sample(1)
    for name, value in gan.state_dict().items():
        if not value.isfinite().all():
            raise UserError(
                f"{path}: {name} is not finite, so there is nothing to draw or measure: choose "
                "another checkpoint, such as which=best."
            )
    return gan.to(device).eval()


def find_checkpoint(run: Path, which: str) -> Path:
    """The file that is meant by a file or the folder of a run."""
    if run.is_file():
        return run
    folder = run / "checkpoints"
    path = folder / f"{which}.ckpt"
    if path.is_file():
        return path
    there = sorted(file.stem for file in folder.glob("*.ckpt") if file.is_file())
    if there:
        raise UserError(f"{run} has no {which}.ckpt: choose one of which={', which='.join(there)}.")
    raise UserError(
        f"{run} is no checkpoint and no folder of a run that has one: name another, such as "
        "logs/train/2026-01-01_12-00-00."
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of ours, plain containers and tensors."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict):
            raise ValueError("it holds something else")
    except Exception as error:  # unpicklers raise a dozen kinds over damaged bytes
        reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
        raise UserError(f"{path} is not a whole checkpoint ({reason}): choose another.") from error
    if missing := {"state_dict", "hyper_parameters", "batches_seen"} - checkpoint.keys():
        check_version(path, checkpoint)
        raise UserError(
            f"{path} is not a whole checkpoint of ganmnist (it has no {min(missing)}): choose "
            "another."
        )
    return checkpoint


def restore(gan: GAN, checkpoint: dict[str, Any]) -> None:
    """Gives a GAN the weights and the clock of a checkpoint."""
    gan.on_load_checkpoint(checkpoint)
    gan.load_state_dict(checkpoint["state_dict"])


@contextmanager
def fitting(path: Path, checkpoint: dict[str, Any]) -> Iterator[None]:
    """Makes a UserError of what a checkpoint raises that this version cannot use."""
    try:
        yield
    except (
        *(AttributeError, ImportError, IndexError, KeyError, RuntimeError, TypeError, ValueError),
        UserError,
    ) as error:
        check_version(path, checkpoint)
        if isinstance(error, UserError):
            raise UserError(f"{path}: {error}") from error
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} does not fit this version's networks ({reason}): choose another, or install "
            "the ganmnist that wrote it."
        ) from error


def check_version(path: Path, checkpoint: dict[str, Any]) -> None:
    """Raises UserError for a checkpoint that a newer ganmnist has written."""
    wrote, here = str(checkpoint.get("ganmnist", 0)), version("ganmnist")
    with suppress(InvalidVersion):
        if Version(wrote) > Version(here):
            raise UserError(
                f"{path} was written by ganmnist {wrote}, this is {here}: update ganmnist."
            )


def build(node: Any, allowed: Sequence[str] | None = OWN) -> Any:
    """Hydra's `instantiate` for settings that somebody else may have written.

    Raises:
        UserError: they name what is no class of the modules allowed, or do not suit it.
    """
    if isinstance(node, list):
        return [build(item, allowed) for item in node]
    if not isinstance(node, dict):
        return node
    settings = {key: build(value, allowed) for key, value in node.items()}
    target = settings.pop("_target_", None)
    if target is None:
        return settings
    make = find_class(target, allowed)
    if settings.pop("_partial_", False):
        return partial(make, **settings)
    try:
        return make(**settings)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{target} cannot be made of its settings ({error}): change them, or leave them out."
        ) from error


def find_class(target: Any, allowed: Sequence[str] | None) -> type:
    """The class that a `_target_` names, defined in an allowed module itself.

    No other module is imported, since that would run it.
    """
    module, _, name = str(target).rpartition(".")

    def known(module: str) -> bool:
        if allowed is None:
            return True
        return any(module == own or module.startswith(f"{own}.") for own in allowed)

    found = None
    if known(module):
        with suppress(ImportError):
            found = getattr(import_module(module), name, None)
    if not (isinstance(found, type) and known(found.__module__)):
        raise UserError(
            f"The settings name {target}, which is no class of ganmnist's: if it is yours, add its "
            f"module, trust=[{module}]."
        )
    return found
