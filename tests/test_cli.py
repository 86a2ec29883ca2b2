"""The command line: every mistake is answered by a sentence, at once, and leaves nothing behind."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from launch import BRIEF, command, launch, own_objective

from ganmnist.config import KNOBS
from ganmnist.data import MNIST, datasets
from ganmnist.paths import conf_dir, held

KEYS = (
    "batch_size, callbacks, checkpoint, data, datamodule, ema, epochs, every, family, folder, gan, "
    "latent, latent_dim, log_every, logger, lr, metric, metrics, model, objective, optimizer, "
    "resume, schedule, seed, stabilizer, task, terms, trainer, trust"
)


def choices(group: str) -> str:
    return ", ".join(sorted(file.stem for file in (conf_dir() / group).glob("*.yaml")))


SWEEP = "several values make a sweep, which needs -m; a list is written [1,2]."
FORM = "this is not of the form setting=value"
MISTAKES = {
    "epochs=ten": "epochs=ten: epochs takes a whole number of at least 1, such as epochs=20.",
    "epochs=1.5": "epochs=1.5: epochs takes a whole number of at least 1, such as epochs=20.",
    "modle=mlp": f"'modle'. Did you mean model? Choose one of {KEYS}.",
    "gan.latent.dim=50": "is whatever latent is, so set that: latent.dim=...",
    "gan.generator.widths=[8]": "gan.generator is whatever model.generator is, so set that: ",
    "model=resnet9000": "model=resnet9000: there is no such choice. "
    f"Did you mean resnet? Choose one of {choices('model')}.",
    "lr=-1": "lr=-1.0 is out of range: lr takes a number above 0, such as lr=2e-4.",
    "lr=nan": "lr=nan is out of range: lr takes a number above 0, such as lr=2e-4.",
    "lr=inf": "lr=inf is out of range: lr takes a number above 0, such as lr=2e-4.",
    "batch_size=0": "batch_size=0 is out of range: batch_size takes a whole number of at least 1",
    "seed=4294967296": "seed=4294967296 is out of range: seed takes a whole number of at least 0 "
    "below 4294967296, such as seed=0.",
    "ema=1": "ema=1.0 is out of range: ema takes a number above 0 below 1, or null, such as ema",
    "ema=often": "ema=often: ema takes a number above 0 below 1, or null, such as ema=0.999.",
    "experiment=report_mlp model.generator.dropuot=0.5": "Did you mean dropout?",
    "trainer.precision=64-true": "trainer.precision=64-true: choose one of 32-true, 16-mixed, bf16",
    "trainer.accelerator=tpu": "trainer.accelerator=tpu: choose one of auto, cpu, gpu.",
    "seed=-1": "seed=-1 is out of range: seed takes a whole number of at least 0",
    "trainer.gpsu=1": "'gpsu' in trainer. Did you mean gpus?",
    "experiment=foo": "experiment=foo: there is no such choice. "
    f"Choose one of {choices('experiment')}.",
    "model.generator.width=[1]": "'width' in model.generator. Did you mean widths?",
    "lr=1,2": f"lr=1,2: {SWEEP}",
    "lr=range(1,3)": f"lr=range(1,3): {SWEEP}",
    "model.generator.widths=[1,2": f"model.generator.widths=[1,2: {FORM}",
    "epochs": f"epochs: {FORM}",
    "trainer.gpus=banana": "trainer.gpus=banana is not a number of GPUs",
    "trainer.devices=0": "trainer.devices=0 is not a number of processes",
    "trainer=cpu trainer.gpus=1": "trainer=cpu contradicts trainer.gpus=1",
    "trainer=gpu trainer.gpus=0": "trainer=gpu contradicts trainer.gpus=0",
}
SWEEP_MISTAKES = {
    "-m data=digits seed=0,1 lr=-1": MISTAKES["lr=-1"],
    "-m data=digits seed=0,1 trainer.devices=2": "trainer.devices=2: a job of a sweep has one",
    "-m data=digits seed=0,1 trainer.gpus=2": "trainer.gpus=2: a job of a sweep has one",
}
UNKNOWN_IN_SWEEP = "-m data=digits model=mlp,resnet9000"

# One process for all of them, because starting one takes a second.
HARNESS = """
import contextlib, io, json, os, runpy, sys
from hydra.core.global_hydra import GlobalHydra

answers = {}
for line in json.loads(sys.argv[1]):
    GlobalHydra.instance().clear()
    sys.argv = ["train", *line.split()]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module("ganmnist.train", run_name="__main__", alter_sys=True)
        except SystemExit as leaving:
            code = leaving.code
    answers[line] = code, out.getvalue(), err.getvalue(), "torch" in sys.modules, os.listdir()
print(json.dumps(answers))
"""


class Answer(NamedTuple):
    code: int
    out: str
    err: str
    torch: bool  # has been imported
    files: list[str]  # of the current folder


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """What the command says to a command line, and what it leaves."""
    lines = json.dumps([*MISTAKES, *SWEEP_MISTAKES, "--help", UNKNOWN_IN_SWEEP])
    folder = tmp_path_factory.mktemp("empty")
    harness = [sys.executable, "-c", HARNESS, lines]
    done = subprocess.run(harness, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {line: Answer(*answer) for line, answer in json.loads(done.stdout).items()}


@pytest.mark.parametrize("mistake", [*MISTAKES, *SWEEP_MISTAKES])
def test_a_mistake_is_answered_by_a_sentence(mistake: str, answers: dict[str, Answer]) -> None:
    answer = answers[mistake]
    assert answer.err.startswith("ganmnist: ")
    assert answer.err.count("\n") == 1
    assert (MISTAKES | SWEEP_MISTAKES)[mistake] in answer.err
    assert (answer.code, answer.out, answer.torch, answer.files) == (2, "", False, [])


def test_a_sweep_over_what_there_is_not_starts_no_job(answers: dict[str, Answer]) -> None:
    answer = answers[UNKNOWN_IN_SWEEP]
    assert answer.err == f"ganmnist: {MISTAKES['model=resnet9000']}\n"
    assert (answer.code, answer.torch) == (2, False)


def test_help_fits_a_screen(answers: dict[str, Answer]) -> None:
    answer = answers["--help"]
    assert (answer.code, answer.err, answer.torch, answer.files) == (0, "", False, [])
    lines = answer.out.splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= 100
    for group in ("model", "objective", "experiment"):  # the longer ones take several lines
        assert f"{group} {choices(group)} " in " ".join(answer.out.split())
    first = [line.split()[0] for line in lines if line.startswith("  ") and line.strip()]
    assert [word for word in first if word in KNOBS["train"]] == [*KNOBS["train"]]
    examples = [line for line in lines if line.startswith("  python -m ganmnist.train ")]
    assert len(examples) > 4
    assert any("-m lr=1e-4,2e-4" in line for line in examples)
    assert any("--config-dir" in line for line in examples)


def test_gpus_that_are_not_there_are_refused_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(data: MNIST) -> None:
        raise AssertionError("data were looked at")

    monkeypatch.setattr(MNIST, "prepare", never)
    with pytest.raises(SystemExit) as leaving:
        launch("data=mnist", "trainer.gpus=99", f"hydra.run.dir={tmp_path / 'run'}")
    assert leaving.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("ganmnist: trainer.gpus=99 is more than the")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ("model.generator.kernels=[4,3]", ["kernels=[4, 3]", "widths=[256, 128, 64]"]),
        ("model.generator.strides=[1,2,2,1]", ["(1, 15, 15)", "(1, 28, 28)", "model.generator"]),
        ("experiment=paper_dcgan model=mlp", ["ganmnist.networks.mlp.Generator", "'kernels'"]),
        ("+objective.sharpness=3", ["ganmnist.objectives.BCE", "'sharpness'"]),
        ("gan.fresh_fakes=no", ["gan.fresh_fakes=no: this takes a bool."]),
        ("objective.stable=off", ["objective.stable=off: this takes a bool."]),
        ("model.generator.latent_dim=ten", ["model.generator.latent_dim=ten: this takes a int."]),
        ("optimizer.d.lr=-1", ["The optimisers cannot be built", "Invalid learning rate: -1"]),
        ("trainer.limit_train_batches=-1", ["limit_train_batches"]),
        ("model.discriminator.channels=3", ["cannot take 64 images of shape (1, 28, 28)"]),
        ("stabilizer=pacgan stabilizer.pacgan.m=3", ["batch of 64 images makes no packs of 3"]),
        (
            "objective=wgan_gp model.discriminator.norm=batch",
            ["choose model.discriminator.norm=layer"],
        ),
        (
            "model=mlp objective=wgan stabilizer=spectral_norm",
            ["stabilizer=spectral_norm and model=noisy_mlp out"],
        ),
        (
            "stabilizer=spectral_norm model.discriminator.norm=batch",
            ["choose model.discriminator.norm=none"],
        ),
        ("objective=wgan penalty=gradient_penalty model=mlp", ["wasserstein and gradient_penalty"]),
        ("objective=hinge stabilizer=label_smoothing", ["objectives.Hinge", "no 'smoothing'"]),
        ("objective=feature_matching ~terms.feature_matching", ["Nothing trains G: choose"]),
        ("schedule=r3gan optimizer=sgd", ["Adam's beta2, which the optimiser does not have"]),
        ("latent.dim=50", ["cannot take its latents", "change model.generator or latent"]),
        ("latent=uniform latent.low=2", ["latent.low=2 is not below latent.high=1.0"]),
        ("optimizer=adam schedule=goodfellow", ["SGD's momentum, and the optimizer has none"]),
        ("penalty=r1 terms.r1.gamma=ten", ["the weight of R1 is ten: choose a number"]),
        ("gan.clip=0", ["gan.clip=0 leaves no gradient"]),
        ("gan.d_steps=0", ["gan.d_steps=0 is no number of steps"]),
        ("batch_size=100000", ["batch_size=100000", "3000 training images of digits"]),
    ],
)
def test_what_cannot_be_built_is_a_sentence(
    asked: str,
    parts: list[str],
    tmp_path: Path,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as leaving:
        launch("data=digits", "trainer=cpu", *asked.split(), f"hydra.run.dir={tmp_path / 'run'}")
    assert leaving.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("ganmnist: ")
    assert said.count("\n") == 1
    for part in parts:
        assert part in said
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "failed"
    assert parts[-1] in summary["error"]


@pytest.mark.parametrize("sign", ["summary.json", "checkpoints/last.ckpt"])
@pytest.mark.parametrize("way", ["hydra.run.dir=", "hydra.run.dir=other folder="])
def test_a_folder_that_holds_a_run_is_left_alone(
    way: str,
    sign: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine" / sign
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with pytest.raises(SystemExit) as leaving:
        launch("data=digits", "trainer=cpu", *f"{way}{tmp_path / 'mine'}".split())
    assert leaving.value.code == 2
    assert f"{tmp_path / 'mine'} holds an earlier run" in capsys.readouterr().err
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "{}"


def test_a_sweep_that_was_killed_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0_lr=1/checkpoints").mkdir(parents=True)
    (tmp_path / "0_lr=1/checkpoints/last.ckpt").touch()
    with pytest.raises(SystemExit) as leaving:
        launch("-m", "data=digits", "trainer=cpu", f"hydra.sweep.dir={tmp_path}", "lr=1,2")
    assert leaving.value.code == 2
    assert f"{tmp_path} holds an earlier run" in capsys.readouterr().err


def test_nothing_is_written_where_another_process_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(tmp_path), pytest.raises(SystemExit) as leaving:
        launch("data=digits", "trainer=cpu", f"hydra.run.dir={tmp_path}")
    assert leaving.value.code == 2
    assert f"{tmp_path} is in use: another process trains there" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_a_bug_keeps_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("ganmnist.devices.place", broken)
    with pytest.raises(Exception, match="a bug") as raised:
        launch("data=digits", f"hydra.run.dir={tmp_path / 'run'}")
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_mnist_that_cannot_be_had_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "unreachable", lambda urls: "no network in this test")
    run = f"hydra.run.dir={tmp_path / 'run'}"
    with pytest.raises(SystemExit) as leaving:
        launch("data=mnist", f"data.root={tmp_path / 'none'}", "trainer=cpu", run)
    assert leaving.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in (f"MNIST is not in {tmp_path / 'none'}", "no network in this test", "data=digits"):
        assert part in said
    assert not (tmp_path / "none").exists()


def test_an_objective_of_ones_own_is_a_class_and_a_yaml(tmp_path: Path, data_root: Path) -> None:
    own_objective(
        tmp_path,
        "from ganmnist.objectives import BCE\n\n\n"
        "class Mine(BCE):\n"
        "    def d_loss(self, duel):\n"
        "        return duel.part('doubled', 2 * super().d_loss(duel))\n",
    )
    done = command("--config-dir", "my_conf", "objective=mine", *BRIEF, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "logs/quick").iterdir()
    epoch = json.loads((folder / "summary.json").read_text())["scalars"]
    assert epoch["epoch/d/loss"] == epoch["epoch/d/doubled"]
    assert epoch["epoch/d/loss"] == pytest.approx(
        2 * (epoch["epoch/d/real"] + epoch["epoch/d/fake"])
    )
