"""Trains the runs behind docs/reproduction.md, one after the other. Linux and macOS.

    python scripts/reproduce.py ROW ...     train the missing runs of these rows, in logs/reproduce
    python scripts/reproduce.py --queue     train the missing runs of all rows in DIR
    python scripts/reproduce.py --status    print the state of every row
    python scripts/reproduce.py --pause     stop all processes of the queue (SIGSTOP)
    python scripts/reproduce.py --continue  let them run again (SIGCONT)
    python scripts/reproduce.py             rebuild docs/reproduction.md

DIR is ~/ganmnist-queue (--folder DIR). The queue uses the code and the rows of DIR/code, a git
worktree of one commit: later edits of this checkout do not change it. `--queue --new-code` moves
DIR/code to the present commit. The log is DIR/log, the process group is in DIR/pid.

A run is done if docs/reproduction/RUN.json has the present settings of its row. An unfinished run
is resumed from DIR/runs/RUN if settings and commit are the same. Any other folder of this name
moves to DIR/old. To train a run again, delete its JSON and its folder.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple


class Row(NamedTuple):
    settings: str
    metrics: str
    published: str  # value of the first metric, in its unit
    paper: str  # arXiv id
    variants: Sequence[str] = ("seed=0",)


SEEDS = tuple(f"seed={seed}" for seed in range(5))
COMMON = ("data=mnist", "trainer.precision=32-true", "trainer=cpu")  # where a row has no other
WIDE = (
    "experiment=report_mlp "
    "model.generator.widths=[1000,1000] model.discriminator.widths=[1000,1000] "
    "model.generator.dropout=0.0 model.discriminator.dropout=0.0"
)
CALM = "optimizer.d.betas=[0.5,0.999] optimizer.g.betas=[0.5,0.999]"
STACKED = (
    "experiment=stacked data=stacked_mnist epochs=60 schedule=linear ema=0.9995 "
    "stabilizer=minibatch_discrimination penalty=r1 penalty.r1.gamma=0.1 penalty.r1.interval=8"
)


def comparison(family: str, metrics: str, paper: str, epochs: int, seeds: int = 1) -> Row:
    """A row whose paper has no such number on MNIST."""
    settings = f"experiment=comparison family={family} metrics=default epochs={epochs}"
    return Row(settings, metrics, "none on MNIST", paper, SEEDS[:seeds])


def conditional(family: str, paper: str) -> Row:
    return comparison(family, "gan_test gan_train real_train", paper, epochs=8, seeds=3)


def paper(name: str, arxiv: str) -> Row:
    """A preset whose paper has no number on MNIST by these metrics."""
    metrics = "fid precision recall coverage"
    return Row(f"experiment={name} metrics=default", metrics, "none on MNIST", arxiv)


def parzen(settings: str, published: str, arxiv: str) -> Row:
    metrics = "parzen parzen_error parzen_fine"
    return Row(f"{settings} metrics=parzen", metrics, published, arxiv)


# The order is the order of the queue: the flagship, then short runs first.
ROWS = {
    "flagship_parzen": Row(
        "experiment=flagship metrics=parzen",
        "parzen parzen_error fid precision recall coverage gan_test gan_train",
        "225 +- 2 (GAN)",
        "1406.2661",
        SEEDS[:3],
    ),
    "superresolution": comparison("superresolution", "l1 l1_input", "1611.07004", epochs=4),
    "inpainting": comparison("inpainting", "l1 l1_input", "1611.07004", epochs=4),
    "lapgan": comparison("lapgan", "fid coverage", "1506.05751", epochs=4),
    "projection": conditional("projection", "1802.05637"),
    "acgan": conditional("acgan", "1610.09585"),
    "cgan": conditional("cgan", "1411.1784"),
    "infogan": Row(
        "experiment=paper_infogan metrics=default", "code_error fid", "0.05", "1606.03657", SEEDS
    ),
    "cgan_parzen": parzen(
        f"{WIDE} family=cgan latent=uniform latent.low=0 lr=2e-4 {CALM} epochs=40",
        "132 +- 1.8",
        "1411.1784",
    ),
    "paper_lsgan": paper("paper_lsgan", "1611.04076"),
    "paper_dragan": paper("paper_dragan", "1705.07215"),
    "paper_wgan": paper("paper_wgan", "1701.07875"),
    "aae_parzen": parzen(
        f"{WIDE} family=aae family.latent.dim=8 model.generator.norm=batch "
        "model.discriminator.norm=batch lr=5e-4 schedule=linear epochs=100",
        "340 +- 2",
        "1511.05644",
    ),
    "gan_parzen": parzen("experiment=paper_gan", "225 +- 2", "1406.2661"),
    "stacked": Row(
        STACKED,
        "stackedmnist_mode_kl stackedmnist_modes",
        "0.06 (PacGAN), 0.029 (R3GAN)",
        "1712.04086",
    ),
    "paper_wgan_gp": paper("paper_wgan_gp", "1704.00028"),
    "paper_r3gan": paper("paper_r3gan", "2501.05441"),
    "paper_sngan": paper("paper_sngan", "1802.05957"),
    # The paper: errors of 10,000 test images, mean of ten samples of labels.
    "few_labels_100": Row(
        "experiment=few_labels metrics=default",
        "test_error_ema test_error",
        "0.0093 +- 0.00065",
        "1606.03498",
        ("family.label_seed=0", "family.label_seed=1"),
    ),
    "bigan": Row(
        "experiment=paper_bigan metrics=default",
        "nn_accuracy_hidden nn_accuracy nn_accuracy_untrained reconstruction_error",
        "0.9739",
        "1605.09782",
    ),
    "dcgan64": paper("dcgan64", "1511.06434"),
}

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LOCAL = Path("logs/reproduce")  # the folder of runs without the queue
QUEUE = Path.home() / "ganmnist-queue"
LAST = "checkpoints/last.ckpt"
NOTES = "reproduce.json"  # in the folder of a run: its settings and its seconds
TICK = 30.0  # seconds between two updates of NOTES
HEAD = """# Published numbers and ours

`python scripts/reproduce.py --queue` trains these rows and writes this page.
[Families](families.md) and [metrics](metrics.md) define the metrics. [reproduction/](reproduction/)
has one file per run, with all metrics, the command, the date, the CPU and the version of PyTorch.

- All numbers are measured at the end of training, never at the best epoch.
- A row with several runs shows the mean +- the standard deviation over all its runs, then the value
  of each run.
- "Trained weights" are those of the last update of G, "EMA weights" their exponential
  moving average.
- Most networks are smaller than those of the papers and train for less time.
- Minutes are the mean of a run on one CPU core. Other processes may have run at the same time.
- Rows marked "earlier settings" are runs of other settings than the current ones of that row.

| row | ours | published | runs | minutes | commit | settings of `ganmnist.train` |
|---|---|---|---|---|---|---|
"""


class Run(NamedTuple):
    """One variant of a row."""

    row: str
    variant: str

    @property
    def id(self) -> str:
        """A file-safe name, such as infogan_seed0 or few_labels_100_label_seed1."""
        parts = [word.partition("=") for word in self.variant.split()]
        settings = [f"{key.rpartition('.')[2]}{value}" for key, _, value in parts]
        return re.sub(r"[^\w.-]+", "-", "_".join([self.row, *settings]))

    @property
    def overrides(self) -> list[str]:
        """The overrides for `ganmnist.train`."""
        own = [*ROWS[self.row].settings.split(), *self.variant.split()]
        keys = {word.partition("=")[0] for word in own}
        return [*(word for word in COMMON if word.partition("=")[0] not in keys), *own]


class RunError(Exception):
    """The run has no result."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    command = parser.add_mutually_exclusive_group()
    for name in ("queue", "status", "pause", "continue"):
        command.add_argument(f"--{name}", action="store_const", const=name, dest="command")
    command.add_argument(
        "--worker", action="store_const", const="worker", dest="command", help=argparse.SUPPRESS
    )
    parser.add_argument("--new-code", action="store_true", help="with --queue")
    parser.add_argument("--folder", type=Path, default=QUEUE, metavar="DIR", help="of the queue")
    parser.add_argument("--docs", type=Path, default=DOCS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := {*arguments.rows} - ROWS.keys():
        parser.error(f"Unknown row {', '.join(sorted(unknown))}. Available: {', '.join(ROWS)}.")
    runs = runs_of(arguments.rows or ROWS)
    folder, docs = arguments.folder.resolve(), arguments.docs.resolve()
    if arguments.command == "queue":
        sys.exit(start_queue(folder, docs, arguments.new_code, arguments.rows))
    elif arguments.command == "worker":
        sys.exit(work(runs, folder, docs))
    elif arguments.command == "status":
        print(status(folder, docs))
    elif arguments.command:
        send(folder, {"pause": signal.SIGSTOP, "continue": signal.SIGCONT}[arguments.command])
    elif arguments.rows:
        sys.exit(train_all(runs, LOCAL.resolve(), docs))
    else:
        write_table(docs)


def runs_of(names: Iterable[str]) -> list[Run]:
    return [Run(name, variant) for name in names for variant in ROWS[name].variants]


def train_all(runs: Sequence[Run], folder: Path, docs: Path) -> int:
    """Trains the runs that are not done; returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    try:
        with lock(folder):
            write(folder / "pid", f"{os.getpgrp()}\n")
            (folder / "running").unlink(missing_ok=True)
            for run in runs:
                if is_done(run, docs):
                    continue
                try:
                    train(run, folder)
                    record(run, folder, docs)
                except (RunError, OSError) as error:
                    print_now(f"{run.id} failed: {error}")
                    failed.append(run.id)
    except BlockingIOError:
        print_now(f"{folder}: another process trains here. Use --status or another --folder.")
        return 2
    except KeyboardInterrupt:
        return 130
    print_now(f"{len(failed)} failed: {', '.join(failed)}" if failed else "All runs are done.")
    return 1 if failed else 0


def train(run: Run, folder: Path) -> None:
    """Trains one run to its end, from its last checkpoint if it has one.

    Raises:
        RunError: the training has failed.
    """
    path = folder / "runs" / run.id
    if path.exists():
        if in_use(path):
            print_now(f"{run.id}: waiting for another process that trains it")
        with lock(path, wait=True):
            pass
    if reason := unusable(path, run):
        set_aside(path, folder, reason)
    if is_finished(path):
        return
    if path.exists():
        overrides = [f"resume=runs/{run.id}"]
    else:
        overrides = [*run.overrides, f"hydra.run.dir=runs/{run.id}"]
        settings = ROWS[run.row].settings
        write_json(path / NOTES, {"settings": settings, "variant": run.variant, "seconds": 0})
    write(folder / "running", run.id)
    print_now(f"{run.id}: ganmnist.train {' '.join(overrides)}")
    try:
        code = execute([sys.executable, "-m", "ganmnist.train", *overrides], folder, path / NOTES)
    finally:
        (folder / "running").unlink(missing_ok=True)
    if code:
        raise RunError(f"exit code {code}")


def unusable(path: Path, run: Run) -> str:
    """The reason why the run cannot use a folder; empty if it can."""
    notes = read_json(path / NOTES)
    if not path.exists():
        return ""
    if not has_settings(notes, run):
        return "other settings"
    if is_finished(path):
        return ""
    if not (path / LAST).exists():
        return "no checkpoint"
    then, now = read_json(path / "env.json").get("git"), commit_of(ROOT)
    then = then and then.partition("+")[0]  # "+changes": uncommitted changes
    return "" if then == now else f"commit {short(then)}, not {short(now)}"


def execute(command: list[str], folder: Path, notes: Path) -> int:
    """Runs a training command with one thread; counts its seconds in `notes`."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),  # before an editable install of another checkout
        "OMP_NUM_THREADS": "1",
        "GANMNIST_DATA": data_folder(),
    }
    process = subprocess.Popen(command, cwd=folder, env=environment, preexec_fn=end_with_parent)
    content = read_json(notes)
    while True:
        began = time.monotonic()
        try:
            return process.wait(TICK)
        except subprocess.TimeoutExpired:
            pass
        except KeyboardInterrupt:
            process.wait()  # it saves a checkpoint
            raise
        finally:
            # A tick that took much longer was a pause.
            content["seconds"] += min(time.monotonic() - began, 2 * TICK)
            with suppress(OSError):  # a full disk
                write_json(notes, content)


def end_with_parent() -> None:
    """Linux: asks for SIGTERM if the parent dies, on which a training saves a checkpoint."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGTERM))


def record(run: Run, folder: Path, docs: Path) -> None:
    """Writes the JSON of a finished run and the table.

    Raises:
        RunError: a file of the run is missing or incomplete.
    """
    path = folder / "runs" / run.id
    summary, env, notes = (read_json(path / n) for n in ("summary.json", "env.json", NOTES))
    if not is_finished(path):
        raise RunError(f"{path}/summary.json: the status is {summary.get('status')}")
    try:
        final = summary["metrics"]["final"]
        result = {
            "command": f"python -m ganmnist.train {' '.join(run.overrides)}",
            "row": run.row,
            "variant": run.variant,
            "settings": notes["settings"],
            "commit": env["git"],
            "date": date.fromtimestamp((path / "summary.json").stat().st_mtime).isoformat(),
            "cpus": env["cpus"],
            "threads": env["threads"],
            "cores": env["cores"],
            "torch": env["packages"]["torch"],
            "minutes": round((notes["seconds"] or summary["seconds"]) / 60, 1),
            "final": rounded(final["raw"]),
        }
        if "ema" in final:
            result["final_ema"] = rounded(final["ema"])
    except KeyError as error:
        raise RunError(f"{path}: the run's files have no {error}") from error
    write_json(docs / f"reproduction/{run.id}.json", result)
    write_table(docs)
    known = {**result["final"], **result.get("final_ema", {})}
    missing = [name for name in ROWS[run.row].metrics.split() if name not in known]
    print_now(f"{run.id} is done: {result['final']}")
    if missing:
        print_now(f"{run.id} has no metric {', '.join(missing)}. Available: {', '.join(known)}.")


def is_finished(path: Path) -> bool:
    return read_json(path / "summary.json").get("status") == "finished"


def is_done(run: Run, docs: Path) -> bool:
    return has_settings(read_json(docs / f"reproduction/{run.id}.json"), run)


def has_settings(content: dict[str, Any], run: Run) -> bool:
    """Whether a JSON has the present settings and the variant of a run."""
    settings = plain(content.get("settings", ""))
    return content.get("variant") == run.variant and settings == plain(ROWS[run.row].settings)


def plain(settings: str) -> list[str]:
    """The settings in a fixed order, without the common ones."""
    return sorted(set(settings.split()) - {*COMMON})


# The queue


def start_queue(folder: Path, docs: Path, new_code: bool, rows: Sequence[str]) -> int:
    """Starts the worker in a process group of its own and waits for it; returns its exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock(folder):
            code = prepare_code(folder, new_code)
    except BlockingIOError:
        print_now(f"{folder}: a queue runs here already. Use --status.")
        return 2
    except subprocess.CalledProcessError as error:
        print_now(f"{folder}/code: {error.stderr.strip()}. Use --new-code.")
        return 2
    script = code / "scripts/reproduce.py"
    args = ["--worker", "--folder", str(folder), "--docs", str(docs), *rows]
    with (folder / "log").open("a") as log:
        worker = subprocess.Popen(
            [sys.executable, str(script), *args],
            cwd=folder,
            env=os.environ | {"GANMNIST_DATA": data_folder()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    print_now(f"The queue runs as process group {worker.pid}. Log: {folder}/log")
    try:
        ended = worker.wait()
    except KeyboardInterrupt:
        print_now(f"The queue keeps running. To end it: kill -- -{worker.pid}")
        return 130
    exit_code = ended if ended >= 0 else 128 - ended  # -9 (a signal) is 137, as in a shell
    print_now(f"The queue ended with exit code {exit_code}. Log: {folder}/log")
    return exit_code


def work(runs: Sequence[Run], folder: Path, docs: Path) -> int:
    """The process of the queue: the leader of a process group, at low priority."""
    if os.getpid() != os.getpgrp():
        os.setsid()
    os.nice(10)
    print_now(f"{date.today()}: the queue starts at commit {short(commit_of(ROOT))}")
    return train_all(runs, folder, docs)


def prepare_code(folder: Path, new: bool) -> Path:
    """DIR/code, a worktree of a fixed commit.

    Raises:
        CalledProcessError: git has failed.
    """
    code, commit = folder / "code", git(ROOT, "rev-parse", "HEAD")
    if git(ROOT, "status", "--porcelain", "--untracked-files=no"):
        print_now("This checkout has uncommitted changes. The queue does not use them.")
    if code.exists() and new:
        try:
            git(ROOT, "worktree", "remove", "--force", str(code))
        except subprocess.CalledProcessError:
            set_aside(code, folder, "not a worktree of this checkout")
    if code.exists():
        kept = git(code, "rev-parse", "HEAD")
        other = "" if kept == commit else f", not {short(commit)}. Use --new-code to change it"
        print_now(f"{code} keeps commit {short(kept)}{other}.")
    else:
        # --force: the same place may be registered from a folder that is gone.
        git(ROOT, "worktree", "add", "--force", "--detach", str(code), commit)
        print_now(f"{code} has commit {short(commit)}.")
    return code


def send(folder: Path, number: signal.Signals) -> None:
    """Sends a signal to all processes of the queue."""
    if not is_running(folder):
        sys.exit(f"{folder}: no queue runs here.")
    group = int((folder / "pid").read_text())
    os.killpg(group, number)
    print_now(f"{number.name} sent to process group {group}.")


def status(folder: Path, docs: Path) -> str:
    """A table of the rows: runs that are done, planned and running."""
    running = ""
    lines = [f"{folder}: no queue runs."]
    if is_running(folder):
        running = read(folder / "running")
        lines = [f"{folder}: process group {read(folder / 'pid').strip()} trains {running}."]
    kept, present = commit_of(folder / "code"), commit_of(ROOT)
    if kept and kept != present:
        lines.append(f"The queue's code is {short(kept)}; the rows below are of {short(present)}.")
    lines += ["", f"{'row':<20} {'done':>4} {'planned':>7}  running"]
    for name in ROWS:
        runs = runs_of([name])
        done = sum(is_done(run, docs) for run in runs)
        now = next((run.id for run in runs if run.id == running), "")
        lines.append(f"{name:<20} {done:>4} {len(runs):>7}  {now}".rstrip())
    return "\n".join(lines)


def is_running(folder: Path) -> bool:
    return (folder / "pid").exists() and in_use(folder)


# The table


def write_table(docs: Path) -> None:
    results = [read_json(file) for file in sorted((docs / "reproduction").glob("*.json"))]
    write(docs / "reproduction.md", table([result for result in results if "row" in result]))


def table(results: Sequence[dict[str, Any]]) -> str:
    """docs/reproduction.md: one line per row and settings."""
    lines, planned = [], []
    for name, row in ROWS.items():
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {(*plain(row.settings),): []}
        for result in (result for result in results if result["row"] == name):
            groups.setdefault((*plain(result["settings"]),), []).append(result)
        present, *earlier = groups.values()
        if present:
            lines.append(line(name, row, present, ""))
        else:
            planned.append(f"`{name}`")
        lines += [line(name, row, group, " (earlier settings)") for group in earlier]
    if planned:
        lines.append(f"\nRows without a result by their present settings: {', '.join(planned)}.\n")
    if others := sorted({f"`{r['row']}`" for r in results if r["row"] not in ROWS}):
        lines.append(f"\nResults of rows that are no longer planned: {', '.join(others)}.\n")
    return HEAD + "".join(lines)


def line(name: str, row: Row, results: list[dict[str, Any]], remark: str) -> str:
    order = [*row.variants, *sorted({result["variant"] for result in results})]
    results = sorted(results, key=lambda result: order.index(result["variant"]))
    weights = {"trained weights": "final", "EMA weights": "final_ema"}
    measured = {
        title: ", ".join(filter(None, (values(key, part, results) for key in row.metrics.split())))
        for title, part in weights.items()
    }
    ours = "<br>".join(f"{title}: {text}" for title, text in measured.items() if text)
    done = len({result["variant"] for result in results} & {*row.variants})
    commits = sorted({short(r["commit"]) for r in results if r["commit"]})
    cells = [
        f"`{name}`{remark}",
        ours,
        f"{row.published} ([{row.paper}](https://arxiv.org/abs/{row.paper}))",
        f"{len(results)}" if remark else f"{done} of {len(row.variants)}",
        f"{fmean(result['minutes'] for result in results):.0f}",
        ", ".join(f"`{commit}`" for commit in commits) or "unknown",
        f"`{results[0]['settings']}`",
    ]
    return f"| {' | '.join(cells)} |\n"


def values(metric: str, part: str, results: Sequence[dict[str, Any]]) -> str:
    """Mean, standard deviation and every single value of a metric."""
    found = [result[part][metric] for result in results if metric in result.get(part, {})]
    numbers = [math.nan if value is None else value for value in found]
    if len(numbers) < 2:
        return f"`{metric}` {numbers[0]:.4g}" if numbers else ""
    singles = ", ".join(f"{value:.4g}" for value in numbers)
    spread = stdev(numbers) if all(map(math.isfinite, numbers)) else math.nan
    return f"`{metric}` {fmean(numbers):.4g} +- {spread:.2g} ({singles})"


# Helpers


def print_now(text: str) -> None:
    print(text, flush=True)


def rounded(metrics: dict[str, float | None]) -> dict[str, float | None]:
    return {name: v if v is None else float(f"{v:.6g}") for name, v in metrics.items()}


def short(commit: str | None) -> str:
    """A commit as 7 digits, with the mark of uncommitted changes."""
    digits, mark, changes = (commit or "unknown").partition("+")
    return f"{digits[:7]}{mark}{changes}"


def data_folder() -> str:
    return str(Path(os.environ.get("GANMNIST_DATA", "data")).resolve())


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit_of(folder: Path) -> str | None:
    try:
        return git(folder, "rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return None


def set_aside(path: Path, folder: Path, reason: str) -> None:
    """Moves a folder to DIR/old."""
    (folder / "old").mkdir(exist_ok=True)
    count, target = 1, folder / "old" / path.name
    while target.exists():
        count += 1
        target = folder / "old" / f"{path.name}_{count}"
    path.rename(target)
    print_now(f"{path.name}: moved to {target} ({reason})")


@contextmanager
def lock(folder: Path, wait: bool = False) -> Iterator[None]:
    """Locks a folder like `ganmnist.train` locks that of a run. A dead process holds no lock.

    Raises:
        BlockingIOError: another process has it.
    """
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(file)


def in_use(folder: Path) -> bool:
    try:
        with lock(folder):
            return False
    except BlockingIOError:
        return True


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file; empty if there is none or if it is damaged."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(file: Path, content: dict[str, Any]) -> None:
    write(file, json.dumps(content, indent=2) + "\n")


def write(file: Path, text: str) -> None:
    """Writes a file atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(file)


if __name__ == "__main__":
    main()
