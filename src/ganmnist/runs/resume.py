"""Resume: repeats the command line of a run in its folder, from its last checkpoint.

.hydra/overrides.yaml has the overrides of the run. Settings that do not change the training may be
replaced: more epochs, another device, other loggers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from ganmnist.runs.folders import conf_dir, is_locked, quoted
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import atomic_write

if TYPE_CHECKING:
    from ganmnist.gan import GAN

LAST = "checkpoints/last.ckpt"
RUN_FILES = ("summary.json", LAST)  # a folder with one of these belongs to a run
STARTED = ".hydra/overrides.yaml"  # overrides of the first start
RESUMED_WITH = ".hydra/resumed.yaml"  # overrides of the last resume
RESUMED = "GANMNIST_RESUMED"  # environment variable of child processes: the resumed folder
TRAINER = "ganmnist.runs.hardware.build_trainer"  # a function; all other targets are classes


def extend(argv: Sequence[str]) -> list[str]:
    """Adds the overrides of the run to a command line with resume=...

    Raises:
        UserError: there is no such run, or its overrides are not allowed.
    """
    asked = [word.partition("=")[2] for word in argv if word.startswith("resume=")]
    if not asked or asked[-1] in ("", "null") or RESUMED in os.environ:
        return list(argv)
    if {"-m", "--multirun"} & {*argv}:
        raise UserError("resume=... continues one run, so leave out -m.")
    run = find(asked[-1])
    saved_files = [file for file in (run / RESUMED_WITH, run / STARTED) if file.is_file()]
    if not saved_files or not (run / LAST).is_file():
        missing = LAST if saved_files else STARTED
        raise UserError(f"resume={run}: this folder has no {missing}. Choose another folder.")
    own = [word for word in argv if not word.startswith("resume=")]
    words = [word for word in read_words(saved_files[0]) if word not in own]
    saved = [word for word in words if not re.match(r"[+~]*(resume|trusted_modules)\b", word)]
    if strange := [word for word in saved if is_strange(word)]:
        raise UserError(
            f"{saved_files[0]} contains {strange[0]}, which is not accepted from a file. If it is "
            f"yours, add it to the command line, beside resume={run}."
        )
    os.environ[RESUMED] = str(run)
    folder = quoted(str(run))
    own_folder = [f"resume={folder}", f"hydra.run.dir={folder}", "hydra.output_subdir=null"]
    # Saved overrides come before the typed ones, which win, and after the flags.
    first = next((i for i, word in enumerate(own) if re.match(r"[+~]|[\w./@]+=", word)), len(own))
    return [*own[:first], *saved, *own[first:], *own_folder]


def is_strange(word: str) -> bool:
    """Whether an override from a file may do more than change a setting.

    Refused are: flags, settings of Hydra, folders, packages, a choice that is not the name of a
    file in conf/, and resolvers, whose result may change after the check.
    """
    group, _, choice = word.lstrip("+~").partition("=")
    resolved = re.sub(r"\$\{(plus|times):", "", word)  # these are constant
    return (
        word.startswith("-")
        or re.match(r"(hydra|folder)\b", group) is not None
        or "@" in group
        or ("${" in resolved and ":" in resolved)
        or ((conf_dir() / group).is_dir() and not re.fullmatch(r"[\w,\[\] -]*", choice))
    )


def read_words(file: Path) -> list[str]:
    """The overrides in a file, as they were typed.

    Raises:
        UserError: the file is damaged.
    """
    try:
        words = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except Exception as error:  # YAML and OmegaConf raise many kinds for damaged files
        raise UserError(f"{file} cannot be read: {' '.join(str(error).split())[:200]}.") from error
    if not isinstance(words, list):
        raise UserError(f"{file} is not a list of settings.")
    return [str(word) for word in words]


def find(asked: str) -> Path:
    """The run's folder; for "auto" the newest unfinished one under logs/.

    Raises:
        UserError: there is none.
    """
    if asked != "auto":
        run = Path(asked.strip("'\""))
        if not os.path.isdir(run):
            raise UserError(
                f"resume={asked}: there is no such folder. resume=auto takes the newest run."
            )
        return run.resolve()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            "resume=auto: a launcher started several processes, which may find different runs. Use "
            "resume=FOLDER."
        )
    runs = [file.parents[1] for file in Path("logs").glob(f"**/{LAST}")]
    unfinished = [run for run in runs if not finished(run) and not is_locked(run)]
    if not unfinished:
        raise UserError("resume=auto: no unfinished run under logs/.")
    return max(unfinished, key=lambda run: (run / LAST).stat().st_mtime).resolve()


def finished(run: Path) -> bool:
    try:
        return bool(json.loads((run / "summary.json").read_text())["status"] == "finished")
    except (OSError, ValueError, KeyError):
        return False


def saved_precision(run: str) -> str:
    """The precision of the training that continues."""
    from ganmnist.runs.loading import read_checkpoint, translate_load_errors

    path = Path(run) / LAST
    checkpoint = read_checkpoint(path)
    with translate_load_errors(path, checkpoint):
        return str(checkpoint["hyper_parameters"]["trainer"]["precision"])


def check_checkpoint(path: Path, gan: GAN, now: Mapping[str, Any]) -> None:
    """Compares a checkpoint with the GAN and the settings that continue it.

    Raises:
        UserError: the training would change, or has all its epochs. Names the differences.
    """
    from ganmnist.runs.loading import check_newest, read_checkpoint, restore, translate_load_errors

    checkpoint = read_checkpoint(path)
    with translate_load_errors(path, checkpoint):
        then = training_config(checkpoint["hyper_parameters"])
    changed = [
        f"{name} was {old} and is now {new}"
        for name, old, new in differences(then, training_config(now))
    ]
    if changed:
        check_newest(path, checkpoint)
        raise UserError(
            f"{path}: these settings must not change on resume: {'; '.join(changed[:5])}. Keep "
            "them, or start a new run."
        )
    with translate_load_errors(path, checkpoint):
        restore(gan, checkpoint)
    # A run that was stopped during its last evaluation repeats the end of its last epoch.
    at_end = checkpoint["batches_seen"] == checkpoint["epoch_start"]
    if checkpoint["epochs_seen"] >= now["epochs"] + (at_end and not finished(path.parents[1])):
        raise UserError(
            f"{path} is already trained for {checkpoint['epochs_seen']} epochs. Train longer with "
            f"epochs={2 * checkpoint['epochs_seen']}, or measure it with ganmnist evaluate "
            f"run={path.parents[1]} which=last."
        )


def save_overrides(run: Path, words: Sequence[str]) -> None:
    """Saves the overrides of a resume, after they have been checked."""
    with atomic_write(run / RESUMED_WITH) as part:
        OmegaConf.save(OmegaConf.create([*words]), part)


def training_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine the training."""
    data = {name: value for name, value in settings["data"].items() if name != "root"}
    loader = dict(settings["datamodule"])
    for name in ("dataset", "chunk", "intervals"):  # compared above, or without effect
        loader.pop(name, None)
    trainer = settings["trainer"]
    gpus = trainer.get("gpus")
    names = ("precision", "limit_train_batches", "num_nodes")
    compared = {name: trainer.get(name) for name in names}
    compared["processes"] = gpus if isinstance(gpus, int) and gpus > 0 else trainer.get("devices")
    return {
        **{name: settings[name] for name in ("family", "batch_size", "seed")},
        **{"data": data, "datamodule": loader, "trainer": compared},
        **{"the data's checksum": settings["checksum"]},
    }


def differences(then: Any, now: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Paths where two trees of settings differ, with both values."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in [*then, *(name for name in now if name not in then)]:
            yield from differences(then.get(name), now.get(name), f"{place}.{name}".lstrip("."))
    elif then != now:
        yield place, then, now


def check_places(settings: Mapping[str, Any], run: Path) -> None:
    """Raises UserError if a callback or logger writes outside the run's folder."""
    for part in ("callbacks", "logger"):
        for name, node in (settings[part] or {}).items():
            for key in {"folder", "path"} & (node or {}).keys():
                if not Path(node[key]).resolve().is_relative_to(run.resolve()):
                    raise UserError(
                        f"{part}.{name}.{key}={node[key]} is outside of {run}. A resumed run "
                        "writes into its own folder. Leave this out."
                    )


def check_targets(node: Any, trusted_modules: Sequence[str]) -> None:
    """Raises UserError for a `_target_` outside of ganmnist and the trusted modules."""
    from ganmnist.runs.loading import TRUSTED, find_class

    if isinstance(node, Mapping):
        target = node.get("_target_", TRAINER)
        if target != TRAINER:
            find_class(str(target), (*TRUSTED, *trusted_modules))
    if isinstance(node, Mapping | list):
        for value in node.values() if isinstance(node, Mapping) else node:
            check_targets(value, trusted_modules)
