"""Distance of generated images to the training images, relative to that of test images

    memorization = median_y min_t |f(y) - f(t)| / median_x min_t |f(x) - f(t)|

y are generated images, t training images, x test images, and f the features.
"""

from __future__ import annotations

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet
from ganmnist.utils.neighbors import nearest


class Memorization(Metric):
    """`memorization`: best is 1, the value of the test images.

    0 for copies of training images. Above 1 for bad images, which are far from all real ones.
    """

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        distances, _ = nearest(fake.features, real.train.features)
        return {"memorization": (distances.quantile(0.5) / real.test_to_train.quantile(0.5)).item()}
