"""Runs that go on where they were broken off: to the last bit, in one folder, or not at all."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import changed, fit, small_gan
from launch import launch
from test_gan import assert_same_bits
from test_run import FEW

from ganmnist import resume
from ganmnist.callbacks import LastCheckpoint
from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.loggers import MetricsCSV
from ganmnist.networks.stabilizers import MinibatchDiscrimination


class StopAt(L.Callback):
    """Ctrl-C once so many batches have been seen."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: L.Trainer, gan: GAN, *args: Any) -> None:
        if gan.batches_seen >= self.batch:
            raise KeyboardInterrupt


class StopAfter(StopAt):
    """The same, when the others have seen the batch too."""

    def on_train_batch_start(self, trainer: L.Trainer, gan: GAN, *args: Any) -> None:
        super().on_train_batch_end(trainer, gan)

    def on_train_batch_end(self, trainer: L.Trainer, gan: GAN, *args: Any) -> None: ...


# The state of training


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize(
    "settings",
    [
        *({}, {"accumulate": 2, "ema": 0.9}, {"d_steps": 2}),
        {"stabilizers": {"initialised by data": MinibatchDiscrimination}},
    ],
    ids=lambda settings: ", ".join(settings),
)
@pytest.mark.parametrize("chunk", [1, 3])
def test_a_run_goes_on_within_an_epoch_as_if_it_had_never_stopped(
    chunk: int, settings: dict[str, Any], batch: int, tmp_path: Path
) -> None:
    straight, first, second = (small_gan(**settings) for _ in range(3))
    how: dict[str, Any] = {"batches": 3, "epochs": 3, "chunk": chunk}
    fit(straight, **how)
    with pytest.raises(SystemExit):
        fit(first, **how, callbacks=[LastCheckpoint(tmp_path), StopAt(batch)])
    stopped = first.batches_seen
    assert stopped >= batch
    fit(second, **how, ckpt_path=tmp_path / "last.ckpt")
    assert (second.batches_seen, second.epochs_seen, second.epoch_start) == (9, 3, 9)
    assert_same_bits(second, straight)
    one, other = (gan.optimizers()[0].state_dict()["state"] for gan in (straight, second))
    assert all(torch.equal(one[i]["exp_avg_sq"], other[i]["exp_avg_sq"]) for i in one)


def test_checkpoints_come_every_few_batches(tmp_path: Path) -> None:
    seen = []

    class Noting(LastCheckpoint):
        def save(self, trainer: L.Trainer, gan: GAN) -> None:
            super().save(trainer, gan)
            seen.append(torch.load(self.path, weights_only=True)["batches_seen"])

    fit(small_gan(), batches=5, epochs=2, callbacks=[Noting(tmp_path, every_n_batches=4)])
    assert seen == [4, 5, 8, 10]
    seen.clear()
    (tmp_path / ".best.ckpt.1.part").touch()  # of one who was killed while writing it
    fit(small_gan(), batches=3, callbacks=[Noting(tmp_path, every_minutes=1e-9)])
    assert seen == [1, 2, 3, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    for wrong in ({"every_n_batches": 0}, {"every_minutes": -1}):
        with pytest.raises(ValueError, match="choose one above 0, or null"):
            LastCheckpoint(tmp_path, **wrong)


# metrics.csv


@pytest.mark.parametrize("end", ["6", "6,0.9", ""])
def test_rows_after_a_moment_are_forgotten_and_half_rows_too(end: str, tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    log.log_rows({n: {"a": n / 3} for n in range(1, 6)})
    log.flush()
    with log.path.open("a") as file:
        file.write(end)  # the process ended here
    again = MetricsCSV(log.path)
    assert again.rewind(3) == {n: {"a": n / 3} for n in (1, 2, 3)}
    again.log_rows({3: {"b": 0.5}, 4: {"a": 7.0}})
    again.finalize("success")
    with log.path.open(newline="") as file:
        found = [*csv.DictReader(file)]
    assert [row["step"] for row in found] == ["1", "2", "3", "4"]
    assert [row["b"] for row in found] == ["", "", "0.5", ""]
    assert [float(row["a"]) for row in found] == [1 / 3, 2 / 3, 1.0, 7.0]


def test_a_flushed_row_is_completed_in_its_place(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    for row in ({"a": 1.0}, {"a": 2.0}, {"b": 3.0}):
        log.log_rows({1: row})
        log.flush()
    assert log.path.read_text().split() == ["step,a,b", "1,2.0,3.0"]


def test_whoever_is_killed_soon_after_has_lost_no_row(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    log.log_rows({n: {"a": float(n)} for n in (1, 2, 3)})
    log.flush()
    before = log.path.read_bytes()
    assert [*MetricsCSV(log.path).rewind(3)] == [1, 2, 3]
    assert log.path.read_bytes() == before
    again = MetricsCSV(log.path)
    again.rewind(3)
    again.log_rows({3: {"b": 1.0}, 4: {"c": 2.0}})  # both with new columns
    again.flush()
    assert log.path.read_text().split() == [
        "step,a,b,c",
        "1,1.0,,",
        "2,2.0,,",
        "3,3.0,1.0,",
        "4,,,2.0",
    ]


@pytest.mark.parametrize("hook", ["setup", "on_fit_start"])  # weights come back between them
def test_ctrl_c_before_training_goes_on_leaves_the_checkpoint(hook: str, tmp_path: Path) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    fit(small_gan(), callbacks=[LastCheckpoint(tmp_path)])
    before = (tmp_path / "last.ckpt").read_bytes()
    how: dict[str, Any] = {"epochs": 2, "ckpt_path": tmp_path / "last.ckpt"}
    stopping = type("Stopping", (L.Callback,), {hook: stop})()
    with pytest.raises(SystemExit):
        fit(small_gan(), **how, callbacks=[stopping, LastCheckpoint(tmp_path)])
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_an_epoch_that_was_broken_off_at_its_end_ends_again(tmp_path: Path) -> None:
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
    assert (len(ends), gan.batches_seen, gan.epochs_seen) == (2, 3, 1)


# The command line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a run leaves that somebody has killed."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "logs/a/first"
    for part in (".hydra", "checkpoints"):
        (run / part).mkdir(parents=True)
    (run / ".hydra/overrides.yaml").write_text("- model=mlp\n- epochs=3\n")
    (run / resume.LAST).touch()
    return run


def test_the_command_line_is_that_of_the_run_and_then_ones_own(folder: Path) -> None:
    assert resume.extend(["lr=1"]) == ["lr=1"]
    assert resume.extend(["--config-dir", "mine", "epochs=9", "resume=logs/a/first"]) == [
        *("--config-dir", "mine", "model=mlp", "epochs=3", "epochs=9", f"resume='{folder}'"),
        *(f"hydra.run.dir='{folder}'", "hydra.output_subdir=null"),
    ]
    again = resume.extend(["resume=logs/a/first"])
    assert again == ["resume=logs/a/first"]  # a process of the run itself


def test_auto_is_the_newest_run_without_an_end(folder: Path) -> None:
    other = folder.with_name("second")
    (other / "checkpoints").mkdir(parents=True)
    (other / resume.LAST).touch()
    os.utime(folder / resume.LAST, (0, 0))
    assert resume.find("auto") == other
    (other / "summary.json").write_text(json.dumps({"status": "finished"}))
    assert resume.find("auto") == folder
    (folder / "summary.json").write_text(json.dumps({"status": "finished"}))
    with pytest.raises(UserError, match="resume=auto: no run under logs/ waits"):
        resume.find("auto")
    with pytest.raises(UserError, match="resume=elsewhere: there is no such folder"):
        resume.find("elsewhere")


@pytest.mark.parametrize(
    "word",
    [
        *("hydra.callbacks.x._target_=os.system", "+hydra.callbacks.x._target_=os.system"),
        *("hydra/launcher=joblib", "--config-dir=/tmp", "-m"),
        *("+callbacks@hydra.callbacks=default", "folder=/elsewhere"),
        *("experiment=../evil", "experiment=/evil", "+experiment=${times:2,.}/evil"),
        *("gan._target_=${oc.env:WORSE}", "gan._target_=${${one}:WORSE}", r"lr=\${oc.env:WORSE}"),
    ],
)
def test_saved_words_may_not_reach_hydra_itself(folder: Path, word: str) -> None:
    (folder / ".hydra/overrides.yaml").write_text(f"- '{word}'\n")
    with pytest.raises(UserError, match="which is not taken from a file: if you know it"):
        resume.extend([f"resume={folder}"])


def test_what_is_given_otherstands_there_once(folder: Path) -> None:
    (folder / resume.FIRST).write_text("- ~callbacks.progress\n- experiment=../mine\n- seed=1\n")
    words = resume.extend([f"resume={folder}", "~callbacks.progress", "experiment=../mine"])
    assert words[:3] == ["seed=1", "~callbacks.progress", "experiment=../mine"]


def test_processes_of_a_launcher_may_not_each_look_for_the_newest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="so name its folder"):
        resume.find("auto")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_what_can_be_no_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        resume.find(name)


def test_a_folder_without_a_checkpoint_is_nothing_to_go_on_from(folder: Path) -> None:
    (folder / resume.LAST).unlink()
    with pytest.raises(UserError, match=r"there is no checkpoints/last\.ckpt in it"):
        resume.extend([f"resume={folder}"])


@pytest.mark.parametrize("sign", ["", "+", "++", "~"])
def test_a_folder_does_not_trust_itself(folder: Path, sign: str) -> None:
    (folder / resume.FIRST).write_text(f"- '{sign}trust=[os]'\n- lr=1e-3\n")
    words = resume.extend([f"resume={folder}"])
    assert words[0] == "lr=1e-3"
    assert not any("trust=[os]" in word for word in words)


def test_overrides_stay_as_they_were_typed(folder: Path) -> None:
    (folder / resume.FIRST).write_text("- optimizer.d.lr=${times:4,${lr}}\n")
    assert resume.extend([f"resume={folder}"])[0] == "optimizer.d.lr=${times:4,${lr}}"


@pytest.mark.parametrize("text", ["- [", "a: 1", "{"])
def test_overrides_that_are_no_list_are_refused(folder: Path, text: str) -> None:
    (folder / resume.FIRST).write_text(text)
    with pytest.raises(UserError, match=r"overrides\.yaml (cannot be read|is no list)"):
        resume.extend([f"resume={folder}"])


def test_a_sweep_goes_on_with_nothing(folder: Path) -> None:
    with pytest.raises(UserError, match="leave out -m"):
        resume.extend(["-m", f"resume={folder}", "epochs=4,5"])


def test_nothing_is_written_elsewhere(folder: Path) -> None:
    inside = {"callbacks": {"a": {"folder": f"{folder}/samples"}, "b": None}, "logger": None}
    resume.check_places(inside, folder)
    with pytest.raises(UserError, match=r"logger\.csv\.path=.*elsewhere is outside of"):
        resume.check_places(
            {"callbacks": {}, "logger": {"csv": {"path": f"{folder}/../elsewhere"}}}, folder
        )


@pytest.mark.parametrize(
    "target",
    ["os.system", "ganmnist.paths.os.system", "ganmnist.train.train", "torch.optim.os.system"],
)
def test_settings_of_a_run_call_nothing_but_our_classes(target: str) -> None:
    with pytest.raises(UserError, match=f"The settings name {target}"):
        resume.check_targets({"gan": [{"terms": {"x": {"_target_": target}}}]}, trust=())


def test_differences_are_named_by_their_places() -> None:
    then = {"gan": {"clip": None, "terms": {}}, "seed": 0}
    now = {"gan": {"clip": 1.0, "terms": {"r1": {"gamma": 2}}}, "seed": 0}
    assert [*resume.differences(then, now)] == [
        ("gan.clip", None, 1.0),
        ("gan.terms.r1", None, {"gamma": 2}),
    ]


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [((2, 1), (4, 1), False), ((2, 1), (0, 2), True), (("auto", 1), (0, 1), True)],
)
def test_the_number_of_processes_counts_but_not_their_devices(
    then: tuple[Any, int], now: tuple[Any, int], same: bool
) -> None:
    rest: dict[str, Any] = {"gan": {}, "batch_size": 64, "seed": 0, "data": {}, "checksum": ""}
    rest |= {"datamodule": {}}
    one, other = (
        resume.what_counts({**rest, "trainer": {"gpus": gpus, "devices": devices}})
        for gpus, devices in (then, now)
    )
    assert (one == other) == same


# The whole


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """The folder of `two`, which its tests change."""
    place = tmp_path_factory.mktemp("originals")
    stop = "+callbacks.stop={_target_: test_resume.StopAfter, batch: 10}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANMNIST_DATA", str(digits_root))
        launch(*FEW, f"hydra.run.dir={place / 'straight'}")
        with pytest.raises(SystemExit):
            launch(*FEW, stop, f"hydra.run.dir={place / 'broken'}")
    return place


@pytest.fixture
def two(
    originals: Path, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A run, and one that was broken off within its second epoch."""
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    return tmp_path / "straight", tmp_path / "broken"


def again(folder: Path, *overrides: str) -> None:
    launch(f"resume={folder}", "~callbacks.stop", *overrides)


def files(folder: Path) -> dict[Path, bytes]:
    """All but the log, where a refusal stands as well."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    return {path: path.read_bytes() for path in paths}


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        found = [*csv.DictReader(file)]
    return [{k: v for k, v in row.items() if v and "images_per_s" not in k} for row in found]


def test_a_run_that_went_on_leaves_the_files_of_one_that_never_stopped(
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
    assert "resume=" not in (broken / resume.FIRST).read_text()


def test_what_would_make_another_training_of_it_is_refused(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    straight, broken = two
    for asked, said in (
        ((broken, "lr=0.5"), "gan.d_optimizer.lr was 0.0002 and is now 0.5"),
        ((broken, "seed=1"), "seed was 0 and is now 1"),
        ((broken, "datamodule.seed=1"), "datamodule.seed was 0 and is now 1"),
        ((broken, "datamodule.batch_size=8"), "datamodule.batch_size was 16 and is now 8"),
        ((broken, "epochs=1"), "has seen its 1 epochs: ask for more, such as epochs=2"),
        ((broken, "callbacks.evaluation.monitor=fid"), "monitor=fid is not measured"),
        ((broken, "metrics=plane"), "is not measured: choose one of jsd"),
        ((straight, "callbacks=plane", "epochs=3"), "monitor=jsd is not measured"),
        ((straight,), "has seen its 2 epochs: ask for more, such as epochs=4"),
    ):
        before = files(asked[0])
        with pytest.raises(SystemExit) as leaving:
            again(*asked) if asked[0] is broken else launch(f"resume={straight}", *asked[1:])
        assert leaving.value.code == 2
        assert said in capsys.readouterr().err
        assert before.items() <= files(asked[0]).items()


def test_other_images_under_the_same_name_are_another_training(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ganmnist.data.datasets.digest", lambda *parts: "of other images")
    with pytest.raises(SystemExit) as leaving:
        again(two[1])
    assert leaving.value.code == 2
    assert "and is now of other images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("samples/fake_000003.png", b""),
        ("samples/epoch_001.png", b"\0" * 99),
        ("metrics.csv", b""),
        ("metrics.csv", b"\0" * 99),
    ],
)
def test_what_a_machine_without_power_has_lost_is_done_without(
    two: tuple[Path, Path], name: str, left: bytes
) -> None:
    broken = two[1]
    (broken / name).write_bytes(left)
    again(broken)
    assert json.loads((broken / "summary.json").read_text())["status"] == "finished"
    straight, other = (torch.load(run / resume.LAST, weights_only=True) for run in two)
    assert changed(straight["state_dict"], other["state_dict"]) == set()


def test_a_run_that_ended_in_its_final_table_gets_it(two: tuple[Path, Path]) -> None:
    straight, _ = two
    before = json.loads((straight / "summary.json").read_text())
    table = rows(straight)
    (straight / "summary.json").unlink()
    launch(f"resume={straight}")
    after = json.loads((straight / "summary.json").read_text())
    assert after["metrics"]["final"] == before["metrics"]["final"]
    assert rows(straight) == table


def test_a_finished_run_is_made_longer(two: tuple[Path, Path]) -> None:
    straight, _ = two
    launch(f"resume={straight}", "epochs=3")
    summary = json.loads((straight / "summary.json").read_text())
    assert (summary["epochs"], summary["status"]) == (3, "finished")
    assert [int(row["epoch"]) for row in rows(straight) if "epoch" in row] == [1, 2, 3]
    assert "epochs=3" in (straight / resume.AGAIN).read_text()  # what it would go on with
