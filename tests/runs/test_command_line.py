"""The command line: a mistake gives one sentence, exit code 2 and no files.

The process has not imported torch by then.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.launch import BRIEF, command, launch, own_objective
from helpers.networks import choices

from ganmnist.data import MNIST, datasets
from ganmnist.runs.folders import lock_dir
from ganmnist.runs.schema import SETTINGS

pytestmark = pytest.mark.no_cover  # the code runs in other processes

# A command line, and what the message contains: the setting and its value.
MISTAKES = {
    "epochs=ten": "epochs=ten",
    "epochs=1.5": "epochs=1.5",
    "epochs=null": "epochs=null",
    "model=resnet9000": "'resnet9000'",
    "experiment=foo": "'foo'",
    "lr=-1": "lr=-1",
    "lr=nan": "lr=nan",
    "lr=inf": "lr=inf",
    "batch_size=0": "batch_size=0",
    "seed=-1": "seed=-1",
    "seed=4294967296": "seed=4294967296",
    "ema=1": "ema=1",
    "ema=often": "ema=often",
    "lr=1,2": "lr=1,2",
    "lr=range(1,3)": "lr=range(1,3)",
    "model.generator.widths=[1,2": "model.generator.widths=[1,2",
    "epochs": "epochs",
    "~foo": "foo",
    "+epochs=3": "epochs=3",
    "trusted_modules=mine": "trusted_modules=[mine]",
    "family.labels.n_classes=3": "family.labels.n_classes",
    "trainer.max_epochs=3": "use epochs=3",
    "trainer.precision=64-true": "trainer.precision=64-true",
    "trainer.accelerator=tpu": "trainer.accelerator=tpu",
    "trainer.gpus=banana": "trainer.gpus=banana",
    "trainer.devices=0": "trainer.devices=0",
    "trainer=cpu trainer.gpus=1": "trainer.gpus=1",
    "trainer=gpu trainer.gpus=0": "trainer.gpus=0",
    "trainer.precision=16-mixed gan.clip=1": "gan.clip=1",
    "family=aae latent_dim=7": "latent_dim=7",
    "-m data=digits seed=0,1 lr=-1": "lr=-1",
    "-m data=digits seed=0,1 trainer.devices=2": "trainer.devices=2",
    "-m data=digits seed=0,1 trainer.gpus=2": "trainer.gpus=2",
    "-m data=digits seed=0,1 family=lapgan model=mlp": "model=mlp",
}
# An unknown or referenced setting, and the valid command that the message suggests.
SUGGESTIONS = {
    "modle=mlp": "model=mlp",
    "trainr.gpus=0": "trainer.gpus=0",
    "trainer.gpsu=0": "trainer.gpus=0",
    "model.generator.width=[8,8,8]": "model.generator.widths=[8,8,8]",
    "experiment=report_mlp model.generator.dropuot=0.5": "model.generator.dropout=0.5",
    "family.latent.dim=50": "latent.dim=50",
    "family.generator.widths=[8,8,8]": "model.generator.widths=[8,8,8]",
    "family=cgan family.discriminator.widths=[8,8]": "model.discriminator.widths=[8,8]",
    "family=lapgan model.generator.width=8": "family.generator.width=8",
    "penalty=r1 objective.r1.gamma=1": "penalty.r1.gamma=1",
    "stabilizer=pacgan stabilizer.m=2": "stabilizer.pacgan.m=2",
    "stabilizer=pacgan stabilizer.pacgn.m=2": "stabilizer.pacgan.m=2",
    "stabilizer.pacgan.m=2": "stabilizer=pacgan",
}
UNKNOWN_IN_SWEEP = "-m data=digits model=mlp,resnet9000"

# One process for all lines, because a start takes a second.
HARNESS = """
import contextlib, io, json, os, runpy, sys
from hydra.core.global_hydra import GlobalHydra

results = {}
for line in json.loads(sys.argv[1]):
    GlobalHydra.instance().clear()
    sys.argv = ["train", *line.split()]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module("ganmnist.train", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code
    results[line] = code, out.getvalue(), err.getvalue(), "torch" in sys.modules, os.listdir()
print(json.dumps(results))
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str
    torch: bool  # has been imported
    files: list[str]  # of the current folder


def corrected(line: str) -> str:
    """The line with the suggestion in the place of its last word; --cfg only composes it."""
    *words, last = line.split()
    suggestion = SUGGESTIONS[line]
    if "." not in suggestion and "." in last:  # a choice that is missing
        words.append(last)
    return " ".join([*words, suggestion, "--cfg", "job"])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What the command prints and leaves, for every line."""
    lines = [*MISTAKES, *SUGGESTIONS, *map(corrected, SUGGESTIONS), "--help", UNKNOWN_IN_SWEEP]
    folder = tmp_path_factory.mktemp("empty")
    harness = [sys.executable, "-c", HARNESS, json.dumps(lines)]
    done = subprocess.run(harness, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {line: Result(*result) for line, result in json.loads(done.stdout).items()}


@pytest.mark.parametrize(("line", "part"), [*MISTAKES.items(), *SUGGESTIONS.items()])
def test_mistake_gives_one_sentence_and_no_files(
    line: str, part: str, results: dict[str, Result]
) -> None:
    result = results[line]
    assert result.err.startswith("ganmnist: ")
    assert result.err.count("\n") == 1
    assert part in result.err
    assert (result.code, result.out, result.torch, result.files) == (2, "", False, [])


@pytest.mark.parametrize("line", SUGGESTIONS)
def test_suggested_command_composes(line: str, results: dict[str, Result]) -> None:
    assert results[corrected(line)].code == 0, results[corrected(line)].err


def test_messages_name_the_problem_and_the_fix(results: dict[str, Result]) -> None:
    """One message of each family."""
    for line, message in {
        "epochs=ten": "epochs=ten: epochs takes a whole number of at least 1, such as epochs=20.",
        "model=resnet9000": "Unknown model 'resnet9000'. Did you mean 'resnet'? Available: "
        f"{', '.join(choices('model'))}.",
        "model.generator.width=[8,8,8]": "Unknown setting 'model.generator.width'. Did you mean "
        "model.generator.widths=[8,8,8]? Available in model.generator: kernels, strides, widths.",
        "family.latent.dim=50": "family.latent.dim: this is a reference to latent.dim. Use "
        "latent.dim=50.",
        "family=aae latent_dim=7": "latent_dim=7: no part of this run (family=aae "
        "callbacks=default) uses latent_dim. Leave it out, or choose other parts. Did you mean "
        "family.latent.dim=...?",
        "lr=1,2": "lr=1,2: several values are a sweep, which needs -m. Write a list as [1,2].",
    }.items():
        assert results[line].err == f"ganmnist: {message}\n"


def test_sweep_with_an_unknown_choice_starts_no_job(results: dict[str, Result]) -> None:
    result = results[UNKNOWN_IN_SWEEP]
    assert "'resnet9000'" in result.err
    assert (result.code, result.torch) == (2, False)


def test_help_fits_a_screen(results: dict[str, Result]) -> None:
    result = results["--help"]
    assert (result.code, result.err, result.torch, result.files) == (0, "", False, [])
    lines = result.out.splitlines()
    assert len(lines) < 65
    assert max(map(len, lines)) <= 100
    for group in ("model", "objective", "experiment"):  # the long ones take several lines
        assert f"{group} {', '.join(choices(group))} " in " ".join(result.out.split())
    assert " _" not in result.out  # shared bases
    first = [line.split()[0] for line in lines if line.startswith("  ") and line.strip()]
    assert [word for word in first if word in SETTINGS["train"]] == [*SETTINGS["train"]]
    assert len([line for line in lines if line.startswith("  ganmnist train ")]) > 4


def test_missing_gpus_are_refused_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(data: MNIST) -> None:
        raise AssertionError("data were read")

    monkeypatch.setattr(MNIST, "prepare", fails)
    with pytest.raises(SystemExit) as leaving:
        launch("data=mnist", "trainer.gpus=99", f"hydra.run.dir={tmp_path / 'run'}")
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("ganmnist: trainer.gpus=99: this machine has")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("model.generator.kernels=[4,3]", "kernels=[4, 3]"),
        ("model.generator.strides=[1,2,2,1]", "(1, 15, 15)"),
        ("experiment=paper_dcgan model=mlp", "model.generator.kernels"),
        ("+objective.sharpness=3", "objective.sharpness=3"),
        ("+trainer.sharpness=3", "trainer.sharpness"),
        ("+trainer.gradient_clip_val=1", "gan.clip=1"),
        ("gan.resample_fakes=no", "gan.resample_fakes=no"),
        ("objective.stable=off", "objective.stable=off"),
        ("latent.dim=ten", "latent.dim=ten"),
        ("optimizer.d.lr=-1", "optimizer.d"),
        ("trainer.limit_train_batches=-1", "limit_train_batches"),
        ("stabilizer=pacgan stabilizer.pacgan.m=3", "64"),
        ("objective=wgan_gp model.discriminator.norm=batch", "model.discriminator.norm=layer"),
        (
            "stabilizer=spectral_norm model.discriminator.norm=batch",
            "model.discriminator.norm=none",
        ),
        ("model=mlp objective=wgan stabilizer=spectral_norm", "stabilizer=spectral_norm"),
        ("objective=wgan penalty=gradient_penalty model=mlp", "gradient_penalty"),
        ("objective=hinge stabilizer=label_smoothing", "label_smoothing"),
        ("objective=feature_matching ~objective.penalties.feature_matching", "penalty="),
        ("schedule=r3gan optimizer=sgd", "beta2"),
        ("optimizer=adam schedule=goodfellow", "momentum"),
        ("latent=uniform latent.low=2", "latent.low=2"),
        ("penalty=r1 penalty.r1.gamma=ten", "ten"),
        ("gan.clip=0", "gan.clip=0"),
        ("gan.d_steps=0", "gan.d_steps=0"),
        ("batch_size=100000", "batch_size=100000"),
    ],
)
def test_parts_that_cannot_be_built_give_one_sentence(
    words: str,
    part: str,
    tmp_path: Path,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as leaving:
        launch("data=digits", "trainer=cpu", *words.split(), f"hydra.run.dir={tmp_path / 'run'}")
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("ganmnist: ")
    assert error.count("\n") == 1
    assert part in error
    run = tmp_path / "run"
    if run.exists():  # a loss without a term is noticed in the first batch
        summary = json.loads((run / "summary.json").read_text())
        assert summary["status"] == "failed"
        assert part in summary["error"]
        assert words.startswith("objective=feature_matching")


@pytest.mark.parametrize("name", ["summary.json", "checkpoints/last.ckpt"])
@pytest.mark.parametrize("words", ["hydra.run.dir=", "hydra.run.dir=other folder="])
def test_folder_of_another_run_stays_unchanged(
    words: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with pytest.raises(SystemExit) as leaving:
        launch("data=digits", "trainer=cpu", *f"{words}{tmp_path / 'mine'}".split())
    assert leaving.value.code == 2
    assert str(tmp_path / "mine") in capsys.readouterr().err
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "{}"


def test_folder_of_a_killed_sweep_stays_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0_lr=1/checkpoints").mkdir(parents=True)
    (tmp_path / "0_lr=1/checkpoints/last.ckpt").touch()
    with pytest.raises(SystemExit) as leaving:
        launch("-m", "data=digits", "trainer=cpu", f"hydra.sweep.dir={tmp_path}", "lr=1,2")
    assert leaving.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_folder_of_another_process_stays_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lock_dir(tmp_path), pytest.raises(SystemExit) as leaving:
        launch("data=digits", "trainer=cpu", f"hydra.run.dir={tmp_path}")
    assert leaving.value.code == 2
    assert f"{tmp_path} is in use" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_bug_keeps_its_stack_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("ganmnist.runs.hardware.choose_devices", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        launch("data=digits", f"hydra.run.dir={tmp_path / 'run'}")


def test_missing_mnist_gives_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "unreachable", lambda urls: "no network in this test")
    run = f"hydra.run.dir={tmp_path / 'run'}"
    with pytest.raises(SystemExit) as leaving:
        launch("data=mnist", f"data.root={tmp_path / 'none'}", "trainer=cpu", run)
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in (str(tmp_path / "none"), "no network in this test", "data=digits"):
        assert part in error
    assert not (tmp_path / "none").exists()


def test_own_objective_is_a_class_and_a_yaml_file(tmp_path: Path, data_root: Path) -> None:
    own_objective(
        tmp_path,
        "from ganmnist.losses.adversarial import BCE\n\n\n"
        "class Mine(BCE):\n"
        "    def d_loss(self, out):\n"
        "        return out.track('doubled', 2 * super().d_loss(out))\n",
    )
    done = command("--config-dir", "my_conf", "objective=mine", *BRIEF, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "logs/debug").iterdir()
    epoch = json.loads((folder / "summary.json").read_text())["scalars"]
    assert epoch["epoch/d/loss"] == epoch["epoch/d/doubled"]
    assert epoch["epoch/d/loss"] == pytest.approx(
        2 * (epoch["epoch/d/real"] + epoch["epoch/d/fake"])
    )
