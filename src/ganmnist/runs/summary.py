"""summary.json: the status, the settings and the results of a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganmnist.runs.schema import SETTINGS
from ganmnist.utils.errors import ForcedExit, UserError
from ganmnist.utils.files import write_json

if TYPE_CHECKING:
    import lightning as L

    from ganmnist.data import DataModule
    from ganmnist.gan import GAN

log = logging.getLogger(__name__)


class WarningCollector(logging.Handler):
    """Keeps the warnings of a run, for its summary."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self.warnings.append(" ".join(record.getMessage().replace("#", " ").split()))


class RunSummary:
    """Collects the entries of summary.json.

    `entries["status"]` is failed, incomplete (files are missing), interrupted or finished.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.metric = settings["optimized_metric"]
        self.start_time = time.perf_counter()
        self.forced_exit = False  # Ctrl-C twice
        self.entries: dict[str, Any] = {
            "name": settings["name"],
            "status": "failed",
            "error": "",
            "settings": {name: settings[name] for name in SETTINGS["train"] if name != "name"},
        }

    def add(self, **entries: Any) -> None:
        self.entries |= entries

    @contextmanager
    def record_outcome(self) -> Iterator[None]:
        """Sets the status to finished or interrupted, and collects the warnings in between.

        Other exceptions leave the status and set `error`. All propagate.
        """
        collector, root = WarningCollector(), logging.getLogger()
        root.addHandler(collector)
        self.add(warnings=collector.warnings)
        try:
            yield
        except KeyboardInterrupt as error:
            self.forced_exit = isinstance(error.__cause__, ForcedExit)
            self.add(status="interrupted")
            raise
        except UserError as error:
            self.add(error=str(error))
            raise
        except Exception as error:
            self.add(error=f"{type(error).__name__}: {error}")
            raise
        finally:
            root.removeHandler(collector)
        self.add(status="finished")

    def write(self, path: Path, **entries: Any) -> None:
        write_json(path, self.content | entries)

    @property
    def content(self) -> dict[str, Any]:
        """The content of summary.json."""
        seconds = round(time.perf_counter() - self.start_time, 1)
        return self.entries | {"metric": self.metric, "value": self.value, "seconds": seconds}

    @property
    def value(self) -> float | None:
        """The scalar that `optimized_metric` names. None: there is no such scalar."""
        scalars, data = self.entries.get("scalars", {}), self.entries.get("data", "")
        return find_scalar(scalars, self.metric, data)

    def warn_if_value_missing(self) -> None:
        """Warns if the run is finished and has no scalar of the optimized metric."""
        if self.value is None and self.entries["status"] == "finished":
            available = ", ".join(self.entries["scalars"]) or "none"
            log.warning(
                "optimized_metric=%s: this run has no such scalar. Use one of: %s.",
                *(self.metric, available),
            )


def results(trainer: L.Trainer, gan: GAN, data: DataModule) -> dict[str, Any]:
    """Entries of summary.json: metrics, last scalars, epochs, batches and images."""
    from ganmnist.utils.hooks import Summary

    images = gan.state.batches_seen * data.batch_size * trainer.world_size
    scalars = {name: float(value) for name, value in trainer.callback_metrics.items()}
    metrics: dict[str, Any] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        metrics |= callback.summary if isinstance(callback, Summary) else {}
    for weights, values in metrics.get("final", {}).items():
        if weights != "epoch":
            suffix = "_ema" if weights == "ema" else ""
            scalars |= {f"final/{name}{suffix}": value for name, value in values.items()}
    return {
        "metrics": metrics,
        "epochs": trainer.current_epoch,
        "batches_seen": gan.state.batches_seen,
        "images_seen": images,
        "scalars": scalars,
        "equilibrium": [*gan.loss_terms.equilibrium],  # losses of D and G
    }


def find_scalar(scalars: dict[str, float], metric: str, data: str) -> float | None:
    """The scalar of this name, or the final or last value of the metric of this name."""
    from ganmnist.metrics.evaluator import key_of

    key = key_of(metric, data)
    names = (metric, f"final/{key}", f"metrics/{key}")
    return next((scalars[name] for name in names if name in scalars), None)
