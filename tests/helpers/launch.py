"""`python -m ganmnist.train`, in this process, which is fast, or in a process of its own."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from ganmnist import train

# Few samples for the metrics. Their values mean nothing.
BRIEFLY_MEASURED = ("metrics.n=100", "metrics.val_n=100")
# A run of two batches.
BRIEF = (
    *("experiment=debug", "data=digits", "trainer=cpu", *BRIEFLY_MEASURED),
    *("epochs=1", "trainer.limit_train_batches=2"),
)


def launch(*arguments: str) -> None:
    """Runs the command in this process and restores logging, Hydra and the environment."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *arguments])
        patch.setenv("HYDRA_FULL_ERROR", "1")  # undone afterwards
        try:
            train.main()
        finally:
            for handler in set(root.handlers) - set(handlers):
                handler.close()
            root.handlers[:] = handlers
            root.setLevel(level)
            GlobalHydra.instance().clear()


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process whose current folder is `folder`."""
    words = [sys.executable, "-m", "ganmnist.train", *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def own_objective(folder: Path, code: str) -> None:
    """Writes a user's objective=mine: `code` with a class Mine, and a YAML file that names it."""
    (folder / "mine.py").write_text(code)
    (folder / "my_conf/objective").mkdir(parents=True)
    (folder / "my_conf/objective/mine.yaml").write_text("_target_: mine.Mine\n")
