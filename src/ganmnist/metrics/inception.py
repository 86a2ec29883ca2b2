"""The literature's FID, on Inception-v3 (Heusel et al., 2017, arXiv 1706.08500).

Photographs taught that network what matters, digits did not: it is here for comparison with papers
that used it on MNIST. Its weights (92 MB) come with torch-fidelity, which downloads them.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from ganmnist.errors import UserError
from ganmnist.metrics.base import Metric, Real, Seen

BATCH = 50


class InceptionFID(Metric):
    """`inception_fid` against the test images, grey ones as RGB.

    Args:
        weights: a file of torch-fidelity's weights; None lets it download them.

    Raises:
        UserError: the package or the weights are not there.
    """

    def __init__(self, weights: str | None = None) -> None:
        try:
            self.fid = FrechetInceptionDistance(
                2048, feature_extractor_weights_path=weights, sync_on_compute=False
            )
        except ModuleNotFoundError as error:
            raise UserError(
                "metrics=inception needs torch-fidelity: pip install torch-fidelity."
            ) from error
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"Inception's weights cannot be had ({error}): name a file that has them with "
                "metrics.table.inception_fid.weights=FILE, or leave metrics=inception out."
            ) from error

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        self.fid.reset()
        for images, is_real in ((fake.images, False), (real.test.images, True)):
            for batch in images.split(BATCH):
                self.fid.update(as_rgb(batch), real=is_real)
        return {"inception_fid": self.fid.compute().item()}


def as_rgb(x: Tensor) -> Tensor:
    """Images (B, C, H, W), grey or RGB, as (B, 3, H, W)."""
    return x.cpu().expand(-1, 3, -1, -1).contiguous()
