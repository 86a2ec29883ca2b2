"""A run that goes wrong says so, once."""

import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import configuration, fit, small_gan
from launch import BRIEF

from ganmnist.callbacks import Health, LastCheckpoint
from ganmnist.duel import Sample
from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.train import train


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_run(value: float) -> None:
    health = Health()
    health.look_at({7: {"train/d/loss": 1.0, "train/g/loss": 2.0}})
    with pytest.raises(UserError, match=r"train/g/loss is -?(nan|inf) at batch 1,234"):
        health.look_at({1233: {"train/g/loss": 1.0}, 1234: {"train/g/loss": value}})


def test_a_diverged_run_stops_and_keeps_its_last_finite_checkpoint(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = GAN.play

    def diverges(gan: GAN, batch: Sample) -> None:
        play(gan, batch)
        if gan.batches_seen == 3:  # of the second epoch
            with torch.no_grad():
                next(gan.generator.parameters()).fill_(math.nan)

    monkeypatch.setattr(GAN, "play", diverges)
    with pytest.raises(UserError, match=r"train/d/loss is nan at batch 4: the run has diverged"):
        train(configuration(f"folder={tmp_path}", *BRIEF, "epochs=2", "model=mlp"))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "at batch 4" in summary["error"]
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["batches_seen"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert (tmp_path / "losses.png").is_file()


def test_weights_that_are_no_numbers_replace_no_checkpoint(tmp_path: Path) -> None:
    gan = small_gan()
    keeper = LastCheckpoint(tmp_path)
    trainer = fit(gan, callbacks=[keeper])
    before = keeper.path.read_bytes()
    with torch.no_grad():
        gan.discriminator.last.weight[0] = math.inf
    with pytest.raises(UserError, match=r"discriminator\.last\.weight is not finite after batch 3"):
        keeper.on_train_epoch_end(trainer, gan)
    keeper.batch = 0  # as if there were something to save
    keeper.on_exception(trainer, gan, KeyboardInterrupt())
    assert keeper.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def epoch_with(caplog: pytest.LogCaptureFixture, health: Health, **scalars: float) -> list[str]:
    """What is said at the end of an epoch with these scalars, `__` for a slash."""
    caplog.clear()
    named = {name.replace("__", "/"): torch.tensor(value) for name, value in scalars.items()}
    trainer = SimpleNamespace(callback_metrics=named, current_epoch=4)
    with caplog.at_level(logging.WARNING):
        health.on_train_epoch_end(trainer, None)
    return [record.getMessage() for record in caplog.records]


def test_a_d_that_has_won_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    assert epoch_with(caplog, health, epoch__d__advantage=0.97) == []
    [said] = epoch_with(caplog, health, epoch__d__advantage=0.99)
    assert said.startswith("epoch 5: D tells real from generated")
    assert epoch_with(caplog, health, epoch__d__advantage=0.99) == []


@pytest.mark.parametrize(
    "name", ["metrics__val_class_entropy", "metrics__digits_val_class_entropy"]
)
def test_collapse_is_told_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    assert epoch_with(caplog, health, **{name: math.log(10)}) == []
    [said] = epoch_with(caplog, health, **{name: math.log(2)})
    assert "about 2.0 digits: mode collapse" in said
    assert epoch_with(caplog, health, **{name: 0.0}) == []


def test_a_gan_that_knows_nothing_yet_has_not_collapsed(caplog: pytest.LogCaptureFixture) -> None:
    """Low at first is a beginning; low twice running is not, nor is a fall after a recovery."""
    health, name = Health(), "metrics__val_class_entropy"
    low, lower, fine = math.log(2), math.log(1.5), math.log(9)
    assert epoch_with(caplog, health, **{name: low}) == []
    assert epoch_with(caplog, health, **{name: low}) == []  # not measured in this epoch
    [said] = epoch_with(caplog, health, **{name: lower})
    assert "about 1.5 digits" in said
    caplog.clear()
    assert epoch_with(caplog, health, **{name: fine}) == []
    assert "about 2.0 digits" in epoch_with(caplog, health, **{name: low})[0]


def test_a_coverage_that_halves_is_collapse(caplog: pytest.LogCaptureFixture) -> None:
    health, name = Health(), "metrics__val_coverage"
    for value in (0.2, 0.5, 0.3):
        assert epoch_with(caplog, health, **{name: value}) == []
    [said] = epoch_with(caplog, health, **{name: 0.24})
    assert "near 24% of the real ones, after 50%: mode collapse" in said
