"""A run folder of somebody else executes nothing, and is refused in one sentence."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.launch import launch

from ganmnist.commands.report import main as draw_report
from ganmnist.runs import resume
from ganmnist.runs.config_tree import select
from ganmnist.runs.loading import read_checkpoint
from ganmnist.utils.errors import UserError

pytestmark = pytest.mark.no_cover  # compositions take twice as long with coverage
Content = dict[str, Any]


@pytest.fixture
def run(trained: Path, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run. The current folder has a module that must not be imported."""
    run = tmp_path / "logs/received"
    shutil.copytree(trained, run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    code = "import pathlib\npathlib.Path('pwned').touch()\nclass Thing: ...\n"
    (tmp_path / "evil.py").write_text(code)
    return run


def change(run: Path, function: Callable[[Content], None]) -> None:
    """Changes the content of last.ckpt."""
    content = torch.load(run / resume.LAST, weights_only=True)
    function(content)
    torch.save(content, run / resume.LAST)


def files(folder: Path) -> dict[Path, bytes]:
    """The files of a folder, but for the log, which has the refusal."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    return {path: path.read_bytes() for path in paths if "__pycache__" not in path.parts}


def refused(run: Path, capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """Resumes the run for another epoch, which must be refused. Returns the message."""
    before = files(run.parents[1])
    with pytest.raises(SystemExit) as leaving:
        launch(f"resume={run}", "epochs=2", *words)
    out, message = capfd.readouterr()
    assert leaving.value.code == 2
    assert "Traceback" not in out + message
    assert message.startswith("ganmnist: ")
    assert files(run.parents[1]) == before
    return message


EVIL = (
    "os.system",
    "evil.Thing",
    "torch.load",
    "ganmnist.runs.folders.create_unique",
    "builtins.eval",
)


@pytest.mark.parametrize("target", EVIL)
@pytest.mark.parametrize("part", ["callbacks", "logger", "family", "datamodule", "metrics"])
def test_other_classes_are_not_called(
    part: str, target: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    node = {"_target_": target, "command": "touch pwned", "path": "pwned"}

    def attack(content: Content) -> None:
        place = "dataset" if part == "datamodule" else "x"
        content["hyper_parameters"][part][place] = node
        content["hyper_parameters"]["data"] |= node if part == "datamodule" else {}

    change(run, attack)
    assert target in refused(run, capfd)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("callbacks.samples.sample_every", 0),
        ("callbacks.scalars.log_every", 0),
        ("callbacks.evaluation.every_epochs", -1),
        ("callbacks.checkpoint.every_n_batches", 0),
        ("callbacks.x", {"_target_": "ganmnist.networks.latents.Labels", "n_classes": 10}),
        ("logger.x", {"_target_": "ganmnist.networks.latents.Labels", "n_classes": 10}),
        ("family", {"_target_": "ganmnist.networks.latents.Labels", "n_classes": 10}),
    ],
    ids=str,
)
def test_wrong_values_are_refused(
    path: str, value: Any, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def attack(content: Content) -> None:
        *above, name = path.split(".")
        settings = content["hyper_parameters"]
        (select(settings, ".".join(above)) if above else settings)[name] = value

    change(run, attack)
    refused(run, capfd)


@pytest.mark.parametrize("command", ["train", "report"])
def test_links_are_refused_before_anything_is_written(
    command: str, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (run / "train.log").unlink(missing_ok=True)
    (run / "train.log").symlink_to(victim)
    with pytest.raises(SystemExit):
        launch(f"resume={run}", "epochs=2") if command == "train" else draw_report([f"run={run}"])
    assert "train.log" in capfd.readouterr().err
    assert victim.read_text() == "mine"


def test_folder_name_with_a_line_break_is_refused(run: Path) -> None:
    folder = run.with_name("a\nb")
    run.rename(folder)
    with pytest.raises(UserError):
        resume.find(str(folder))


@pytest.mark.parametrize("key", ["_args_", "_recursive_", "_convert_"])
def test_special_keys_of_hydra_are_refused(
    key: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def attack(content: Content) -> None:
        content["hyper_parameters"]["logger"]["csv"][key] = [str(run.parent / "victim.csv")]

    change(run, attack)
    assert key in refused(run, capfd)


def moments(content: Content) -> None:
    for state in content["optimizer_states"][0]["state"].values():
        state["exp_avg"] = torch.zeros(1)


def of_other_type(content: Content) -> None:
    for state in content["optimizer_states"][0]["state"].values():
        state["exp_avg_sq"] = state["exp_avg_sq"].double()


def expanded(content: Content) -> None:
    """Fused optimizers write past the one number that these tensors have."""
    for state in content["optimizer_states"][0]["state"].values():
        state["exp_avg"] = torch.ones(1).expand(state["exp_avg"].shape)


def of_no_device(content: Content) -> None:
    for state in content["optimizer_states"][0]["state"].values():
        state["exp_avg"] = state["exp_avg"].to("meta")


@pytest.mark.parametrize(
    "attack",
    [
        moments,
        of_other_type,
        expanded,
        of_no_device,
        lambda content: content["callbacks"]["Health"].update(constant={"d": [1]}),
        lambda content: content.update({"pytorch-lightning_version": "1.0.0"}),
        lambda content: content.pop("epoch"),
        lambda content: content["hyper_parameters"].update(batch_size=10**400),
        lambda content: content["hyper_parameters"].update(name="\ud800"),
        lambda content: content.update(optimizer_states=[]),
        lambda content: content.update(optimizer_states={"a": 1}),
        lambda content: content.pop("optimizer_states"),
        lambda content: content["optimizer_states"][1].pop("state"),
        lambda content: content["optimizer_states"][1]["param_groups"][0].pop("lr"),
        lambda content: content["optimizer_states"][1]["param_groups"][0].update(params=[0]),
        lambda content: content["optimizer_states"][1]["param_groups"][0].update(fused=False),
        lambda content: content["optimizer_states"][1]["param_groups"].append({}),
        lambda content: content.pop("lr_schedulers"),
        lambda content: content.update(lr_schedulers=[{"a": 1}]),
        lambda content: content.update(loops={"a": 1}),
        lambda content: content.update(callbacks={"Evaluation": {"x": 1}}),
        lambda content: content.update(callbacks={"Health": {"warned": 1}}),
        lambda content: content.update(callbacks=None),
        lambda content: content.update(epoch_start=10**6),
        lambda content: content.update(batches_seen=-2),
        lambda content: content.update(epochs_seen="one"),
        lambda content: content.update(epochs_seen=0),
        lambda content: content.update(microbatches=[[1]]),
        lambda content: content.update(microbatches=[[torch.zeros(2, 2), None, None]]),
        lambda content: content.update(state_dict={}),
        lambda content: content["state_dict"].update(more=torch.zeros(1)),
        lambda content: content.update(hyper_parameters=[]),
        lambda content: content.update(hyper_parameters={}),
        lambda content: content.update({"pytorch-lightning_version": "?"}),
        lambda content: content["hyper_parameters"]["family"]["generator"].update(
            widths=[10**6, 10**6]
        ),
        lambda content: content["hyper_parameters"]["family"]["latent"].update(dim=10**12),
    ],
)
def test_state_that_does_not_fit_is_refused(
    attack: Callable[[Content], None], run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(run, attack)
    assert "last.ckpt" in refused(run, capfd)


def png(width: int, height: int) -> bytes:
    """A PNG file that claims a size and has no pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("samples/fake_000000.png", png(50_000, 50_000)),
        ("samples/epoch_001.png", png(8, 8)),
        ("samples/epoch_001.png", b"\x89PNG\r\n\x1a\n" + b"x" * 99),
        ("samples/other.png", b"root:x:0:0"),
        ("metrics.csv", b"step,a\n1," + b"9" * 200_000 + b"\n"),
        ("metrics.csv", b"step,epoch,a\n1e999,1,2\nnan,1,2\nx,y,z\n1,1,\xff\n"),
        ("summary.json", b"[]"),
        ("summary.json", b"[" * 100_000),
        ("env.json", b'{"cpus": 1, "command": 7}'),
        ("config.yaml", b"a: &a [x]\nb: [*a, *a]\n"),
        (".hydra/overrides.yaml", b"{"),
    ],
    ids=str,
)
def test_other_files_that_do_not_fit_are_left_out(name: str, content: bytes, run: Path) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(content)
    launch(f"resume={run}", "epochs=2")
    assert resume.finished(run)
    assert "root:x" not in (run / "report.html").read_text()
    assert read_checkpoint(run / resume.LAST)["epochs_seen"] == 2


def test_values_are_not_resolved(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")

    def attack(content: Content) -> None:
        content["hyper_parameters"]["name"] = "${oc.env:TOKEN}"
        content["hyper_parameters"]["family"]["generator"]["slope"] = 0.2

    change(run, attack)
    launch(f"resume={run}", "epochs=2")
    found = [path for path, content in files(run).items() if b"hunter2" in content]
    assert found == []


def test_missing_report_of_a_finished_run_is_written(run: Path) -> None:
    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    before = (run / resume.LAST).read_bytes()
    launch(f"resume={run}")
    assert (run / "report.html").read_bytes() == page
    assert (run / resume.LAST).read_bytes() == before


def test_run_continues_from_its_checkpoint_alone(run: Path) -> None:
    for path in run.iterdir():
        if path.name != "checkpoints":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    launch(f"resume={run}", "epochs=2")
    assert resume.finished(run)


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", ""])
def test_name_is_that_of_one_folder(
    name: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        launch(f"name={name}", "epochs=1")
    assert "name=" in capfd.readouterr().err

    def attack(content: Content) -> None:
        content["hyper_parameters"]["name"] = name

    change(run, attack)
    refused(run, capfd)
    assert not (run.parents[2] / "x").exists()


def test_damaged_checkpoint_is_refused(run: Path) -> None:
    (run / resume.LAST).write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match=r"last\.ckpt"):
        resume.read(run)
