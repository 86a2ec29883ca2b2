"""The options of the training step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrainingOptions:
    """Options of the training step (conf/train.yaml, `gan`).

    Args:
        d_steps: discriminator steps, one per iteration, before each series of generator steps.
        g_steps: generator steps in that series.
        accumulate: batches of an iteration, whose gradients are averaged.
        clip: maximum norm of a network's gradient; None: no clipping.
        ema: decay of the moving average of G's weights; None: no average.
        resample_fakes: the generator step samples new fakes. Otherwise both steps share one
            forward pass of G.
        second_batch: batches have twice the images. The generator step uses the second half.
        seed: seed of latents and dropout.

    Raises:
        ValueError: an option is out of range.
    """

    d_steps: int = 1
    g_steps: int = 1
    accumulate: int = 1
    clip: float | None = None
    ema: float | None = None
    resample_fakes: bool = False
    second_batch: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("d_steps", "g_steps", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"gan.{name}={getattr(self, name)}: choose 1 or more")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"gan.clip={self.clip}: choose a norm above 0, or null")
