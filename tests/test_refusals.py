"""What is wrong with files and settings is refused: one sentence with the way out, exit code 2.

Nothing that was there is touched, nothing that a file says is run, and no stack trace is shown.
The mistakes that are answered before torch is imported are in test_cli.py.
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
from conftest import configuration
from hydra.core.global_hydra import GlobalHydra
from launch import BRIEFLY_MEASURED

from ganmnist import resume
from ganmnist.data import datasets
from ganmnist.train import train

RING = "data=ring8 data.n=500"
TRAIN = {
    # Files of images
    "data=mnist data.root=text.txt": "name the folder that has them with data.root",
    "data=mnist data.root=idx/good/FashionMNIST": "is not the original: its MD5 is",
    "data=auto data.root=idx/good/FashionMNIST": "put the original file there, or move this one",
    "data=fashion_mnist data.root=idx/truncated": "700 bytes where its header promises 15,696",
    "data=fashion_mnist data.root=idx/empty": "does not begin like an IDX file of 3 dimension(s)",
    "data=fashion_mnist data.root=idx/zip": "but with '50 4b 03 04': put the original file there",
    "data=fashion_mnist data.root=idx/larger": "an array (20, 32, 32), not ('N', 28, 28): put",
    "data=fashion_mnist data.root=idx/none": "an array (0, 28, 28), not ('N', 28, 28): put",
    "data=fashion_mnist data.root=idx/labels": "has a label 10, over 9: put the original file",
    "data=fashion_mnist data.root=idx/fewer": "7 labels for the 20 images of",
    "data=fashion_mnist data.root=idx/swapped": "IDX file of 1 dimension(s) but with '00 00 08 03'",
    "data=fashion_mnist data.root=idx/gz": ".gz cannot be read (Compressed file ended before",
    "data=fashion_mnist data.root=idx/good": "no classifier for the metrics of FashionMNIST yet",
    "metrics.classifier=text.txt": "text.json does not describe text.txt",
    # Data
    "data.channels=0": "channels=0 leaves no image: use 1 (grey) or 3 (RGB)",
    "data.channels=2": "2 channels are no picture, which has 1 (grey) or 3 (RGB)",
    "data=ring8 data.n=0": "data.n=0 leaves no points: choose one above 0",
    "data=ring8 data.std=-1": "data.std=-1 leaves no points: choose one above 0",
    "data=ring8 data.scale=0": "data.scale=0 leaves no points: choose one above 0",
    "data=ring8 data.modes=0": "ring data without a mode leave no points: ask for 1 or more",
    "data=grid25 data.side=0": "grid data without a mode leave no points: ask for 1 or more",
    f"{RING} model=dcgan": "draws points, and ring8 are images of shape (2, 28, 28): leave it",
    f"{RING} metrics=default": "monitor=jsd is not measured: choose one of val_fid, val_fid_ema",
    "metrics=plane": "monitor=val_fid is not measured: choose one of jsd, jsd_ema",
    "metrics=none callbacks=plane": "draws points, and digits are images of shape (1, 28, 28)",
    "datamodule.chunk=0": "datamodule.chunk=0 leaves nothing: choose 1 or more",
    "datamodule.image_size=0": "datamodule.image_size=0 leaves nothing: choose 1 or more",
    "batch_size=4000": "batch_size=4000 on 1 process(es) is more than the 3000 training images",
    # Parts that make no sense together
    "model=dcgan stabilizer=spectral_norm model.discriminator.norm=layer": "norm=none, or a model",
    "objective=wgan penalty=dragan": "wasserstein and dragan both bound D's slope: leave one out",
    "stabilizer=unrolled penalty=r1": "Unrolled steps cannot follow r1: choose an objective",
    "objective=wgan stabilizer=label_smoothing": "which takes no 'smoothing': leave out what sets",
    "model=dcgan model.discriminator.norm=batch penalty=gradient_penalty": (
        "choose model.discriminator.norm=layer or none"
    ),
    # Values out of range
    "trainer.limit_train_batches=0.5": "choose a number of batches, not a share",
    "every=0": "every=0 is out of range: every takes a whole number of at least 1",
    "log_every=0": "log_every=0 is out of range: log_every takes a whole number of at least 1",
    "trust=mine": "trust=mine: this takes a list of modules, such as trust=[mine]",
    "penalty=r1 terms.r1.gamma=-1": "the weight of R1 is -1: choose a number of at least 0",
    "penalty=r1 terms.r1.every=0": "every=0 is no number of updates: choose 1 or more",
    "penalty=historical_average terms.historical_average.weight=-1": "choose a number of at least",
    "optimizer.d.betas=[0.9]": "betas are two numbers with a point, such as [0.0,0.99]",
    "optimizer.d.betas=[0,0.99]": "betas are two numbers with a point, such as [0.0,0.99]",
    "optimizer.g.betas=0.5": "betas are two numbers with a point, such as [0.0,0.99]",
    "optimizer.g.lr=null": "The optimisers cannot be built",
    "checkpoint.every_n_batches=-1": "every_n_batches=-1: choose one above 0, or null",
    "checkpoint.every_minutes=0": "every_minutes=0: choose one above 0, or null",
    "metrics.n=1": "metrics.n=1: to compare them takes 2 or more",
    "metrics.n=5": "5 generated images are too few for metrics.table.prdc, which takes 6 or more",
    "metrics.val_n=0": "metrics.val_n=0: to compare them takes 2 or more",
    "callbacks.evaluation.monitor=fid": "choose one of val_fid, val_fid_ema, or other metrics",
    "objective.smoothing=1": "smoothing=1 leaves no target: choose one from 0 to below 1",
    "schedule=cosine schedule.lr.factor.until=0": "choose one above 0, at most 1",
    "hydra.run.dir=text.txt": "text.txt cannot be made",
    "hydra.run.dir=text.txt/run": "choose another folder",
}
NO_CLASS = "which is no class of ganmnist's: if it is yours, add its module"
RESUME = {
    "resume=nowhere": "resume=nowhere: there is no such folder. resume=auto takes the newest",
    "resume=text.txt": "resume=text.txt: there is no such folder. resume=auto takes the newest",
    "resume=runs": "there is no .hydra/overrides.yaml in it, so nothing to go on from",
    "resume=runs/damaged": "overrides.yaml cannot be read",
    "resume=runs/hydra": "which is not taken from a file",
    "resume=runs/elsewhere": "which is not taken from a file",
    "resume=runs/target": f"The settings name evil.Evil, {NO_CLASS}",
    "resume=runs/truncated": "last.ckpt is not a whole checkpoint",
    "resume=runs/pickle": "last.ckpt is not a whole checkpoint",
    "resume=runs/without": "last.ckpt is not a whole checkpoint of ganmnist (it has no hyper_param",
    "resume=runs/settings": "last.ckpt does not fit this version's networks ('data'): choose",
    "resume=runs/weights": "last.ckpt does not fit this version's networks (Error(s) in loading",
    "resume=runs/other": "gan.generator.widths was [7] and is now [16]. Leave that as it was",
    "resume=runs/newer": "last.ckpt was written by ganmnist 99.1, this is",
}
# For evaluate and for generate
CHECKPOINTS = {
    "run=runs": "runs is no checkpoint and no folder of a run that has one: name another",
    "run=runs/settings which=best": "has no best.ckpt: choose one of which=last",
    "ckpt=text.txt": "text.txt is not a whole checkpoint",
    "ckpt=images.npz": "images.npz is not a whole checkpoint",
    "ckpt=bad/empty.ckpt": "empty.ckpt is not a whole checkpoint (EOFError): choose another",
    "ckpt=bad/truncated.ckpt": "truncated.ckpt is not a whole checkpoint",
    "ckpt=bad/pickle.ckpt": "pickle.ckpt is not a whole checkpoint",
    "ckpt=bad/inside.ckpt": "inside.ckpt is not a whole checkpoint",
    "ckpt=bad/tensor.ckpt": "tensor.ckpt is not a whole checkpoint (it holds something else)",
    "ckpt=bad/without.ckpt": "is not a whole checkpoint of ganmnist (it has no hyper_parameters)",
    "ckpt=bad/nothing.ckpt": "does not fit this version's networks ('NoneType' object",
    "ckpt=bad/weights.ckpt": "does not fit this version's networks (Error(s) in loading",
    "ckpt=bad/latent.ckpt": "does not fit this version's networks (mat1 and mat2 shapes",
    "ckpt=bad/newer.ckpt": "newer.ckpt was written by ganmnist 99.1, this is",
    "ckpt=bad/newer_weights.ckpt": "newer_weights.ckpt was written by ganmnist 99.1, this is",
    "ckpt=bad/newer_format.ckpt": "newer_format.ckpt was written by ganmnist 99.1, this is",
    "ckpt=bad/diverged.ckpt": "is not finite, so there is nothing to draw or measure: choose",
    "ckpt=bad/system.ckpt": f"The settings name os.system, {NO_CLASS}, trust=[os]",
    "ckpt=bad/popen.ckpt": f"The settings name subprocess.Popen, {NO_CLASS}",
    "ckpt=bad/eval.ckpt": f"The settings name builtins.eval, {NO_CLASS}",
    "ckpt=bad/detour.ckpt": f"The settings name ganmnist.cli.os.system, {NO_CLASS}",
    "ckpt=bad/module.ckpt": f"The settings name evil.Evil, {NO_CLASS}, trust=[evil]",
    "run=run device=warp": "device=warp is not to be had here",
    "run=run which=newest": "which=newest is out of range: which takes best or last",
    "run=run trust=5": "trust=5: this takes a list of modules",
}
EVALUATE = {
    "ckpt=bad/data.ckpt": f"The settings name evil.Evil, {NO_CLASS}",
    "ckpt=bad/metrics.ckpt": f"The settings name evil.Evil, {NO_CLASS}",
    "ckpt=bad/text.ckpt": "metrics.n=ten: this takes a int",
    "run=run out=idx": "out=idx cannot be written (it is a folder): choose another",
    "run=run data=fashion_mnist data.root=idx/labels": "has a label 10, over 9: put the original",
    "run=run data=mnist data.root=text.txt": "name the folder that has them with data.root",
    "run=run +data.sides=3": "ganmnist.data.datasets.Digits cannot be made of its settings",
    "run=run metrics=plane": "metrics=plane counts the modes of points, and digits are images",
    "run=run metrics.n=0": "metrics.n=0: to compare them takes 2 or more",
    "run=ring data=grid25": "points are measured with the data of their run, so leave it out",
    "run=ring data.std=0.1": "If those of the run have it: +data.std=...",
    "run=ring +data.std=0": "data.std=0 leaves no points: choose one above 0",
    "run=ring data=digits": "leave it out, or choose data=ring8 or data=grid25",
    "images=bad/truncated.ckpt data=digits": "truncated.ckpt is no npz file with an array `images`",
    "images=weights.npz data=digits": "weights.npz is no npz file with an array `images`",
    "images=idx data=digits": "idx is no npz file with an array `images`",
}
GENERATE = {
    "run=run out=folder.png": "out=folder.png cannot be written (it is a folder): choose another",
    "run=run out=text.txt/x.png": "out=text.txt/x.png cannot be written",
    "run=run n=0": "n=0 is out of range: n takes a whole number of at least 1",
    "run=run n=1000000000000": "This device has no memory for that: ask for fewer images",
    "run=ring": "2 channels are no picture, which has 1 (grey) or 3 (RGB)",
}
CASES = [
    *(("train", words, said) for words, said in {**TRAIN, **RESUME}.items()),
    *(("evaluate", words, said) for words, said in {**CHECKPOINTS, **EVALUATE}.items()),
    *(("generate", words, said) for words, said in {**CHECKPOINTS, **GENERATE}.items()),
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
    """MNIST in small, in many ways that it must not be."""
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
    """A good checkpoint, in many ways that it must not be."""

    def put(name: str, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
        changed = deepcopy(checkpoint)
        change(changed, changed["hyper_parameters"])
        torch.save(changed, folder / f"{name}.ckpt")

    def weights(c: dict[str, Any], s: dict[str, Any]) -> None:
        c["state_dict"].popitem()

    def new_class(c: dict[str, Any], s: dict[str, Any]) -> None:
        c["ganmnist"] = "99.1"
        s["gan"]["generator"]["_target_"] = "ganmnist.networks.of_the_future.Generator"

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
    put("latent", lambda c, s: s["gan"]["latent"].update(dim=3))
    put("other", lambda c, s: s["gan"]["generator"].update(widths=[7]))
    put("newer", new_class)
    put("newer_weights", lambda c, s: (weights(c, s), c.update(ganmnist="99.1")))
    put("newer_format", lambda c, s: (c.pop("hyper_parameters"), c.update(ganmnist="99.1")))
    put("diverged", diverged)
    for name, target in (
        ("system", "os.system"),
        ("popen", "subprocess.Popen"),
        ("eval", "builtins.eval"),
        ("detour", "ganmnist.cli.os.system"),
        ("module", "evil.Evil"),
    ):
        node = {"_target_": target, "args": "mkdir pwned", "command": "mkdir pwned"}
        put(name, lambda c, s, node=node: s["gan"].update(latent=node))
    put("data", lambda c, s: s["data"].update(_target_="evil.Evil"))
    put("metrics", lambda c, s: s["metrics"].update(_target_="evil.Evil"))
    put("text", lambda c, s: s["metrics"].update(n="ten"))


def put_runs(root: Path, bad: Path, run: Path) -> None:
    """Runs that somebody would go on with."""
    started = (run / ".hydra/overrides.yaml").read_text()
    evil = os.path.relpath(root / "elsewhere/evil", import_module("ganmnist.paths").conf_dir())
    overrides = {
        "damaged": "- [",
        "hydra": "- hydra.callbacks.x._target_=os.system\n",
        "elsewhere": f"- experiment=../{evil}\n",
        "target": started + "- objective._target_=evil.Evil\n",
        **dict.fromkeys(("truncated", "pickle", "without", "settings", "weights"), started),
        **dict.fromkeys(("other", "newer"), started),
    }
    for name, words in overrides.items():
        for part in (".hydra", "checkpoints"):
            (root / name / part).mkdir(parents=True)
        (root / name / ".hydra/overrides.yaml").write_text(words)
        of_run = bad / f"{name}.ckpt"
        source = of_run if of_run.exists() else run / resume.LAST
        shutil.copy(source, root / name / resume.LAST)
    (root / "elsewhere/evil.yaml").write_text(
        "# @package _global_\nhydra: {callbacks: {x: {_target_: os.mkdir, path: pwned}}}\n"
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """A folder with everything that is wrong, and two runs that are not."""
    root = tmp_path_factory.mktemp("wrong")
    words = ("model=mlp", "model.generator.widths=[16]", "data=digits")
    brief = ("trainer=cpu", "logger=none", "epochs=1", "trainer.limit_train_batches=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GANMNIST_DATA", str(digits_root))
        quick = ("metrics=quick", *BRIEFLY_MEASURED, *brief)
        train(configuration("folder=run", *words, *quick))
        train(configuration("folder=ring", "data=ring8", "data.n=500", *BRIEFLY_MEASURED, *brief))
    run = root / "run"
    (run / ".hydra").mkdir()
    (run / ".hydra/overrides.yaml").write_text("".join(f"- {w}\n" for w in (*words, *quick)))
    whole = (run / resume.LAST).read_bytes()
    put_images(root / "idx")
    put_checkpoints(root / "bad", whole, torch.load(run / resume.LAST, weights_only=True))
    put_runs(root / "runs", root / "bad", run)
    (root / "text.txt").write_text("neither weights nor images\n")
    (root / "evil.py").write_text("import os\nos.mkdir('pwned')\n\n\nclass Evil: ...\n")
    (root / "folder.png").mkdir()
    np.savez(root / "images.npz", images=np.zeros((3, 28, 28), np.uint8))
    np.savez(root / "weights.npz", weights=np.zeros(3))
    return root


@pytest.fixture(scope="module")
def before(place: Path) -> dict[Path, bytes]:
    """Every file in it."""
    return files(place)


@pytest.fixture
def here(
    place: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], int]]:
    """Starts a command in `place`, without a network; its exit code."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)  # as with python -m
    monkeypatch.setattr(datasets, "unreachable", lambda urls: "no network in this test")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # undone afterwards
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start(entry: str, words: str) -> int:
        GlobalHydra.instance().clear()
        asked = words.split()
        given = {word.partition("=")[0] for word in asked}
        defaults = [w for w in DEFAULTS[entry] if w.partition("=")[0] not in given]
        monkeypatch.setattr(sys, "argv", [entry, *([] if "resume" in given else defaults), *asked])
        with pytest.raises(SystemExit) as leaving:
            import_module(f"ganmnist.{entry}").main()
        return leaving.value.code

    yield start
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    GlobalHydra.instance().clear()
    shutil.rmtree(place / "new", ignore_errors=True)


def files(root: Path) -> dict[Path, bytes]:
    """All but what a refused run leaves: its log, and the folder that it made for itself."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".log")
    return {path: path.read_bytes() for path in paths if root / "new" not in path.parents}


@pytest.mark.parametrize(("entry", "words", "said"), CASES)
def test_what_is_wrong_is_refused_in_a_sentence(
    entry: str,
    words: str,
    said: str,
    here: Callable[[str, str], int],
    place: Path,
    before: dict[Path, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert here(entry, words) == 2
    answer = capsys.readouterr().err
    assert answer.startswith("ganmnist: ")
    assert answer.count("\n") == 1
    assert said in answer
    assert files(place) == before
    assert not (place / "pwned").exists()
    assert "evil" not in sys.modules
    left = place / "new"
    assert not [*left.rglob("*.ckpt")]
    if (left / "summary.json").exists():
        assert json.loads((left / "summary.json").read_text())["status"] == "failed"


def test_a_checkpoint_says_who_wrote_it_and_older_ones_load(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ganmnist import loading

    checkpoint = torch.load(place / "run" / resume.LAST, weights_only=True)
    assert checkpoint["ganmnist"] == loading.version("ganmnist")
    for mark in ("0.0.1", "99.1", "a text", None):  # newer ones too, as long as they fit
        checkpoint["ganmnist"] = mark
        torch.save(checkpoint, tmp_path / "marked.ckpt")
        assert loading.load(tmp_path / "marked.ckpt").batches_seen == 1
    del checkpoint["ganmnist"]
    torch.save(checkpoint, tmp_path / "marked.ckpt")
    assert loading.load(tmp_path / "marked.ckpt").batches_seen == 1


def test_what_a_checkpoint_writes_like_an_interpolation_is_a_text(
    place: Path,
    here: Callable[[str, str], int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = torch.load(place / "run" / resume.LAST, weights_only=True)
    checkpoint["hyper_parameters"]["metrics"]["classifier"] = "${claim:pwned}"
    torch.save(checkpoint, tmp_path / "claim.ckpt")
    assert here("evaluate", f"ckpt={tmp_path / 'claim.ckpt'}") == 2
    assert "${claim:pwned}" in capsys.readouterr().err
    assert not (place / "pwned").exists()
