"""FID on the features of Inception-v3 (Heusel et al., 2017, arXiv 1706.08500).

Inception-v3 was trained on photographs, not on digits. This metric is for comparison with papers
that used it on MNIST. torch-fidelity downloads its weights (92 MB).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet
from ganmnist.utils.errors import UserError

BATCH = 50


class InceptionFID(Metric):
    """`inception_fid` against the test images, gray ones as RGB: lower is better.

    0 for the test images themselves.

    Args:
        weights: a file with torch-fidelity's weights; None: torch-fidelity downloads them.

    Raises:
        UserError: the package or the weights are missing.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        path = None if weights is None else str(weights)
        try:
            self.fid = FrechetInceptionDistance(
                2048, feature_extractor_weights_path=path, sync_on_compute=False
            )
        except ModuleNotFoundError as error:
            raise UserError(
                "metrics=inception: torch-fidelity is not installed. Run pip install "
                "torch-fidelity."
            ) from error
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"metrics.table.inception_fid.weights={weights}: Inception's weights cannot be "
                f"loaded ({error}). Set it to a file that has them, or use metrics=default."
            ) from error

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        self.fid.reset()
        for images, is_real in ((fake.images, False), (real.test.images, True)):
            for batch in images.split(BATCH):
                self.fid.update(to_rgb(batch), real=is_real)
        return {"inception_fid": self.fid.compute().item()}


def to_rgb(x: Tensor) -> Tensor:
    """Images (B, C, H, W), gray or RGB, as (B, 3, H, W)."""
    return x.cpu().expand(-1, 3, -1, -1).contiguous()
