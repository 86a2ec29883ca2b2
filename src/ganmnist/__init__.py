"""GANs on MNIST: a research template on Lightning and Hydra.

import ganmnist
gan = ganmnist.load("logs/train/2026-01-01_12-00-00")
images = gan.sample(64)  # (64, 1, 28, 28) in [-1, 1]
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganmnist.runs.loading import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # A late import: the command line reports mistakes without importing torch.
    if name == "load":
        from ganmnist.runs.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
