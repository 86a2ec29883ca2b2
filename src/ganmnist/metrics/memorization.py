"""How close to training images the generated ones are, next to images that nobody has seen

    memorization = median_y min_t |f(y) - f(t)| / median_x min_t |f(x) - f(t)|

y generated, t training images, x test images, f the features. About 1 for a generator as original
as the test set, 0 for one that copies; bad images are far from everything, and over 1.
"""

from __future__ import annotations

from ganmnist.metrics.base import Metric, Real, Seen
from ganmnist.metrics.neighbours import nearest


class Memorization(Metric):
    """`memorization`."""

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        distances, _ = nearest(fake.features, real.train.features)
        return {"memorization": (distances.quantile(0.5) / real.test_to_train.quantile(0.5)).item()}
