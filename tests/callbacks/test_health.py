"""Warnings of collapse and of stuck networks, and the end of a run that has diverged."""

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from helpers.config import configuration, settings_of
from helpers.gan import fit, small_gan
from helpers.launch import BRIEF
from hydra.utils import instantiate
from torch import Tensor

from ganmnist.callbacks import Health, LastCheckpoint, Scalars
from ganmnist.gan import GAN
from ganmnist.networks import dcgan
from ganmnist.runs.folders import conf_dir
from ganmnist.train import train
from ganmnist.utils.batch import Batch
from ganmnist.utils.errors import UserError


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_ends_the_run(value: float) -> None:
    health, gan = Health(), small_gan()
    health.on_scalars({7: {"train/d/loss": 1.0, "train/g/loss": 2.0}}, gan)
    with pytest.raises(UserError, match=r"train/g/loss .* 1,234"):
        health.on_scalars({1233: {"train/g/loss": 1.0}, 1234: {"train/g/loss": value}}, gan)


def test_diverged_run_stops_and_keeps_its_last_finite_checkpoint(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_step = GAN.run_step

    def diverge(gan: GAN, batches: Sequence[Batch]) -> None:
        run_step(gan, batches)
        if gan.state.batches_seen == 3:  # in the second epoch
            with torch.no_grad():
                next(gan.generator.parameters()).fill_(math.nan)

    monkeypatch.setattr(GAN, "run_step", diverge)
    with pytest.raises(UserError, match="train/d/loss"):
        train(settings_of(f"folder={tmp_path}", *BRIEF, "epochs=2", "model=mlp"))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "batch 4" in summary["error"]
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["batches_seen"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert (tmp_path / "losses.png").is_file()


def test_weights_that_are_not_finite_replace_no_checkpoint(tmp_path: Path) -> None:
    gan = small_gan()
    last = LastCheckpoint(tmp_path)
    trainer = fit(gan, callbacks=[last])
    before = last.path.read_bytes()
    with torch.no_grad():
        gan.discriminator.last.weight[0] = math.inf
    with pytest.raises(UserError, match=r"discriminator\.last\.weight"):
        last.on_train_epoch_end(trainer, gan)
    last.saved_batch = 0  # there is something to save
    last.on_exception(trainer, gan, KeyboardInterrupt())
    assert last.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def warnings_of_epoch(
    caplog: pytest.LogCaptureFixture, health: Health, **scalars: float
) -> list[str]:
    """The warnings at the end of an epoch with these scalars. `__` stands for a slash."""
    caplog.clear()
    named = {name.replace("__", "/"): torch.tensor(value) for name, value in scalars.items()}
    trainer = SimpleNamespace(callback_metrics=named, current_epoch=4)
    with caplog.at_level(logging.WARNING):
        health.on_train_epoch_end(trainer, None)
    return [record.getMessage() for record in caplog.records]


def test_saturated_discriminator_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    assert warnings_of_epoch(caplog, health, epoch__d__advantage=0.97) == []
    [text] = warnings_of_epoch(caplog, health, epoch__d__advantage=0.99)
    assert text.startswith("epoch 5: D separates")
    assert warnings_of_epoch(caplog, health, epoch__d__advantage=0.99) == []


@pytest.mark.parametrize(
    "name", ["metrics__val_class_entropy", "metrics__digits_val_class_entropy"]
)
def test_collapse_is_reported_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    assert warnings_of_epoch(caplog, health, **{name: math.log(10)}) == []
    [text] = warnings_of_epoch(caplog, health, **{name: math.log(2)})
    assert "2.0 classes: mode collapse" in text
    assert warnings_of_epoch(caplog, health, **{name: 0.0}) == []


def test_first_low_entropy_is_no_collapse(caplog: pytest.LogCaptureFixture) -> None:
    """The second one is, and so is a fall after a recovery."""
    health, name = Health(), "metrics__val_class_entropy"
    low, lower, fine = math.log(2), math.log(1.5), math.log(9)
    assert warnings_of_epoch(caplog, health, **{name: low}) == []
    assert warnings_of_epoch(caplog, health, **{name: low}) == []  # not measured in this epoch
    [text] = warnings_of_epoch(caplog, health, **{name: lower})
    assert "1.5 classes" in text
    caplog.clear()
    assert warnings_of_epoch(caplog, health, **{name: fine}) == []
    assert "2.0 classes" in warnings_of_epoch(caplog, health, **{name: low})[0]


def test_coverage_below_half_of_its_maximum_is_collapse(caplog: pytest.LogCaptureFixture) -> None:
    health, name = Health(), "metrics__val_coverage"
    for value in (0.2, 0.5, 0.3):
        assert warnings_of_epoch(caplog, health, **{name: value}) == []
    [text] = warnings_of_epoch(caplog, health, **{name: 0.24})
    assert "val_coverage is 0.24, after 0.50" in text


OBJECTIVES = sorted(path.stem for path in (conf_dir() / "objective").glob("*.yaml"))
# With these, D's loss is constant once D is certain; with minimax, G's loss is too.
SATURATING = {"bce", "bce_logits", "dragan", "feature_matching", "fgan_hellinger", "fgan_js"}
SATURATING |= {"hinge", "minimax", "ragan", "rpgan", "rpgan_r1r2"}
ROWS = 20  # a patience that keeps the tests short


class Constant(dcgan.Discriminator):
    """A discriminator whose logits are 0 and have no gradient."""

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return 0 * super().logits(features, batch)


class Certain(dcgan.Discriminator):
    """A discriminator that is always right: its logits are far above or far below 0."""

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return super().logits(features, batch) + (50.0 if batch.z is None else -50.0)


class QuietScalars(Scalars):
    """Scalars without losses.png."""

    def plot(self, trainer: L.Trainer, gan: GAN) -> None: ...


def gan_with(objective: str, discriminator: type[dcgan.Discriminator], **parts: object) -> GAN:
    """A small GAN with an objective of conf/ and its penalties."""
    config = configuration("data=digits", f"objective={objective}", "lr=1e-3")
    network = discriminator(widths=[4], kernels=[4, 4], strides=[2, 1], norm="none")
    network.per_sample = False  # real and generated images take separate passes
    losses = {"objective": instantiate(config.objective), "penalties": instantiate(config.penalty)}
    return small_gan(discriminator=network, **losses, **parts)


def stuck(
    caplog: pytest.LogCaptureFixture, gan: GAN, batches: int = 3 * ROWS + 1, log_every: int = ROWS
) -> list[tuple[str, int]]:
    """The networks that a training reports as stuck, each with the batch of the warning."""
    caplog.clear()
    callbacks = [QuietScalars(".", log_every, 10**6), Health(patience=ROWS)]
    with caplog.at_level(logging.WARNING, "ganmnist"):
        fit(gan, batches, callbacks=callbacks, intervals=[log_every])
    return networks_in(caplog)


def networks_in(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    found = [
        re.match(r"Batches [\d,]+ to ([\d,]+): .* of ([DG]) ", record.getMessage())
        for record in caplog.records
        if record.name == "ganmnist.callbacks.health"
    ]
    return [(match[2], int(match[1].replace(",", ""))) for match in found if match]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_networks_without_a_gradient_are_reported_once(
    objective: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = [("D", ROWS)]
    if objective != "feature_matching":  # there G learns from features, not from logits
        expected.append(("G", ROWS))
    assert stuck(caplog, gan_with(objective, Constant)) == expected


@pytest.mark.parametrize("objective", sorted(SATURATING))
def test_loss_at_its_bound_is_reported_once(
    objective: str, caplog: pytest.LogCaptureFixture
) -> None:
    """This includes objectives with a penalty, which has a gradient of its own."""
    expected = [("D", ROWS)]
    if objective == "minimax":
        expected.append(("G", ROWS))
    found = stuck(caplog, gan_with(objective, Certain))
    if objective == "rpgan_r1r2":  # the penalties flatten this D, and G then has no gradient either
        found = [warning for warning in found if warning[0] == "D"]
    assert found == expected


@pytest.mark.parametrize(
    "settings", [{"d_steps": 2}, {"accumulate": 2}, {"resample_fakes": True}, {"g_steps": 2}]
)
@pytest.mark.parametrize("log_every", [1, 7])
def test_stuck_networks_are_found_with_rare_updates_and_short_windows(
    settings: dict[str, int], log_every: int, caplog: pytest.LogCaptureFixture
) -> None:
    found = stuck(caplog, gan_with("lsgan", Constant, **settings), 3 * ROWS, log_every)
    assert sorted(name for name, _ in found) == ["D", "G"]


def test_zero_gradient_is_reported_where_the_loss_varies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G has no gradient from a D whose output is its bias."""
    gan = gan_with("lsgan", Constant)
    bias = torch.nn.Parameter(torch.tensor(3.0))
    gan.discriminator.bias = bias
    gan.discriminator.logits = lambda features, batch: 0 * features.sum(1) + bias
    assert stuck(caplog, gan) == [("G", 3 * ROWS)]


def test_fewer_batches_than_the_patience_are_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert stuck(caplog, gan_with("bce", Constant), ROWS - 1, log_every=1) == []


def test_network_that_recovers_may_be_reported_again(caplog: pytest.LogCaptureFixture) -> None:
    health, gan = Health(patience=ROWS), gan_with("bce", Constant)
    first, second = ([*range(n * ROWS + 1, (n + 1) * ROWS + 1)] for n in (0, 2))
    with caplog.at_level(logging.WARNING, "ganmnist"):
        health.on_scalars({step: {"train/d/loss": 100.0} for step in first}, gan)
        resumed = Health(patience=ROWS)
        resumed.load_state_dict(health.state_dict())
        resumed.on_scalars({ROWS + 1: {"train/d/loss": 100.0}}, gan)
        assert networks_in(caplog) == [("D", ROWS)]
        for p in gan.parameters_of["d"]:
            p.grad = torch.ones_like(p)
        resumed.on_scalars({step: {"train/d/loss": 1 / step} for step in range(22, 41)}, gan)
        resumed.on_scalars({step: {"train/d/loss": 100.0} for step in second}, gan)
    assert networks_in(caplog) == [("D", ROWS), ("D", 3 * ROWS)]


def test_tiny_losses_of_a_clipped_critic_are_not_constant(
    caplog: pytest.LogCaptureFixture,
) -> None:
    health, gan = Health(patience=ROWS), gan_with("wgan", Constant)
    for p in gan.parameters():
        p.grad = torch.ones_like(p)
    rows = {
        step: {"train/d/loss": 1e-9 * step, "train/d/real_logit": 1e-4, "train/d/fake_logit": 1e-4}
        for step in range(1, 3 * ROWS)
    }
    with caplog.at_level(logging.WARNING, "ganmnist"):
        health.on_scalars(rows, gan)
    assert networks_in(caplog) == []


SHORT = ("data=digits", "experiment=debug", "trainer=cpu", "metrics=none", "epochs=1")
SHORT += (
    "batch_size=16",
    "~callbacks.samples",
    "callbacks.health.patience=20",
    "sample_every=20",
    "log_every=20",
)


@pytest.mark.parametrize(
    "objective", ["bce", "hinge", "wgan_gp", "lsgan", "rpgan", "feature_matching"]
)
def test_healthy_run_has_no_warning(
    objective: str,
    tmp_path: Path,
    data_root: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ganmnist.runs.training.write_report", lambda folder: None)
    monkeypatch.setattr(Scalars, "plot", QuietScalars.plot)
    settings = [f"objective={objective}", "trainer.limit_train_batches=40"]
    if objective == "wgan_gp":  # it refuses batch norm
        settings.append("model.discriminator.norm=layer")
    train(settings_of(f"folder={tmp_path}", *SHORT, *settings))
    assert networks_in(caplog) == []


def test_stuck_run_has_the_warning_in_its_log(
    tmp_path: Path, data_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A huge lr drives the logits of objective=bce to where the sigmoid has no gradient."""
    settings = ("lr=1", "model.discriminator.norm=none", "trainer.limit_train_batches=40")
    train(settings_of(f"folder={tmp_path}", *SHORT, "objective=bce", *settings))
    messages = [record.getMessage() for record in caplog.records]
    [of_d] = [message for message in messages if " of D " in message]
    assert "100.000" in of_d
    assert "objective=bce_logits" in of_d
    assert {name for name, _ in networks_in(caplog)} == {"D", "G"}
