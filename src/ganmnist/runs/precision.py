"""trainer.precision=auto, and a warning of emulated bfloat16."""

from __future__ import annotations

import logging
from typing import Any

from ganmnist.runs.hardware import choose_devices, has_native_bfloat16

log = logging.getLogger(__name__)

# Time of a training step of recipe A in emulated bfloat16, relative to float32: case `emulation` in
# docs/benchmarks.json.
EMULATION_FACTOR = 10


def resolve_precision(trainer: dict[str, Any]) -> None:
    """Replaces trainer.precision=auto by a precision, and warns of emulated bfloat16.

    trainer: the settings of the trainer.
    """
    if trainer.get("precision") not in ("auto", "bf16-mixed"):
        return
    names = ("gpus", "accelerator", "devices", "strategy", "num_nodes")
    kind = choose_devices(**{name: trainer[name] for name in names})["accelerator"]
    native = has_native_bfloat16(kind)
    if trainer["precision"] == "auto":
        trainer["precision"] = "bf16-mixed" if native else "32-true"
        device = "CPU" if kind == "cpu" else "GPU"
        support = f"this {device} {'has' if native else 'lacks'} instructions for bfloat16"
        log.info("trainer.precision=auto: %s, %s.", trainer["precision"], support)
    if trainer["precision"] == "bf16-mixed" and kind == "cpu" and not native:
        log.warning(
            "trainer.precision=bf16-mixed: this CPU emulates bfloat16, which takes about %d times "
            "as long as float32. Use trainer.precision=32-true.",
            EMULATION_FACTOR,
        )
