"""ganmnist report: draws report.html of a run again.

ganmnist report run=logs/train/...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ganmnist.runs.command_line import fail
from ganmnist.runs.folders import refuse_links
from ganmnist.utils.errors import UserError

USAGE = "usage: ganmnist report run=FOLDER\n\nDraws report.html of a run again, from its files."
FILES = ("summary.json", "metrics.csv", "env.json")  # a run has at least one of them


def main(args: Sequence[str] | None = None) -> None:
    args = [*(sys.argv[1:] if args is None else args)]
    if {"-h", "--help"} & {*args}:
        print(USAGE)
        return
    if len(args) != 1:
        fail(f"report takes one run, and got {len(args)} arguments. Use run=logs/train/...")
    folder = Path(args[0].removeprefix("run=").strip("'\""))
    if not any((folder / name).is_file() for name in FILES):
        fail(f"run={folder}: this is not the folder of a run. Name one, such as logs/train/...")
    from ganmnist.reporting import report

    try:
        refuse_links(folder)
        report.write(folder)
    except UserError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{folder / 'report.html'}: {error.strerror}. Choose another folder.")
    print(folder / "report.html")
