"""The command line: Hydra's, with mistakes answered in a sentence.

A mistake of the user's ends with exit code 2 and without a stack trace, before torch has been
imported; a bug keeps its trace. Ctrl-C ends with 130.
"""

from __future__ import annotations

import difflib
import errno
import functools
import logging
import os
import re
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganmnist import resume, sweep
from ganmnist.config import KNOBS, check, describe_knobs, expected, listed, register_schema
from ganmnist.errors import UserError, is_out_of_memory
from ganmnist.paths import check_free, conf_dir, register_resolvers, unused
from ganmnist.ranks import PARENT
from ganmnist.resume import SIGNS

# What the file system says where it is full, read-only, somebody else's or no folder.
CLOSED = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR),
}


def run(
    task: Callable[[DictConfig], Any], config_name: str, words: Sequence[str] | None = None
) -> None:
    """Runs `task` under Hydra, with overrides of conf/`config_name`.yaml.

    Args:
        task: The function that gets the configuration.
        config_name: The command's file in conf/, without its ending.
        words: The arguments for Hydra, which end sys.argv. None: all of sys.argv[1:].
    """
    words = sys.argv[1:] if words is None else words
    program = sys.argv[: len(sys.argv) - len(words)]  # with the command's name, if there is one

    @functools.wraps(task)
    def answered(config: DictConfig) -> Any:
        sys.argv = [*program, *overrides]  # Lightning starts the other processes of a run with it
        try:
            return task(config)
        except UserError as error:  # an exit passes through Hydra without a line of its own
            fail(str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fail("This device has no memory for that: ask for fewer images, or a smaller network.")

    setup()
    try:
        overrides = resume.extend([listed(word, config_name) for word in words])
    except UserError as error:
        fail(str(error))
    sys.argv = [program[0], *overrides]  # Hydra parses it
    # Where the disk is full, whoever asked for a file says so; the threads and handlers that write
    # would only add stack traces.
    logging.raiseExceptions = False
    threading.excepthook = without_traces(threading.excepthook)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come back here instead of being printed
    main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)
    try:
        main(answered)()
    except KeyboardInterrupt:
        sys.exit(130)
    except InstantiationException:  # a bug in what was to be built
        raise
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error, config_name))
    except OSError as error:
        if error.errno not in CLOSED:
            raise
        fail(
            f"{error.filename or 'The disk'}: {error.strerror}, so that nothing can be written "
            "there. Choose another folder, hydra.run.dir=..., or make room."
        )
    finally:
        os.environ.pop(resume.ALREADY, None)  # of this run, not of what its program starts next


def without_traces(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """A hook for what ends a thread, silent where a file could not be written."""
    return lambda args: None if issubclass(args.exc_type, OSError) else hook(args)


def setup() -> None:
    register_schema()
    register_resolvers()
    OmegaConf.register_new_resolver("knobs", describe_knobs, replace=True)
    OmegaConf.register_new_resolver("groups", describe_groups, replace=True)


def describe_groups() -> str:
    """The groups in conf/ and their choices as lines of --help."""
    lines = []
    for folder in sorted(path for path in conf_dir().iterdir() if path.is_dir()):
        if folder.name != "hydra":
            choices = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
            lines += textwrap.wrap(f"  {folder.name:<11} {choices}", 96, subsequent_indent=" " * 14)
    return "\n".join(lines)


def fail(message: str) -> NoReturn:
    print(f"ganmnist: {message}", file=sys.stderr)
    sys.exit(2)


class Hooks(Callback):
    """Hydra's callbacks: checks before anything is written, and the table that ends a sweep."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        # Hydra turns exceptions of callbacks into warnings, but lets an exit pass.
        try:
            check(config)
            if not {resume.ALREADY, PARENT} & os.environ.keys():
                unused(config.hydra.run.dir, *SIGNS)
            make(config.hydra.run.dir)
            if PARENT not in os.environ:
                check_free(config.hydra.run.dir)
        except (UserError, OmegaConfBaseException) as error:
            fail(str(error))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            sweep.start(config)
            unused(config.hydra.sweep.dir, "sweep.csv", f"*/{resume.LAST}")
            make(config.hydra.sweep.dir)
        except (UserError, OmegaConfBaseException) as error:
            fail(str(error))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if sweep.finish(config.hydra.sweep.dir):
            sys.exit(1)


def make(folder: str) -> None:
    """Creates the folder of a run; raises UserError where there can be none."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error}): choose another folder.") from error


@contextmanager
def refusals() -> Iterator[None]:
    """Makes a UserError of what constructors refuse; a bug keeps its trace."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError | ValueError | MisconfigurationException):
            raise UserError(" ".join(str(cause).split())) from error
        strange = re.search(r"__init__\(\) got an unexpected keyword argument ('\w+')", str(cause))
        where = re.search(r"call to target '(.+?)'.*full_key: (\S+)", str(error), re.DOTALL)
        if strange and where:
            raise UserError(
                f"{where[2]} is a {where[1]}, which takes no {strange[1]}: leave out what sets it, "
                "or choose another."
            ) from error
        if isinstance(cause, TypeError) and re.search(r"__init__\(\) missing", str(cause)):
            raise UserError(" ".join(str(error).split())) from error
        raise


def explain(error: Exception, config_name: str) -> str:
    """One or two sentences for an override that Hydra refuses: the key, and what is valid."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    message = str(error)
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: this is not of the form setting=value; a list is written [1,2], "
            "a text with signs in it 'in quotes'."
        )
    if match := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.+)'", message):
        return f"{match[1]}: several values make a sweep, which needs -m; a list is written [1,2]."
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group:
            return f"{group}={choice}: there is no such choice. {choose(choice, error.options)}"
    if match := re.search(r"Could not override '([^']+)'", message):
        return of_the_run(match[1]) if config_name == "evaluate" else unknown(match[1], config_name)
    if match := re.search(r"Error merging override (\w[\w.]*)=(.*)", message):
        key, value = match[1], match[2]
        if key in KNOBS[config_name]:
            return f"{key}={value}: {key} takes {expected(key, config_name)}."
        if key == "trust":
            return f"trust={value}: this takes a list of modules, such as trust=[{value}]."
    return " ".join(message.split())


def of_the_run(key: str) -> str:
    """Says what evaluate has in the place of a key that perhaps the data of some run have."""
    typed = [word.lstrip("+~").partition("=") for word in sys.argv[1:]]
    data = next((choice for name, _, choice in typed if name == "data"), None)
    if data and key not in [name for name, _, _ in typed]:  # the data bring a model
        return (
            f"data={data}: points are measured with the data of their run, so leave it out; what "
            "the run had is changed one by one, such as +data.std=0.1."
        )
    hint = f" If those of the run have it: +{key}=..." if key.startswith("data.") else ""
    return unknown(key, "evaluate") + hint


def choose(wrong: str, options: Iterable[str] | None) -> str:
    """All there is, after "Did you mean ...?" where something is close."""
    known = sorted(options or ())
    close = difflib.get_close_matches(wrong, known, n=1)
    meant = f"Did you mean {close[0]}? " if close else ""
    return f"{meant}Choose one of {', '.join(known)}." if known else "It has none."


def unknown(key: str, config_name: str) -> str:
    """Says what there is in the place of a key that there is not."""
    groups = "|".join(path.name for path in conf_dir().iterdir() if path.is_dir())
    chosen = [word for word in sys.argv[1:] if re.fullmatch(rf"({groups})=[][\w/,-]+", word)]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        try:
            place: Any = compose(config_name, chosen)
        except HydraException:  # a choice from --config-dir
            place = compose(config_name)
    way: list[str] = []
    whole = place
    for part in key.split("."):
        if elsewhere := refers_to(whole, name := ".".join([*way, part])):
            while further := refers_to(whole, elsewhere):
                elsewhere = further
            setting = key.replace(name, elsewhere, 1)
            return f"{key}: {name} is whatever {elsewhere} is, so set that: {setting}=..."
        value = (
            place._get_node(part) if isinstance(place, DictConfig) and part in [*place] else None
        )
        if not isinstance(value, Mapping):
            break
        way.append(part)
        place = value
    inside = f" in {'.'.join(way)}" if way else ""
    settings = [str(name) for name in place if name != "_target_"]
    return f"{key}: there is no setting {part!r}{inside}. {choose(part, settings)}"


def refers_to(config: Any, name: str) -> str:
    """What stands at a place that refers to another, at the end of all references; else nothing."""
    end = ""
    while True:
        parent, _, last = name.rpartition(".")
        place = OmegaConf.select(config, parent) if parent else config
        node = place._get_node(last) if isinstance(place, DictConfig) and last in [*place] else None
        match = re.fullmatch(r"\$\{([\w.]+)\}", str(node._value()) if node is not None else "")
        if match is None:
            return end
        name = end = match[1]
