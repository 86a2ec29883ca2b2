"""train resume=...: the same command line once more, in the same folder, from its last checkpoint.

What a run was started with is read back from its .hydra/overrides.yaml and may be changed where
that leaves the training as it is: more epochs, another device, other loggers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from ganmnist.errors import UserError
from ganmnist.files import whole
from ganmnist.paths import conf_dir, is_held

if TYPE_CHECKING:
    from ganmnist.gan import GAN

LAST = "checkpoints/last.ckpt"
SIGNS = ("summary.json", LAST)  # of a run in a folder, which no other may take the place of
FIRST = ".hydra/overrides.yaml"  # what the run was started with
AGAIN = ".hydra/resumed.yaml"  # and what it last went on with
ALREADY = "GANMNIST_RESUMED"  # set for the processes that a run starts
TRAINER = "ganmnist.devices.build_trainer"  # the one function among the classes


def extend(argv: Sequence[str]) -> list[str]:
    """The command line with what the run that it resumes was started with, if it resumes one.

    Raises:
        UserError: there is no such run.
    """
    asked = [word.partition("=")[2] for word in argv if word.startswith("resume=")]
    if not asked or asked[-1] in ("", "null") or ALREADY in os.environ:
        return list(argv)
    if {"-m", "--multirun"} & {*argv}:
        raise UserError("resume=... goes on with one run, so leave out -m.")
    run = find(asked[-1])
    there = [file for file in (run / AGAIN, run / FIRST) if file.is_file()]
    if not there or not (run / LAST).is_file():
        missing = LAST if there else FIRST
        raise UserError(f"resume={run}: there is no {missing} in it, so nothing to go on from.")
    own = [word for word in argv if not word.startswith("resume=")]
    words = [word for word in read_words(there[0]) if word not in own]
    saved = [word for word in words if not re.match(r"[+~]*(resume|trust)\b", word)]
    if strange := [word for word in saved if is_strange(word)]:
        raise UserError(
            f"{there[0]} says {strange[0]}, which is not taken from a file: if you know it to be "
            f"yours, give it again, beside resume={run}."
        )
    os.environ[ALREADY] = str(run)
    quoted = "'" + str(run).replace("\\", "\\\\").replace("'", "\\'") + "'"
    here = [f"resume={quoted}", f"hydra.run.dir={quoted}", "hydra.output_subdir=null"]
    # Where the first override stands, so that flags stay together and the newer words win.
    first = next((i for i, word in enumerate(own) if re.match(r"[+~]|[\w./@]+=", word)), len(own))
    return [*own[:first], *saved, *own[first:], *here]


def is_strange(word: str) -> bool:
    """Whether an override, read from a file, might do more than change a setting.

    A flag, what Hydra itself loads and calls, where to write, a package of Hydra's; a choice by
    another name than that of a file in conf/, since any file could say all that; and what a
    resolver works out at each look, which may be something else than what was checked.
    """
    group, _, choice = word.lstrip("+~").partition("=")
    resolved = re.sub(r"\$\{(plus|times):", "", word)  # which always come to the same
    return (
        word.startswith("-")
        or re.match(r"(hydra|folder)\b", group) is not None
        or "@" in group
        or ("${" in resolved and ":" in resolved)
        or ((conf_dir() / group).is_dir() and not re.fullmatch(r"[\w,\[\] -]*", choice))
    )


def read_words(file: Path) -> list[str]:
    """The overrides in a file, as they were typed."""
    try:
        words = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except Exception as error:  # of YAML's parser and OmegaConf's, over damaged files
        raise UserError(f"{file} cannot be read: {' '.join(str(error).split())[:200]}.") from error
    if not isinstance(words, list):
        raise UserError(f"{file} is no list of settings.")
    return [str(word) for word in words]


def find(asked: str) -> Path:
    """The run's folder; for "auto" the newest under logs/ that has not come to its end."""
    if asked != "auto":
        run = Path(asked.strip("'\""))
        if not os.path.isdir(run):
            raise UserError(
                f"resume={asked}: there is no such folder. resume=auto takes the newest."
            )
        return run.resolve()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            "resume=auto: each of the processes that a launcher has started would look for the "
            "newest run by itself, so name its folder."
        )
    runs = [file.parents[1] for file in Path("logs").glob(f"**/{LAST}")]
    open_ = [run for run in runs if not finished(run) and not is_held(run)]
    if not open_:
        raise UserError("resume=auto: no run under logs/ waits for its end.")
    return max(open_, key=lambda run: (run / LAST).stat().st_mtime).resolve()


def finished(run: Path) -> bool:
    try:
        return json.loads((run / "summary.json").read_text())["status"] == "finished"
    except (OSError, ValueError, KeyError):
        return False


def check(path: Path, gan: GAN, now: Mapping[str, Any]) -> None:
    """Compares a checkpoint with the GAN that goes on from it, and with its settings.

    Raises:
        UserError: they would make another training of it; names the differences.
    """
    from ganmnist.loading import check_version, fitting, read_checkpoint, restore

    checkpoint = read_checkpoint(path)
    with fitting(path, checkpoint):
        then = what_counts(checkpoint["hyper_parameters"])
    changed = [
        f"{name} was {old} and is now {new}"
        for name, old, new in differences(then, what_counts(now))
    ]
    if changed:
        check_version(path, checkpoint)
        raise UserError(
            f"{path} cannot go on as another run: {'; '.join(changed[:5])}. Leave that as it was, "
            "or start a new run."
        )
    with fitting(path, checkpoint):
        restore(gan, checkpoint)
    # One that was broken off in its final table has that to come, at the end of its last epoch.
    at_end = checkpoint["batches_seen"] == checkpoint["epoch_start"]
    if checkpoint["epochs_seen"] >= now["epochs"] + (at_end and not finished(path.parents[1])):
        raise UserError(
            f"{path} has seen its {checkpoint['epochs_seen']} epochs: ask for more, such as "
            f"epochs={2 * checkpoint['epochs_seen']}. Its figures: python -m ganmnist.evaluate "
            f"run={path.parents[1]} which=last."
        )


def note(run: Path, words: Sequence[str]) -> None:
    """Keeps what a run goes on with, once that is known to fit."""
    with whole(run / AGAIN) as part:
        OmegaConf.save(OmegaConf.create([*words]), part)


def what_counts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a training is a function of."""
    data = {name: value for name, value in settings["data"].items() if name != "root"}
    served = dict(settings["datamodule"])
    for name in ("dataset", "chunk", "intervals"):  # told above, or of no consequence
        served.pop(name, None)
    trainer = settings["trainer"]
    gpus = trainer.get("gpus")
    how = {name: trainer.get(name) for name in ("precision", "limit_train_batches", "num_nodes")}
    how["processes"] = gpus if isinstance(gpus, int) and gpus > 0 else trainer.get("devices")
    return {
        **{name: settings[name] for name in ("gan", "batch_size", "seed")},
        **{"data": data, "datamodule": served, "trainer": how},
        **{"the data's checksum": settings["checksum"]},
    }


def differences(then: Any, now: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The places where two trees of settings differ, with both values."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in [*then, *(name for name in now if name not in then)]:
            yield from differences(then.get(name), now.get(name), f"{place}.{name}".lstrip("."))
    elif then != now:
        yield place, then, now


def check_places(settings: Mapping[str, Any], run: Path) -> None:
    """Raises UserError where something would write elsewhere than in the run's folder."""
    for part in ("callbacks", "logger"):
        for name, node in (settings[part] or {}).items():
            for key in {"folder", "path"} & (node or {}).keys():
                if not Path(node[key]).resolve().is_relative_to(run.resolve()):
                    raise UserError(
                        f"{part}.{name}.{key}={node[key]} is outside of {run}, where nothing of a "
                        "run that goes on belongs."
                    )


def check_targets(node: Any, trust: Sequence[str]) -> None:
    """Raises UserError for a `_target_` that is neither ours nor of a trusted module."""
    from ganmnist.loading import OWN, find_class

    if isinstance(node, Mapping):
        target = node.get("_target_", TRAINER)
        if target != TRAINER:
            find_class(str(target), (*OWN, *trust))
    if isinstance(node, Mapping | list):
        for value in node.values() if isinstance(node, Mapping) else node:
            check_targets(value, trust)
