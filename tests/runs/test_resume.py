"""A resumed run is bit-exact, writes into one folder, and refuses other settings."""

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from helpers.config import settings_of
from helpers.gan import changed, fit, small_gan, snapshot
from helpers.launch import launch
from helpers.runs import TWO_EPOCHS, StopAt

from ganmnist.callbacks import LastCheckpoint
from ganmnist.gan import GAN
from ganmnist.runs import resume
from ganmnist.runs.checkpoints import compared
from ganmnist.runs.config_tree import select
from ganmnist.runs.folders import refuse_links
from ganmnist.runs.typed_settings import TypedSettings
from ganmnist.stabilizers.minibatch_discrimination import MinibatchDiscrimination
from ganmnist.utils.errors import UserError

# The state of training


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize(
    "settings",
    [
        *({}, {"accumulate": 2, "ema": 0.9}, {"d_steps": 2}),
        {"stabilizers": {"initialized from data": MinibatchDiscrimination()}},
    ],
    ids=lambda settings: ", ".join(settings),
)
@pytest.mark.parametrize("chunk", [1, 3])
def test_resume_within_an_epoch_is_bit_exact(
    chunk: int, settings: dict[str, Any], batch: int, tmp_path: Path
) -> None:
    straight, first, second = (small_gan(**settings) for _ in range(3))
    settings = {"batches": 3, "epochs": 3, "chunk": chunk}
    fit(straight, **settings)
    with pytest.raises(SystemExit):
        fit(first, **settings, callbacks=[LastCheckpoint(tmp_path), StopAt(batch)])
    assert first.state.batches_seen >= batch
    fit(second, **settings, ckpt_path=tmp_path / "last.ckpt")
    state = second.state
    assert (state.batches_seen, state.epochs_seen, state.epoch_start) == (9, 3, 9)
    assert changed(snapshot(straight), snapshot(second)) == set()
    one, other = (gan.optimizers()[0].state_dict()["state"] for gan in (straight, second))
    assert all(torch.equal(one[i]["exp_avg_sq"], other[i]["exp_avg_sq"]) for i in one)


def test_checkpoints_are_saved_at_intervals(tmp_path: Path) -> None:
    saved = []

    class Noting(LastCheckpoint):
        def save(self, trainer: L.Trainer, gan: GAN) -> None:
            super().save(trainer, gan)
            saved.append(torch.load(self.path, weights_only=True)["batches_seen"])

    fit(small_gan(), batches=5, epochs=2, callbacks=[Noting(tmp_path, every_n_batches=4)])
    assert saved == [4, 5, 8, 10]
    saved.clear()
    (tmp_path / ".best.ckpt.1.part").touch()  # of a killed process
    fit(small_gan(), batches=3, callbacks=[Noting(tmp_path, every_minutes=1e-9)])
    assert saved == [1, 2, 3, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    for wrong in ({"every_n_batches": 0}, {"every_minutes": -1}):
        with pytest.raises(ValueError, match="checkpoint"):
            LastCheckpoint(tmp_path, **wrong)


@pytest.mark.parametrize("hook", ["setup", "on_fit_start"])  # weights are loaded between them
def test_ctrl_c_before_training_keeps_the_checkpoint(hook: str, tmp_path: Path) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    fit(small_gan(), callbacks=[LastCheckpoint(tmp_path)])
    before = (tmp_path / "last.ckpt").read_bytes()
    settings: dict[str, Any] = {"epochs": 2, "ckpt_path": tmp_path / "last.ckpt"}
    stopping = type("Stopping", (L.Callback,), {hook: stop})()
    with pytest.raises(SystemExit):
        fit(small_gan(), **settings, callbacks=[stopping, LastCheckpoint(tmp_path)])
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_epoch_stopped_at_its_end_ends_again(tmp_path: Path) -> None:
    class AtEnd(L.Callback):
        def on_train_epoch_end(self, *args: Any) -> None:
            ends.append(1)
            if len(ends) == 1:
                raise KeyboardInterrupt

    ends: list[int] = []
    with pytest.raises(SystemExit):
        fit(small_gan(), callbacks=[AtEnd(), LastCheckpoint(tmp_path)])
    gan = small_gan()
    fit(gan, ckpt_path=tmp_path / "last.ckpt", callbacks=[AtEnd()])
    assert (len(ends), gan.state.batches_seen, gan.state.epochs_seen) == (2, 3, 1)


# The settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a killed run."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "logs/a/first"
    (run / "checkpoints").mkdir(parents=True)
    (run / resume.LAST).touch()
    return run


def continued(saved: dict[str, Any], run: Path, *words: str) -> dict[str, Any]:
    """The settings of a run with the saved ones that continues with these words."""
    typed = TypedSettings.parse(words, run)
    return resume.continued_settings(saved, typed, run, run / resume.LAST)


def saved_settings(run: Path, *words: str) -> dict[str, Any]:
    """The settings in the checkpoint of a run with these words."""
    settings = settings_of(f"folder={run}", "data=digits", *words)
    settings["data"]["_target_"] = "ganmnist.data.datasets.Digits"
    return settings


def test_settings_continue_without_any_word(folder: Path) -> None:
    saved = saved_settings(folder, "experiment=flagship", "name=x", "optimizer.d.lr=0.1")
    found = continued(saved, folder)
    assert found["resume"] == str(folder)
    assert found["datamodule"]["dataset"]["_target_"] == "ganmnist.data.datasets.Digits"
    for settings in (saved, found):
        settings["datamodule"].pop("dataset")
    assert found == saved | {"resume": str(folder)}


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["epochs=9"], {"epochs": 9, "trainer.max_epochs": 9}),
        (["print_every=7"], {"print_every": 7, "callbacks.scalars.print_every": 7}),
        (["checkpoint.every_minutes=null"], {"callbacks.checkpoint.every_minutes": None}),
        (["logger=none"], {"logger": {}}),
        (["~callbacks.progress"], {"callbacks.progress": None}),
        (["trainer=gpu"], {"trainer.gpus": 1, "trainer.precision": "32-true"}),
        (["+trainer.detect_anomaly=true"], {"trainer.detect_anomaly": True}),
        (["metrics=parzen"], {"callbacks.evaluation.evaluator.table.parzen.n_validation": 1000}),
        (["metrics.n=100"], {"callbacks.evaluation.evaluator.n": 100}),
        (["data.root=/elsewhere"], {"datamodule.dataset.root": "/elsewhere"}),
        (["callbacks=graphs"], {"callbacks.scalars.print_every": 5}),
        (["experiment=flagship", "lr=0.5"], {"lr": 0.5}),
        (["data=auto", "trainer.precision=auto", "family=gan", "model=dcgan"], {"seed": 0}),
    ],
    ids=str,
)
def test_settings_that_do_not_change_the_training_may_change(
    words: list[str], changes: dict[str, Any], folder: Path
) -> None:
    own = ["print_every=5"] if "experiment=flagship" not in words else words
    found = continued(saved_settings(folder, *own), folder, *words)
    assert {path: select(found, path) for path in changes} == changes


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("lr=0.5", "lr was 0.0002 and is now 0.5"),
        ("objective=hinge", "objective"),
        ("penalty=none", "penalty.r1"),
        ("penalty.r1.gamma=7", "penalty.r1.gamma"),
        ("data=mnist", "MNIST"),
        ("family=infogan", "infogan"),
        ("experiment=report_mlp", "model.generator._target_"),
        ("gan.d_steps=2", "gan.d_steps was 1 and is now 2"),
        ("datamodule.seed=1", "datamodule.seed was 0 and is now 1"),
        ("~penalty.r1", "penalty.r1"),
    ],
)
def test_settings_that_change_the_training_must_not_change(
    words: str, part: str, folder: Path
) -> None:
    saved = saved_settings(folder, "penalty=r1")
    with pytest.raises(UserError) as raised:
        continued(saved, folder, words)
    assert part in str(raised.value)


def test_command_line_of_the_run_may_be_repeated(folder: Path) -> None:
    words = ("experiment=flagship", "lr=0.5", "epochs=7", f"hydra.run.dir={folder}")
    found = continued(saved_settings(folder, *words[:-1]), folder, *words)
    assert (found["lr"], found["epochs"], found["trainer"]["max_epochs"]) == (0.5, 7, 7)


@pytest.mark.parametrize(
    "words", ["epochz=9", "callbacks.samples.cuont=4", "epochs=many", "hydra.run.dir=/elsewhere"]
)
def test_typed_mistakes_are_refused(words: str, folder: Path) -> None:
    with pytest.raises(UserError, match=words.partition("=")[0]):
        continued(saved_settings(folder), folder, words)


def test_paths_move_with_the_folder(folder: Path, tmp_path: Path) -> None:
    saved = saved_settings(tmp_path / "earlier place")
    assert saved["callbacks"]["checkpoint"]["folder"] == f"{tmp_path}/earlier place/checkpoints"
    found = continued(saved, folder)
    assert found["callbacks"]["checkpoint"]["folder"] == f"{folder}/checkpoints"
    assert found["logger"]["csv"]["path"] == f"{folder}/metrics.csv"
    assert "earlier" not in str({**found, "name": ""})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("logger.csv.path", "/elsewhere/metrics.csv"),
        ("logger.csv.path", "{folder}/../metrics.csv"),
        ("callbacks.checkpoint.folder", "elsewhere"),
        ("callbacks.samples.folder", "/"),
        ("metrics.classifier", "/etc/passwd"),
        ("family.latent", {"_target_": "ganmnist.data.Digits", "root": "/elsewhere"}),
    ],
)
def test_paths_outside_of_the_folder_are_not_taken_from_a_file(
    path: str, value: Any, folder: Path
) -> None:
    saved = saved_settings(folder)
    *above, name = path.split(".")
    is_text = isinstance(value, str)
    select(saved, ".".join(above))[name] = value.format(folder=folder) if is_text else value
    with pytest.raises(UserError, match=re.escape(path)):
        continued(saved, folder)


def test_data_folder_is_that_of_today(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = saved_settings(folder, "data.root=/elsewhere")
    monkeypatch.setenv("GANMNIST_DATA", "/here")
    found = continued(saved, folder)
    assert found["data"]["root"] == found["datamodule"]["dataset"]["root"] == "/here"


def test_values_in_a_checkpoint_stay_texts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    saved = saved_settings(folder)
    saved["name"] = "${oc.env:SECRET}"
    saved["callbacks"]["scalars"]["print_every"] = "$\\{oc.env:SECRET\\}"
    assert "hunter2" not in str(continued(saved, folder))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trainer.plugins", []),
        ("trainer.logger", True),
        ("trainer.profiler", "simple"),
        ("trainer.strategy", {"_target_": "os.system"}),
        ("epochs", "many"),
        ("seed", True),
        ("family", "x"),
        ("callbacks", [1]),
        ("folder", None),
        ("name", {1, 2}),
    ],
)
def test_other_settings_are_refused(path: str, value: Any, folder: Path) -> None:
    saved = saved_settings(folder)
    *above, name = path.split(".")
    (select(saved, ".".join(above)) if above else saved)[name] = value
    with pytest.raises(UserError):
        continued(saved, folder)


def test_trainer_and_trusted_modules_are_those_of_today(folder: Path) -> None:
    saved = saved_settings(folder, "trusted_modules=[os]")
    saved["trainer"]["_target_"] = "os.system"
    found = continued(saved, folder)
    assert found["trusted_modules"] == []
    assert found["trainer"]["_target_"] == "ganmnist.runs.hardware.build_trainer"


def test_settings_that_contain_themselves_are_refused(folder: Path) -> None:
    saved = saved_settings(folder)
    saved["metrics"]["again"] = saved
    with pytest.raises(UserError, match=r"last\.ckpt"):
        continued(saved, folder)


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [((2, 1), (4, 1), False), ((2, 1), (0, 2), True), (("auto", 1), (0, 1), True)],
)
def test_number_of_processes_must_not_change_but_the_device_may(
    then: tuple[Any, int], now: tuple[Any, int], same: bool
) -> None:
    one, other = (
        compared({"checksum": "", "trainer": {"gpus": gpus, "devices": devices}})
        for gpus, devices in (then, now)
    )
    assert (one == other) == same


# The folder


def test_auto_is_the_newest_unfinished_run(folder: Path) -> None:
    other = folder.with_name("second")
    (other / "checkpoints").mkdir(parents=True)
    (other / resume.LAST).touch()
    os.utime(folder / resume.LAST, (0, 0))
    assert resume.find("auto") == other
    for damaged in ("[]", "{", '"finished"', "[" * 100_000):
        (other / "summary.json").write_text(damaged)
        assert resume.find("auto") == other
    (other / "summary.json").write_text(json.dumps({"status": "finished"}))
    assert resume.find("auto") == folder
    (folder / "summary.json").write_text(json.dumps({"status": "finished"}))
    with pytest.raises(UserError, match="resume=auto"):
        resume.find("auto")
    with pytest.raises(UserError, match="resume=elsewhere"):
        resume.find("elsewhere")


def test_auto_is_refused_for_processes_of_a_launcher(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="resume=auto"):
        resume.find("auto")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_impossible_folder_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="resume="):
        resume.find(name)


def test_folder_without_a_checkpoint_is_refused(folder: Path) -> None:
    (folder / resume.LAST).unlink()
    with pytest.raises(UserError, match=r"checkpoints/last\.ckpt"):
        resume.read(folder)


@pytest.mark.parametrize("kind", ["file", "folder", "hard link", "pipe"])
def test_folder_with_links_is_refused(kind: str, folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    link = folder / "samples"
    if kind == "folder":
        victim.mkdir()
        link.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(link)
    else:
        victim.touch()
        link.hardlink_to(victim) if kind == "hard link" else link.symlink_to(victim)
    with pytest.raises(UserError, match="samples"):
        refuse_links(folder)


# The whole


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """The folder of `two`, which its tests change."""
    folder = tmp_path_factory.mktemp("originals")
    stop = "+callbacks.stop={_target_: helpers.runs.StopAfter, batch: 10}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANMNIST_DATA", str(digits_root))
        launch(*TWO_EPOCHS, f"hydra.run.dir={folder / 'straight'}")
        with pytest.raises(SystemExit):
            launch(*TWO_EPOCHS, stop, f"hydra.run.dir={folder / 'broken'}")
    return folder


@pytest.fixture
def two(
    originals: Path, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A finished run, and one that was stopped within its second epoch."""
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    return tmp_path / "straight", tmp_path / "broken"


def again(folder: Path, *overrides: str) -> None:
    launch(f"resume={folder}", "~callbacks.stop", *overrides)


def files(folder: Path) -> dict[Path, bytes]:
    """All files but the log, which also has the refusals."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    return {path: path.read_bytes() for path in paths}


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        found = [*csv.DictReader(file)]
    return [{k: v for k, v in row.items() if v and "images_per_s" not in k} for row in found]


def test_resumed_run_writes_the_same_files(
    two: tuple[Path, Path],
) -> None:
    straight, broken = two
    again(broken)
    assert rows(broken) == rows(straight)
    for name in ("progress.gif", "epochs.png"):
        assert (broken / name).read_bytes() == (straight / name).read_bytes()
    weights = [torch.load(run / resume.LAST, weights_only=True)["state_dict"] for run in two]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    one, other = (json.loads((run / "summary.json").read_text()) for run in two)
    assert other["status"] == "finished"
    assert one["metrics"]["final"] == other["metrics"]["final"]


def test_settings_that_change_the_training_are_refused(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    straight, broken = two
    for words, part in (
        ((broken, "lr=0.5"), "lr was 0.0002 and is now 0.5"),
        ((broken, "seed=1"), "seed was 0 and is now 1"),
        ((broken, "datamodule.seed=1"), "datamodule.seed was 0 and is now 1"),
        ((broken, "datamodule.batch_size=8"), "batch_size"),
        ((broken, "epochs=1"), "epochs=2"),
        ((broken, "callbacks.evaluation.monitor=fid"), "fid"),
        ((broken, "metrics=plane"), "plane"),
        ((straight, "callbacks=plane", "epochs=3"), "digits"),
        ((straight,), "epochs=4"),
    ):
        before = files(words[0])
        with pytest.raises(SystemExit) as leaving:
            again(*words) if words[0] is broken else launch(f"resume={straight}", *words[1:])
        assert leaving.value.code == 2
        assert part in capsys.readouterr().err
        assert before.items() <= files(words[0]).items()


def test_other_images_are_refused(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ganmnist.data.datasets.digest", lambda *parts: "another checksum")
    with pytest.raises(SystemExit) as leaving:
        again(two[1])
    assert leaving.value.code == 2
    assert "another checksum" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("samples/fake_000003.png", b""),
        ("samples/epoch_001.png", b"\0" * 99),
        ("metrics.csv", b""),
        ("metrics.csv", b"\0" * 99),
    ],
)
def test_resume_accepts_files_damaged_by_a_power_failure(
    two: tuple[Path, Path], name: str, content: bytes
) -> None:
    broken = two[1]
    (broken / name).write_bytes(content)
    again(broken)
    assert json.loads((broken / "summary.json").read_text())["status"] == "finished"
    straight, other = (torch.load(run / resume.LAST, weights_only=True) for run in two)
    assert changed(straight["state_dict"], other["state_dict"]) == set()


def test_run_stopped_in_its_last_evaluation_repeats_it(two: tuple[Path, Path]) -> None:
    straight, _ = two
    before = json.loads((straight / "summary.json").read_text())
    table = rows(straight)
    (straight / "summary.json").unlink()
    launch(f"resume={straight}")
    after = json.loads((straight / "summary.json").read_text())
    assert after["metrics"]["final"] == before["metrics"]["final"]
    assert rows(straight) == table


def test_finished_run_continues_with_more_epochs(two: tuple[Path, Path]) -> None:
    straight, _ = two
    launch(f"resume={straight}", "epochs=3")
    summary = json.loads((straight / "summary.json").read_text())
    assert (summary["epochs"], summary["status"]) == (3, "finished")
    assert [int(row["epoch"]) for row in rows(straight) if "epoch" in row] == [1, 2, 3]
    config = yaml.safe_load((straight / "config.yaml").read_text())
    assert (config["epochs"], config["trainer"]["max_epochs"]) == (3, 3)
