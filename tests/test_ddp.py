"""Two processes on the CPU: equal weights, images and latents of their own, and one folder."""

import csv
import json
from pathlib import Path

import torch
from launch import BRIEFLY_MEASURED, command

SPY = """
import torch
from lightning.pytorch.callbacks import Callback


class Spy(Callback):
    def __init__(self, folder):
        self.folder, self.x, self.z = folder, [], []

    def on_train_start(self, trainer, gan):
        fake = gan.fake

        def noted(batch, z):
            self.z.append(z)
            return fake(batch, z)

        gan.fake = noted
        self.before = {name: p.detach().clone() for name, p in gan.named_parameters()}

    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        self.x += [sample.x for sample in batch]

    def on_train_end(self, trainer, gan):
        after = {name: p.detach() for name, p in gan.named_parameters()}
        seen = {"x": torch.stack(self.x), "z": torch.stack(self.z)}
        saved = {"before": self.before, "after": after, **seen}
        torch.save(saved, f"{self.folder}/rank{trainer.global_rank}.pt")
"""


def test_two_processes_train_one_gan(tmp_path: Path, data_root: Path) -> None:
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "conf/callbacks").mkdir(parents=True)
    (tmp_path / "conf/callbacks/spy.yaml").write_text(
        "defaults: [default]\nspy: {_target_: spy.Spy, folder: '${folder}'}\n"
    )
    two = ("trainer=ddp", "trainer.gpus=0", "trainer.devices=2", "batch_size=16", "data=digits")
    few = ("experiment=quick", "epochs=2", "trainer.limit_train_batches=3", "every=2")
    few = (*few, *BRIEFLY_MEASURED)
    done = command("--config-dir", "conf", "callbacks=spy", *two, *few, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stderr

    [folder] = (tmp_path / "logs/quick").iterdir()
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in (0, 1))
    for name, weight in first["after"].items():
        assert torch.equal(first["before"][name], second["before"][name]), name
        assert torch.equal(weight, second["after"][name]), name
        assert not torch.equal(weight, first["before"][name]), name

    def different(*draws: torch.Tensor) -> int:
        return len({one.numpy().tobytes() for batches in draws for one in batches.flatten(0, 1)})

    for epoch in (slice(0, 3), slice(3, 6)):
        assert different(first["x"][epoch], second["x"][epoch]) == 2 * 3 * 16
    assert different(first["z"], second["z"]) == 2 * 6 * 16

    with (folder / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5", "6"]
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["batches_seen"], summary["images_seen"]) == (6, 6 * 2 * 16)
    assert [path.name for path in folder.glob("*.log")] == ["train.log"]
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, weight in first["after"].items():
        assert torch.equal(saved[name], weight), name
