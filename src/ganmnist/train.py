"""ganmnist train: trains a new run, continues one, or runs a sweep.

torch and Lightning are imported inside the functions: help and errors appear within a second.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from functools import partial

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ganmnist.runs import command_line, resume, sweep
from ganmnist.runs.composition import plain
from ganmnist.runs.training import train
from ganmnist.utils.errors import UserError

log = logging.getLogger(__name__)


def main(args: Sequence[str] | None = None) -> None:
    if resume.asked(sys.argv[1:] if args is None else args):
        command_line.resume_run(args)
    else:
        command_line.run(job, "train", args)


def job(config: DictConfig) -> float:
    """One run, or one job of a sweep by a plugin. Other jobs continue after a job that fails."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.RUN:
        return train(plain(config))
    overrides, choices = hydra.overrides.task, hydra.runtime.choices
    try:
        check = partial(sweep.check_job, config, overrides, choices)
        return train(plain(config), check, in_sweep=True)
    except KeyboardInterrupt:
        sweep.finish(hydra.sweep.dir)
        raise
    except UserError as error:
        log.error("%s", error)
    except Exception:
        log.exception("This job failed.")
    return math.nan


if __name__ == "__main__":
    main()
