"""last.ckpt on a full disk, and of a run that has diverged."""

from pathlib import Path

import lightning as L
import pytest
import torch
from helpers.files import block_writes
from helpers.gan import fit, small_gan

from ganmnist.callbacks import LastCheckpoint
from ganmnist.gan import GAN
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import tolerate_write_errors


def test_checkpoint_that_cannot_be_written_goes_to_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    last = LastCheckpoint(tmp_path)

    class FullAfterTwoEpochs(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
            if gan.state.epochs_seen == 2:
                block_writes(last.path)

    monkeypatch.setattr("ganmnist.callbacks.checkpoint.gettempdir", lambda: str(tmp_path / "tmp"))
    with tolerate_write_errors():
        fit(small_gan(), batches=2, epochs=4, callbacks=[FullAfterTwoEpochs(), last])
    assert torch.load(last.path, weights_only=True)["epochs_seen"] == 2
    [elsewhere] = (tmp_path / "tmp").glob("ganmnist_*_last.ckpt")
    assert torch.load(elsewhere, weights_only=True)["epochs_seen"] == 4
    assert str(elsewhere) in caplog.text
    # It resumes bit-exactly.
    whole, resumed = small_gan(), small_gan()
    fit(whole, batches=2, epochs=5)
    fit(resumed, batches=2, epochs=5, ckpt_path=elsewhere)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_without_a_temporary_folder_nothing_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_folder() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    last = LastCheckpoint(tmp_path / "run")
    block_writes(last.path)
    monkeypatch.setattr("ganmnist.callbacks.checkpoint.gettempdir", no_folder)
    with tolerate_write_errors() as errors:
        fit(small_gan(), callbacks=[last])
    assert [*errors] == [last.path]


@pytest.mark.parametrize(("value", "part"), [(1e6, "has a weight of 1e+06"), (torch.nan, "finite")])
def test_checkpoint_of_a_diverged_run_is_not_written(
    value: float, part: str, tmp_path: Path
) -> None:
    class Diverging(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, gan: GAN, *args: object) -> None:
            with torch.no_grad():
                next(gan.discriminator.parameters()).view(-1)[0] = value

    with pytest.raises(UserError, match="diverged") as raised:
        fit(small_gan(), callbacks=[Diverging(), LastCheckpoint(tmp_path)])
    assert part in str(raised.value)
    assert not [*tmp_path.glob("*.ckpt")]
