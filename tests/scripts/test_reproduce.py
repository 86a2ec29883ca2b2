"""scripts/reproduce.py: the rows, the JSON of a run, the table and the queue."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.config import configuration
from helpers.paths import CHECKOUT
from omegaconf import OmegaConf

sys.path.insert(0, str(CHECKOUT / "scripts"))
SCRIPT = importlib.import_module("reproduce")
sys.path.pop(0)

COMMIT = "c" * 40
SEEDS = ("seed=0", "seed=1", "seed=2")
EARLIER = {
    **{"commit": None, "minutes": 4.0, "final": {"fid": 9.0}},
    **{"row": "slow", "variant": "seed=0", "settings": "epochs=1"},
}


@pytest.fixture
def reproduce(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with two rows, and folders of its own."""
    rows = {
        "quick": SCRIPT.Row("family=gan epochs=1", "fid", "1.0", "0000.00001", SEEDS),
        "slow": SCRIPT.Row("family=bigan epochs=9", "fid l1", "2.0", "0000.00002"),
    }
    monkeypatch.setattr(SCRIPT, "ROWS", rows)
    monkeypatch.setattr(SCRIPT, "LOCAL", tmp_path / "local")
    monkeypatch.setattr(SCRIPT, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(SCRIPT, "commit_of", lambda folder: COMMIT)
    return SCRIPT


class Training:
    """Takes the place of the training command: writes the files of a run, or fails."""

    def __init__(self) -> None:
        self.overrides: list[list[str]] = []
        self.codes: dict[str, int] = {}  # exit codes by run; 0 if not given
        self.killed: set[str] = set()  # runs that end with the process after a checkpoint
        self.commit = COMMIT

    def __call__(self, command: list[str], folder: Path, notes: Path) -> int:
        self.overrides.append(command[3:])
        run = notes.parent
        env = {"git": self.commit, "cpus": ["A", "B"], "threads": 1, "cores": 2}
        write(run / "env.json", {**env, "packages": {"torch": "2.14.1"}})
        (run / "checkpoints").mkdir(exist_ok=True)
        (run / "checkpoints/last.ckpt").touch()
        if run.name in self.killed:
            raise KeyboardInterrupt
        if code := self.codes.get(run.name, 0):
            return code
        fid = float(len(self.overrides))
        final = {"epoch": 1, "raw": {"fid": fid, "l1": None}, "ema": {"fid": fid / 2}}
        write(run / "summary.json", {**FINISHED, "metrics": {"final": final}})
        return 0

    @property
    def runs(self) -> list[str]:
        """The runs that were trained, with a mark on those that were resumed."""
        paths = [overrides[-1].rpartition("/")[2] for overrides in self.overrides]
        resumed = [overrides[0].startswith("resume=") for overrides in self.overrides]
        return [f"{name}+" if again else name for name, again in zip(paths, resumed, strict=True)]


FINISHED = {"status": "finished", "seconds": 120.0}


@pytest.fixture
def training(reproduce: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Training:
    training = Training()
    monkeypatch.setattr(reproduce, "execute", training)
    return training


@pytest.fixture
def call(reproduce: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line; returns the exit code."""

    def call(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["reproduce", *map(str, words)])
        try:
            reproduce.main()
        except SystemExit as ended:
            return ended.code
        return 0

    return call


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def read(file: Path) -> Any:
    return json.loads(file.read_text())


@pytest.mark.parametrize("run", SCRIPT.runs_of(SCRIPT.ROWS), ids=lambda run: run.id)
def test_settings_of_every_run_compose(run: Any) -> None:
    config = configuration("folder=here", *run.overrides)
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert settings["trainer"]["precision"] == "32-true"
    assert settings["trainer"]["accelerator"] == "cpu"
    assert SCRIPT.ROWS[run.row].metrics.split()


def test_ids_are_unique_and_file_safe() -> None:
    ids = [run.id for run in SCRIPT.runs_of(SCRIPT.ROWS)]
    assert len({*ids}) == len(ids)
    assert SCRIPT.Run("few", "family.label_seed=1 seed=2").id == "few_label_seed1_seed2"
    assert SCRIPT.Run("few", "data.root=/a/b c=[1,2]").id == "few_root-a-b_c-1-2-"


def test_settings_of_a_row_replace_common_ones(
    reproduce: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["data=mnist", "trainer.precision=32-true", "trainer=cpu"]
    assert reproduce.Run("slow", "seed=0").overrides == [
        *(*common, "family=bigan", "epochs=9", "seed=0")
    ]
    row = reproduce.Row("data=stacked_mnist", "fid", "1", "0000.0")
    monkeypatch.setitem(reproduce.ROWS, "slow", row)
    assert reproduce.Run("slow", "seed=0").overrides == [
        *common[1:],
        "data=stacked_mnist",
        "seed=0",
    ]


def test_row_trains_and_records_its_missing_runs(
    reproduce: ModuleType, training: Training, call: Callable[..., int]
) -> None:
    assert call("quick") == 0
    assert training.runs == ["quick_seed0", "quick_seed1", "quick_seed2"]
    assert training.overrides[1] == [
        *("data=mnist", "trainer.precision=32-true", "trainer=cpu", "family=gan", "epochs=1"),
        *("seed=1", "hydra.run.dir=runs/quick_seed1"),
    ]
    result = read(reproduce.DOCS / "reproduction/quick_seed1.json")
    del result["date"]
    assert result == {
        "command": f"python -m ganmnist.train {' '.join(training.overrides[1][:-1])}",
        **{"row": "quick", "variant": "seed=1", "settings": "family=gan epochs=1"},
        **{"commit": COMMIT, "cpus": ["A", "B"], "threads": 1, "cores": 2, "torch": "2.14.1"},
        **{"minutes": 2.0, "final": {"fid": 2.0, "l1": None}, "final_ema": {"fid": 1.0}},
    }
    assert call("quick") == 0
    assert len(training.overrides) == 3


def test_table_has_every_value(
    reproduce: ModuleType, training: Training, call: Callable[..., int]
) -> None:
    call("quick")
    write(reproduce.DOCS / "reproduction/slow_seed0.json", EARLIER)
    assert call() == 0  # rebuilds the table
    table = (reproduce.DOCS / "reproduction.md").read_text()
    quick = next(line for line in table.splitlines() if line.startswith("| `quick`"))
    assert "trained weights: `fid` 2 +- 1 (1, 2, 3)" in quick
    assert "EMA weights: `fid` 1 +- 0.5 (0.5, 1, 1.5)" in quick
    assert "1.0 ([0000.00001](https://arxiv.org/abs/0000.00001))" in quick
    assert "| 3 of 3 | 2 | `ccccccc` | `family=gan epochs=1` |" in quick
    slow = next(line for line in table.splitlines() if line.startswith("| `slow`"))
    assert "earlier settings" in slow
    assert "`fid` 9 |" in slow
    assert "`epochs=1` |" in slow
    assert table.splitlines()[-1].endswith("`slow`.")  # planned by its present settings


def test_metric_that_is_not_finite_stays_in_the_table(reproduce: ModuleType) -> None:
    results = [{**EARLIER, "final": {"fid": value}} for value in (1.0, None)]
    assert reproduce.values("fid", "final", results) == "`fid` nan +- nan (1, nan)"
    assert reproduce.values("fid", "final_ema", results) == ""


@pytest.mark.parametrize(
    ("settings", "variant", "trained"),
    [
        ("family=bigan epochs=9", "seed=0", False),
        ("trainer=cpu epochs=9 family=bigan", "seed=0", False),  # the same in other words
        ("family=bigan epochs=8", "seed=0", True),
        ("family=bigan epochs=9", "seed=1", True),
    ],
)
def test_run_is_done_if_its_settings_are_equal(
    settings: str,
    variant: str,
    trained: bool,
    reproduce: ModuleType,
    training: Training,
    call: Callable[..., int],
) -> None:
    file = reproduce.DOCS / "reproduction/slow_seed0.json"
    write(file, {**EARLIER, "settings": settings, "variant": variant})
    assert call("slow") == 0
    assert training.runs == ["slow_seed0"] * trained
    assert plain(read(file)["settings"]) == plain("family=bigan epochs=9 trainer=cpu")


def plain(settings: str) -> set[str]:
    return {*settings.split(), "trainer=cpu"}


def test_finished_run_without_json_is_only_recorded(
    reproduce: ModuleType, training: Training, call: Callable[..., int]
) -> None:
    call("slow")
    file = reproduce.DOCS / "reproduction/slow_seed0.json"
    first = file.read_text()
    file.unlink()
    assert call("slow") == 0
    assert (training.runs, file.read_text()) == (["slow_seed0"], first)


def test_interrupted_run_is_resumed(
    reproduce: ModuleType, training: Training, call: Callable[..., int]
) -> None:
    training.killed = {"quick_seed1"}
    assert call("quick") == 130
    assert training.runs == ["quick_seed0", "quick_seed1"]
    training.killed = set()
    assert call("quick") == 0
    assert training.runs[2:] == ["quick_seed1+", "quick_seed2"]
    assert training.overrides[2] == ["resume=runs/quick_seed1"]


@pytest.mark.parametrize("change", ["commit", "settings", "checkpoint", "notes"])
def test_unfinished_run_of_other_settings_is_set_aside(
    change: str,
    reproduce: ModuleType,
    training: Training,
    call: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training.killed = {"slow_seed0"}
    call("slow")
    folder = reproduce.LOCAL / "runs/slow_seed0"
    if change == "commit":
        monkeypatch.setattr(reproduce, "commit_of", lambda folder: "d" * 40)
    elif change == "settings":
        row = reproduce.ROWS["slow"]._replace(settings="family=gan epochs=2")
        monkeypatch.setitem(reproduce.ROWS, "slow", row)
    elif change == "checkpoint":
        (folder / "checkpoints/last.ckpt").unlink()
    else:
        (folder / "reproduce.json").write_text("{")
    assert call("slow") == 130
    assert call("slow") == 130
    assert training.runs[:2] == ["slow_seed0"] * 2
    assert (reproduce.LOCAL / "old/slow_seed0/env.json").is_file()


def test_failure_does_not_stop_the_others(
    reproduce: ModuleType,
    training: Training,
    call: Callable[..., int],
    capsys: pytest.CaptureFixture,
) -> None:
    training.codes = {"quick_seed0": 2}
    assert call("quick", "slow") == 1
    assert training.runs == ["quick_seed0", "quick_seed1", "quick_seed2", "slow_seed0"]
    assert capsys.readouterr().out.splitlines()[-1] == "1 failed: quick_seed0"
    done = {file.stem for file in (reproduce.DOCS / "reproduction").iterdir()}
    assert done == {"quick_seed1", "quick_seed2", "slow_seed0"}


def test_run_without_final_metrics_fails(
    reproduce: ModuleType, call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(command: list[str], folder: Path, notes: Path) -> int:
        write(notes.with_name("summary.json"), {**FINISHED, "metrics": {}})
        return 0

    monkeypatch.setattr(reproduce, "execute", execute)
    assert call("slow") == 1
    assert not (reproduce.DOCS / "reproduction").exists()


def test_unknown_rows_are_refused(call: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    assert call("gpt") == 2
    assert "Unknown row gpt. Available: quick, slow." in capsys.readouterr().err


def test_status_counts_the_runs(
    training: Training,
    call: Callable[..., int],
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
) -> None:
    training.codes = {"quick_seed1": 2}
    call("quick")
    capsys.readouterr()
    assert call("--status", "--folder", tmp_path) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[-3:] == [
        ["row", "done", "planned", "running"],
        ["quick", "2", "3"],
        ["slow", "0", "1"],
    ]
    assert "no queue runs here" in str(call("--pause", "--folder", tmp_path))


def test_files_of_the_repository_have_the_names_of_their_runs() -> None:
    for file in (SCRIPT.DOCS / "reproduction").glob("*.json"):
        result = read(file)
        assert file.stem == SCRIPT.Run(result["row"], result["variant"]).id


# The queue with real processes, in a repository whose `ganmnist.train` is FAKE.

FAKE = """
import json, os, signal, sys
from pathlib import Path

folder = Path(next(w for w in sys.argv[1:] if "runs/" in w).partition("=")[2])
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
git = os.popen(f"git -C {Path(__file__).parent} rev-parse HEAD").read().strip()
env = {"git": git, "cpus": ["A"], "threads": int(os.environ["OMP_NUM_THREADS"]), "cores": 1}
(folder / "env.json").write_text(json.dumps({**env, "packages": {"torch": "2"}}))
(folder / "checkpoints/last.ckpt").touch()
if folder.name == "slow_seed0":
    if not sys.argv[1].startswith("resume="):
        signal.signal(signal.SIGTERM, lambda *a: (Path("saved").touch(), sys.exit(130)))
        Path("started").open("w").write("x")  # a FIFO: the test waits for it
        while True:
            signal.pause()
final = {"raw": {"fid": 1.0, "nice": os.nice(0)}}
summary = {"status": "finished", "seconds": 60, "metrics": {"final": final}}
(folder / "summary.json").write_text(json.dumps(summary))
"""
ROWS = """ROWS = {
    "slow": Row("epochs=9", "fid", "1", "0000.0"),
    "quick": Row("epochs=1", "fid", "1", "0000.0", ("seed=0", "seed=1")),
}

ROOT ="""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "src/ganmnist").mkdir(parents=True)
    (root / "scripts").mkdir()
    (root / "src/ganmnist/__init__.py").touch()
    (root / "src/ganmnist/train.py").write_text(FAKE)
    text = (CHECKOUT / "scripts/reproduce.py").read_text()
    (root / "scripts/reproduce.py").write_text(text.replace("ROOT =", ROWS, 1))
    git(root, "init", "-q")
    commit(root)
    return root


def git(root: Path, *words: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(root), *own, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path) -> str:
    git(root, "add", "scripts", "src")
    git(root, "commit", "-q", "--allow-empty", "-m", "x")
    return git(root, "rev-parse", "HEAD")


class Queue:
    """The script of a repository, and the folder of its queue."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.script = repository / "scripts/reproduce.py"
        self.folder = folder
        folder.mkdir()
        os.mkfifo(folder / "started")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(self.script), *words, "--folder", str(self.folder)]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60)

    def start(self) -> subprocess.Popen:
        """Starts the queue and waits until its first run has a checkpoint."""
        launcher = subprocess.Popen(self.command("--queue"), stdout=subprocess.DEVNULL)
        (self.folder / "started").read_text()
        return launcher

    @property
    def group(self) -> int:
        return int((self.folder / "pid").read_text())


@pytest.fixture
def queue(repository: Path, tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(repository, tmp_path / "queue")
    yield queue
    if queue.call("--status").stdout.find("no queue runs") < 0:
        os.killpg(queue.group, signal.SIGKILL)


@pytest.mark.parametrize("group", [False, True], ids=["worker", "group"])
def test_killed_queue_continues_at_its_commit(group: bool, queue: Queue, repository: Path) -> None:
    first = git(repository, "rev-parse", "HEAD")
    launcher = queue.start()
    status = queue.call("--status").stdout
    assert f"process group {queue.group} trains slow_seed0" in status
    assert queue.call("--queue").returncode == 2  # one queue at a time
    (os.killpg if group else os.kill)(queue.group, signal.SIGKILL)
    assert launcher.wait(60) == 128 + signal.SIGKILL

    (repository / "src/ganmnist/train.py").write_text("raise SystemExit(3)")
    commit(repository)
    assert queue.call("--queue").returncode == 0
    results = {f.stem: read(f) for f in (repository / "docs/reproduction").iterdir()}
    assert {*results} == {"slow_seed0", "quick_seed0", "quick_seed1"}
    nice = min(os.nice(0) + 10, 19)
    for result in results.values():
        assert (result["commit"], result["threads"], result["final"]["nice"]) == (first, 1, nice)
    assert "resume=runs/slow_seed0" in (queue.folder / "log").read_text()
    assert "3 0" not in queue.call("--status").stdout
    if not group and sys.platform == "linux":
        assert (queue.folder / "saved").exists()  # the training outlives no worker


def test_pause_and_continue(queue: Queue) -> None:
    launcher = queue.start()
    assert queue.call("--pause").returncode == 0
    assert states(queue.group) == {"T"}
    assert queue.call("--continue").returncode == 0
    assert "T" not in states(queue.group)
    os.killpg(queue.group, signal.SIGTERM)
    assert launcher.wait(60) == 128 + signal.SIGTERM


def states(group: int) -> set[str]:
    """The states of the processes of a group."""
    if shutil.which("ps") is None:
        pytest.skip("needs ps")
    lines = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True).stdout
    words = [line.split() for line in lines.splitlines()]
    return {state[0] for number, state in words if int(number) == group} - {"Z"}


def test_new_code_replaces_the_worktree(queue: Queue, repository: Path) -> None:
    launcher = queue.start()
    os.killpg(queue.group, signal.SIGKILL)
    launcher.wait(60)
    train = repository / "src/ganmnist/train.py"
    train.write_text(FAKE.replace("signal.pause()", "break"))
    second = commit(repository)
    reader = subprocess.Popen(["cat", str(queue.folder / "started")], stdout=subprocess.DEVNULL)
    assert queue.call("--queue", "--new-code").returncode == 0
    assert reader.wait(60) == 0
    assert (queue.folder / "old/slow_seed0/checkpoints/last.ckpt").exists()
    assert read(repository / "docs/reproduction/slow_seed0.json")["commit"] == second

    shutil.rmtree(queue.folder / "code")  # the worktree is still registered
    assert queue.call("--queue").returncode == 0
    shutil.rmtree(repository / ".git/worktrees")  # a new clone
    refused = queue.call("--queue")
    assert (refused.returncode, "--new-code" in refused.stdout) == (2, True)
    assert queue.call("--queue", "--new-code").returncode == 0
