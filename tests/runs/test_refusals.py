"""Wrong files and settings give one sentence and exit code 2.

No existing file changes, no code of a file runs, and there is no stack trace. test_command_line.py
has the mistakes that are found before torch is imported.
"""

import gzip
import json
import logging
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.config import settings_of
from helpers.launch import BRIEFLY_MEASURED
from hydra.core.global_hydra import GlobalHydra

from ganmnist.data import datasets
from ganmnist.runs import resume
from ganmnist.train import train

RING = "data=ring8 data.n=500"
# A command line, and a part of its message: the setting, its value or the file.
TRAIN = {
    # Files of images
    "data=mnist data.root=text.txt": "data.root",
    "data=mnist data.root=idx/good/FashionMNIST": "MD5",
    "data=auto data.root=idx/good/FashionMNIST": "MD5",
    "data=fashion_mnist data.root=idx/truncated": "15,696",
    "data=fashion_mnist data.root=idx/empty": "train-images-idx3-ubyte",
    "data=fashion_mnist data.root=idx/zip": "50 4b 03 04",
    "data=fashion_mnist data.root=idx/larger": "(20, 32, 32)",
    "data=fashion_mnist data.root=idx/none": "(0, 28, 28)",
    "data=fashion_mnist data.root=idx/labels": "10",
    "data=fashion_mnist data.root=idx/fewer": "7 labels",
    "data=fashion_mnist data.root=idx/swapped": "00 00 08 03",
    "data=fashion_mnist data.root=idx/gz": ".gz",
    "data=fashion_mnist data.root=idx/good": "FashionMNIST",
    "metrics.classifier=text.txt": "text.txt",
    # Data
    "data.channels=0": "channels=0",
    "data.channels=2": "2",
    "data=ring8 data.n=0": "data.n=0",
    "data=ring8 data.std=-1": "data.std=-1",
    "data=ring8 data.scale=0": "data.scale=0",
    "data=ring8 data.modes=0": "data.modes=0",
    "data=grid25 data.side=0": "data.side=0",
    f"{RING} model=dcgan": "(2, 28, 28)",
    f"{RING} metrics=default": "ring8",
    "metrics=plane": "metrics=plane",
    "metrics=none callbacks=plane": "(1, 28, 28)",
    "datamodule.chunk=0": "datamodule.chunk=0",
    "data.image_size=0": "data.image_size=0",
    "batch_size=4000": "batch_size=4000",
    # Parts that exclude each other
    "model=dcgan stabilizer=spectral_norm model.discriminator.norm=layer": "norm=none",
    "objective=wgan penalty=dragan": "dragan",
    "stabilizer=unrolled penalty=r1": "r1",
    "objective=wgan stabilizer=label_smoothing": "label_smoothing",
    "model=dcgan model.discriminator.norm=batch penalty=gradient_penalty": (
        "model.discriminator.norm=layer"
    ),
    # Values out of range
    "trainer.limit_train_batches=0.5": "trainer.limit_train_batches=0.5",
    "sample_every=0": "sample_every=0",
    "log_every=0": "log_every=0",
    "penalty=r1 penalty.r1.gamma=-1": "gamma=-1",
    "penalty=r1 penalty.r1.interval=0": "interval=0",
    "penalty=historical_average penalty.historical_average.weight=-1": "weight=-1",
    "optimizer.d.betas=[0.9]": "optimizer.d",
    "optimizer.d.betas=[0,0.99]": "optimizer.d",
    "optimizer.g.betas=0.5": "optimizer.g",
    "optimizer.g.lr=null": "optimizer.g",
    "checkpoint.every_n_batches=-1": "checkpoint.every_n_batches=-1",
    "checkpoint.every_minutes=0": "checkpoint.every_minutes=0",
    "metrics.n=1": "metrics.n=1",
    "metrics.n=5": "metrics.table.prdc",
    "metrics.val_n=0": "metrics.val_n=0",
    "callbacks.evaluation.monitor=fid": "fid",
    "objective.smoothing=1": "smoothing=1",
    "schedule=cosine schedule.lr.factor.until=0": "until=0",
    "hydra.run.dir=text.txt": "text.txt",
    "hydra.run.dir=text.txt/run": "text.txt/run",
}
RESUME = {
    "resume=nowhere": "resume=nowhere",
    "resume=text.txt": "resume=text.txt",
    "resume=runs": "last.ckpt",
    "resume=runs/module": "evil.Evil",
    "resume=runs/truncated": "last.ckpt",
    "resume=runs/pickle": "last.ckpt",
    "resume=runs/without": "hyper_parameters",
    "resume=runs/settings": "no settings of a run",
    "resume=runs/weights": "discriminator.",
    "resume=runs/other": "has (16, 100), not (7, 100)",
    "resume=runs/newer": "ganmnist 99.1",
}
# For evaluate and for generate
CHECKPOINTS = {
    "run=runs": "runs",
    "run=runs/settings which=best": "which=last",
    "ckpt=text.txt": "text.txt",
    "ckpt=images.npz": "images.npz",
    "ckpt=bad/empty.ckpt": "empty.ckpt",
    "ckpt=bad/truncated.ckpt": "truncated.ckpt",
    "ckpt=bad/pickle.ckpt": "pickle.ckpt",
    "ckpt=bad/inside.ckpt": "inside.ckpt",
    "ckpt=bad/tensor.ckpt": "tensor.ckpt",
    "ckpt=bad/without.ckpt": "hyper_parameters",
    "ckpt=bad/nothing.ckpt": "nothing.ckpt",
    "ckpt=bad/weights.ckpt": "state_dict",
    "ckpt=bad/latent.ckpt": "latent.ckpt",
    "ckpt=bad/newer.ckpt": "ganmnist 99.1",
    "ckpt=bad/newer_weights.ckpt": "ganmnist 99.1",
    "ckpt=bad/newer_format.ckpt": "ganmnist 99.1",
    "ckpt=bad/diverged.ckpt": "not finite",
    "ckpt=bad/system.ckpt": "trusted_modules=[os]",
    "ckpt=bad/popen.ckpt": "subprocess.Popen",
    "ckpt=bad/eval.ckpt": "builtins.eval",
    "ckpt=bad/detour.ckpt": "ganmnist.runs.command_line.os.system",
    "ckpt=bad/module.ckpt": "trusted_modules=[evil]",
    "run=run device=warp": "device=warp",
    "run=run which=newest": "which=newest",
    "run=run trusted_modules=5": "trusted_modules=[5]",
}
EVALUATE = {
    "ckpt=bad/data.ckpt": "evil.Evil",
    "ckpt=bad/metrics.ckpt": "evil.Evil",
    "ckpt=bad/text.ckpt": "metrics.n=ten",
    "run=run out=idx": "out=idx",
    "run=run data=fashion_mnist data.root=idx/labels": "10",
    "run=run data=mnist data.root=text.txt": "data.root",
    "run=run +data.sides=3": "'sides'",
    "run=run metrics=plane": "metrics=plane",
    "run=run metrics.n=0": "metrics.n=0",
    "run=ring data=grid25": "data=",
    "run=ring data.std=0.1": "data.std",
    "run=ring +data.std=0": "data.std=0",
    "run=ring data=digits": "data=",
    "images=bad/truncated.ckpt data=digits": "truncated.ckpt",
    "images=weights.npz data=digits": "weights.npz",
    "images=idx data=digits": "idx",
}
GENERATE = {
    "run=run out=folder.png": "out=folder.png",
    "run=run out=text.txt/x.png": "out=text.txt/x.png",
    "run=run n=0": "n=0",
    "run=run n=1000000000000": "memory",
    "run=run labels=0": "labels=[0]",
    "run=ring": "2",
}
CASES = [
    *(("train", words, part) for words, part in {**TRAIN, **RESUME}.items()),
    *(("evaluate", words, part) for words, part in {**CHECKPOINTS, **EVALUATE}.items()),
    *(("generate", words, part) for words, part in {**CHECKPOINTS, **GENERATE}.items()),
]
DEFAULTS = {
    "train": ("model=mlp", "data=digits", "trainer=cpu", "logger=none", "hydra.run.dir=new"),
    "evaluate": ("out=new.json",),
    "generate": ("out=new.png",),
}


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def put_images(root: Path) -> None:
    """Small files in the format of MNIST, damaged in many ways."""
    good = {}
    for part, n in (("train", 20), ("t10k", 10)):
        good[f"{part}-images-idx3-ubyte"] = idx(np.zeros((n, 28, 28)))
        good[f"{part}-labels-idx1-ubyte"] = idx(np.arange(n) % 10)
    x, y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
    ways: dict[str, dict[str, bytes]] = {
        "good": {},
        "truncated": {x: good[x][:700]},
        "empty": {x: b""},
        "zip": {x: b"PK\x03\x04" + good[x]},
        "larger": {x: idx(np.zeros((20, 32, 32)))},
        "none": {x: idx(np.zeros((0, 28, 28)))},
        "labels": {y: idx(np.full(20, 10))},
        "fewer": {y: idx(np.zeros(7))},
        "swapped": {y: good[x]},
    }
    for way, files in ways.items():
        folder = root / way / "FashionMNIST/raw"
        folder.mkdir(parents=True)
        for name, content in (good | files).items():
            (folder / name).write_bytes(content)
    shutil.copytree(root / "good/FashionMNIST/raw", root / "good/FashionMNIST/MNIST/raw")
    folder = root / "gz/FashionMNIST/raw"
    folder.mkdir(parents=True)
    for name, content in good.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content)[:-9])


def put_checkpoints(folder: Path, whole: bytes, checkpoint: dict[str, Any]) -> None:
    """A good checkpoint, changed in many ways."""

    def put(name: str, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
        changed = deepcopy(checkpoint)
        change(changed, changed["hyper_parameters"])
        torch.save(changed, folder / f"{name}.ckpt")

    def weights(c: dict[str, Any], s: dict[str, Any]) -> None:
        c["state_dict"].popitem()

    def new_class(c: dict[str, Any], s: dict[str, Any]) -> None:
        c["ganmnist"] = "99.1"
        s["family"]["generator"]["_target_"] = "ganmnist.networks.of_the_future.Generator"

    def diverged(c: dict[str, Any], s: dict[str, Any]) -> None:
        next(iter(c["state_dict"].values())).fill_(torch.nan)

    folder.mkdir()
    (folder / "empty.ckpt").touch()
    (folder / "truncated.ckpt").write_bytes(whole[: len(whole) // 2])
    (folder / "pickle.ckpt").write_bytes(pickle.dumps(Hostile()))
    torch.save({**checkpoint, "callbacks": Hostile()}, folder / "inside.ckpt")
    torch.save(torch.zeros(3), folder / "tensor.ckpt")
    put("without", lambda c, s: c.pop("hyper_parameters"))
    put("nothing", lambda c, s: c.update(hyper_parameters=None))
    put("settings", lambda c, s: s.pop("data"))
    put("weights", weights)
    put("latent", lambda c, s: s["family"]["latent"].update(dim=3))
    put("other", lambda c, s: s["family"]["generator"].update(widths=[7]))
    put("newer", new_class)
    put("newer_weights", lambda c, s: (weights(c, s), c.update(ganmnist="99.1")))
    put("newer_format", lambda c, s: (c.pop("hyper_parameters"), c.update(ganmnist="99.1")))
    put("diverged", diverged)
    for name, target in (
        ("system", "os.system"),
        ("popen", "subprocess.Popen"),
        ("eval", "builtins.eval"),
        ("detour", "ganmnist.runs.command_line.os.system"),
        ("module", "evil.Evil"),
    ):
        node = {"_target_": target, "args": "mkdir pwned", "command": "mkdir pwned"}
        put(name, lambda c, s, node=node: s["family"].update(latent=node))
    put("data", lambda c, s: s["data"].update(_target_="evil.Evil"))
    put("metrics", lambda c, s: s["metrics"].update(_target_="evil.Evil"))
    put("text", lambda c, s: s["metrics"].update(n="ten"))


def put_runs(root: Path, bad: Path) -> None:
    """Folders of runs that cannot be resumed."""
    names = ("truncated", "pickle", "without", "settings", "weights", "other", "newer", "module")
    for name in names:
        (root / name / "checkpoints").mkdir(parents=True)
        shutil.copy(bad / f"{name}.ckpt", root / name / resume.LAST)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """A folder with damaged files, and two good runs."""
    root = tmp_path_factory.mktemp("wrong")
    words = ("model=mlp", "model.generator.widths=[16]", "data=digits")
    brief = ("trainer=cpu", "logger=none", "epochs=1", "trainer.limit_train_batches=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GANMNIST_DATA", str(digits_root))
        quick = ("metrics=quick", *BRIEFLY_MEASURED, *brief)
        train(settings_of("folder=run", *words, *quick))
        train(settings_of("folder=ring", "data=ring8", "data.n=500", *BRIEFLY_MEASURED, *brief))
    run = root / "run"
    whole = (run / resume.LAST).read_bytes()
    put_images(root / "idx")
    put_checkpoints(root / "bad", whole, torch.load(run / resume.LAST, weights_only=True))
    put_runs(root / "runs", root / "bad")
    (root / "text.txt").write_text("neither weights nor images\n")
    (root / "evil.py").write_text("import os\nos.mkdir('pwned')\n\n\nclass Evil: ...\n")
    (root / "folder.png").mkdir()
    np.savez(root / "images.npz", images=np.zeros((3, 28, 28), np.uint8))
    np.savez(root / "weights.npz", weights=np.zeros(3))
    return root


@pytest.fixture(scope="module")
def before(folder: Path) -> dict[Path, bytes]:
    """Every file in it."""
    return files(folder)


@pytest.fixture
def here(
    folder: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], int]]:
    """Runs a command in `folder`, without a network, and returns its exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)  # as with python -m
    monkeypatch.setattr(datasets, "unreachable", lambda urls: "no network in this test")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # undone afterwards
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start(entry: str, words: str) -> int:
        GlobalHydra.instance().clear()
        typed = words.split()
        given = {word.partition("=")[0] for word in typed}
        defaults = [w for w in DEFAULTS[entry] if w.partition("=")[0] not in given]
        monkeypatch.setattr(sys, "argv", [entry, *([] if "resume" in given else defaults), *typed])
        with pytest.raises(SystemExit) as leaving:
            import_module(f"ganmnist.{entry}").main()
        return leaving.value.code

    yield start
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    GlobalHydra.instance().clear()
    shutil.rmtree(folder / "new", ignore_errors=True)


def files(root: Path) -> dict[Path, bytes]:
    """All files but the log and the folder of a refused run."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".log")
    return {path: path.read_bytes() for path in paths if root / "new" not in path.parents}


@pytest.mark.parametrize(("entry", "words", "part"), CASES)
def test_mistake_gives_one_sentence_and_exit_code_2(
    entry: str,
    words: str,
    part: str,
    here: Callable[[str, str], int],
    folder: Path,
    before: dict[Path, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert here(entry, words) == 2
    error = capsys.readouterr().err
    assert error.startswith("ganmnist: ")
    assert error.count("\n") == 1
    assert part in error
    assert files(folder) == before
    assert not (folder / "pwned").exists()
    assert "evil" not in sys.modules
    new = folder / "new"
    assert not [*new.rglob("*.ckpt")]
    if (new / "summary.json").exists():
        assert json.loads((new / "summary.json").read_text())["status"] == "failed"


def test_interpolation_in_a_checkpoint_stays_a_text(
    folder: Path,
    here: Callable[[str, str], int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = torch.load(folder / "run" / resume.LAST, weights_only=True)
    checkpoint["hyper_parameters"]["metrics"]["classifier"] = "${unique_dir:pwned}"
    torch.save(checkpoint, tmp_path / "text.ckpt")
    assert here("evaluate", f"ckpt={tmp_path / 'text.ckpt'}") == 2
    assert "${unique_dir:pwned}" in capsys.readouterr().err
    assert not (folder / "pwned").exists()
