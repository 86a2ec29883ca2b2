"""Whole runs of every family: files, metrics, resume, loading, `generate` and `evaluate`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.config import configuration, settings_of
from helpers.launch import BRIEF, BRIEFLY_MEASURED, launch
from helpers.networks import choices
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from PIL import Image

from ganmnist import evaluate, generate
from ganmnist.data import DataModule
from ganmnist.runs.loading import load
from ganmnist.train import train
from ganmnist.utils.batch import Batch
from ganmnist.utils.errors import UserError
from ganmnist.utils.pixels import to_bytes
from ganmnist.utils.rng import generator_for

FAMILIES = choices("family")
CONDITIONAL = ["aae_labels", "acgan", "cgan", "projection"]
# `extra_images` and `extra_metrics` of each family.
IMAGES = {
    "infogan": {"categories", "continuous_1", "continuous_2"},
    "bigan": {"reconstructions"},
    "aae": {"reconstructions", "manifold", "map"},
    "aae_labels": {"reconstructions"},
    "semisupervised": {"labeled"},
    "lapgan": {"scales"},
    "inpainting": {"translations"},
    "superresolution": {"translations"},
}
METRICS = {
    "infogan": {"code_error"},
    "bigan": {
        "nn_accuracy_hidden",
        "nn_accuracy",
        "nn_accuracy_untrained",
        "reconstruction_error",
    },
    "aae": {"reconstruction_error"},
    "aae_labels": {"reconstruction_error"},
    "semisupervised": {"test_error", "test_error_ema"},
    "inpainting": {"l1", "l1_input"},
    "superresolution": {"l1", "l1_input"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """A run of two batches of every family."""
    folder = tmp_path_factory.mktemp("families")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANMNIST_DATA", str(digits_root))
        for family in FAMILIES:
            brief = (*BRIEF, f"family={family}", "metrics=default", *BRIEFLY_MEASURED)
            table = ("metrics.table.kid.subset_size=50", "metrics.n=128")
            short = ("metrics.table.gan_train.epochs=1",)
            train(settings_of(f"folder={folder / family}", *brief, *table, *short))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_writes_the_metrics_and_images_of_its_family(runs: Path, family: str) -> None:
    run = runs / family
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    final = summary["metrics"]["final"]
    raw, ema = ({name.removeprefix("digits_") for name in final[kind]} for kind in ("raw", "ema"))
    label_metrics = {"gan_test", "gan_train", "real_train"}
    assert (
        label_metrics & raw
        == label_metrics & ema
        == (label_metrics if family in CONDITIONAL else set())
    )
    extra = set().union(*METRICS.values())
    assert extra & raw == METRICS.get(family, set())
    assert not extra & ema
    report = (run / "report.html").read_text()
    for name in set().union(*IMAGES.values()):
        expected = name in IMAGES.get(family, ())
        assert (run / f"samples/{name}.png").exists() == expected
        assert (f'id="{name}"' in report) == expected
    # Grids have one column per label.
    columns = 10 if family in CONDITIONAL else 8
    assert Image.open(run / "samples/epoch_001.png").width == columns * (28 * 2 + 2) + 2


BASIC = {"gan", "infogan"}  # without and with parameters of its own; the others are slow tests
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("family", "precision"),
    [
        *(pytest.param(f, "32-true", marks=[] if f in BASIC else SLOW) for f in FAMILIES),
        *(pytest.param(f, "bf16-mixed", marks=[] if f == "gan" else SLOW) for f in FAMILIES),
    ],
)
def test_resume_is_bit_exact(data_root: Path, family: str, precision: str, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    settings = (*BRIEF, f"family={family}", f"trainer.precision={precision}")
    launch(*settings, "epochs=2", f"hydra.run.dir={whole}")
    launch(*settings, f"hydra.run.dir={half}")
    launch(f"resume={half}", "epochs=2")
    expected, resumed = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, half)
    )
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_load_restores_the_weights_and_samples(runs: Path, family: str) -> None:
    gan = load(runs / family, "last")
    saved = torch.load(runs / family / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert gan.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in gan.state_dict().items())
    assert gan.sample(3).shape == (3, 1, 28, 28)
    assert (gan.labels is not None) == (family in CONDITIONAL)


@pytest.mark.parametrize("family", FAMILIES)
def test_extra_images_do_not_change_the_gan(runs: Path, family: str) -> None:
    gan = load(runs / family, "last").train()
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    sample = Batch(torch.rand(1000, 1, 28, 28) * 2 - 1, torch.arange(1000) % 10)
    grids = gan.extra_images(lambda n: Batch(sample.x[:n], sample.y[:n]))
    assert not any(x.requires_grad for x in grids.values())
    assert gan.training
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())


def test_another_number_of_labels_than_the_data_has_is_refused(
    data_root: Path, tmp_path: Path
) -> None:
    settings = (*BRIEF, "family=projection", "family.labels.n_classes=9")
    with pytest.raises(UserError, match=r"family\.labels\.n_classes=9"):
        train(settings_of(f"folder={tmp_path}", *settings))


def test_generate_uses_the_selected_labels(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generated(*words: str) -> dict[str, np.ndarray]:
        out = tmp_path / "out.npz"
        argv = ["generate", f"run={runs / 'projection'}", "which=last", f"out={out}", *words]
        monkeypatch.setattr(sys, "argv", argv)
        GlobalHydra.instance().clear()
        generate.main()
        with np.load(out) as file:
            return dict(file)

    found = generated("labels=7,1", "n=5")
    assert found["labels"].tolist() == [7, 1, 7, 1, 7]
    gan = load(runs / "projection", "last")
    rng = generator_for("generate", 0)
    expected = to_bytes(gan.sample(gan.latent(5, "cpu", rng), torch.tensor([7, 1, 7, 1, 7])))
    assert np.array_equal(found["images"], expected[:, 0].numpy())
    assert generated()["labels"].tolist() == [*range(10)] * 10
    assert len(generated("labels=3")["images"]) == 10


@pytest.mark.parametrize(
    ("family", "word"),
    [
        ("gan", "labels=1"),
        ("projection", "labels=10"),
        ("projection", "labels=[-1]"),
        ("projection", "labels=[one]"),
    ],
)
def test_generate_refuses_unknown_labels(
    runs: Path,
    family: str,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["generate", f"run={runs / family}", "which=last", word])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as exit_info:
        generate.main()
    assert exit_info.value.code == 2
    assert "labels" in capsys.readouterr().err


def evaluated(*words: str, out: Path) -> dict[str, float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate", *words, f"out={out}"])
        GlobalHydra.instance().clear()
        evaluate.main()
    return json.loads(out.read_text())["metrics"]


def test_evaluate_repeats_the_metrics_of_the_training(
    runs: Path, data_root: Path, tmp_path: Path
) -> None:
    for family in ("infogan", "projection"):
        found = evaluated(f"run={runs / family}", "which=last", out=tmp_path / "found.json")
        summary = json.loads((runs / family / "summary.json").read_text())
        assert found == pytest.approx(summary["metrics"]["final"]["raw"])


def test_evaluate_measures_the_labels_of_a_file(
    runs: Path, data_root: Path, tmp_path: Path
) -> None:
    data = DataModule(instantiate(configuration("folder=here", "data=digits").data), 8)
    data.prepare_data()
    data.setup()
    x, y = data.test.x[:128, 0].numpy(), data.test.y[:128].numpy()
    settings = ("data=digits", "metrics=brief")
    for labels, at_most in ((y, None), ((y + 1) % 10, 0.1)):
        np.savez(tmp_path / "digits.npz", images=x, labels=labels)
        file = f"images={tmp_path / 'digits.npz'}"
        gan_test = evaluated(file, *settings, out=tmp_path / "found.json")["digits_gan_test"]
        assert gan_test < at_most if at_most else gan_test > 0.8
    np.savez(tmp_path / "digits.npz", images=x, labels=y + 10)
    with pytest.raises(SystemExit):
        evaluated(file, *settings, out=tmp_path / "found.json")
