"""The command line: Hydra's, with a short message for every mistake of the user.

A mistake ends the program with exit code 2 and without a stack trace, most often before torch is
imported. A bug keeps its stack trace. Ctrl-C ends the program with 130.
"""

from __future__ import annotations

import errno
import functools
import logging.config
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import pairwise
from operator import add, mul
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from ganmnist.runs import resume, sweep
from ganmnist.runs.checks import check_training
from ganmnist.runs.config_tree import children, follow, overlap, paths_in, settings_in, suggest
from ganmnist.runs.folders import (
    check_unlocked,
    conf_dir,
    create_dir,
    quoted,
    require_no_run,
    slug,
    unique_dir,
)
from ganmnist.runs.help import describe_groups, describe_settings, public
from ganmnist.runs.processes import PARENT
from ganmnist.runs.resume import RUN_FILES, TypedSettings
from ganmnist.runs.schema import SETTINGS, describe_type, register_schema
from ganmnist.runs.unused import check_used, used_paths
from ganmnist.utils.errors import UserError, is_out_of_memory

# Errors of a full or read-only disk, of missing permissions, of a file in the place of a folder.
WRITE_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR),
}


def run(
    task: Callable[[DictConfig], Any], config_name: str, args: Sequence[str] | None = None
) -> None:
    """Runs `task` under Hydra, with overrides of conf/`config_name`.yaml.

    Args:
        task: the function that gets the configuration.
        config_name: the command's file in conf/, without its ending.
        args: the arguments for Hydra. None: all of sys.argv[1:].
    """
    args = sys.argv[1:] if args is None else args
    program = program_of(args)

    @functools.wraps(task)
    def run_task(config: DictConfig) -> Any:
        sys.argv = [*program, *overrides]  # Lightning starts the other processes of a run with it
        with exit_codes():  # an exit passes through Hydra without a message
            return task(config)

    setup()
    parsed: list[Override] = []
    with exit_codes():
        settings = [add_brackets(arg, config_name) for arg in args]
        overrides = expand_bare_folder(settings, config_name)
        parsed = parse(overrides)
        sys.argv = [program[0], *overrides]  # Hydra parses it
        survive_full_disk()
        os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come back here instead of being printed
        conf = str(conf_dir())
        main = hydra.main(version_base="1.3", config_path=conf, config_name=config_name)
        try:
            main(run_task)()
        except (HydraException, OmegaConfBaseException) as error:
            fail(explain(error, config_name, parsed))


def run_resumed(
    task: Callable[[Path, TypedSettings], Any], args: Sequence[str] | None = None
) -> None:
    """Continues the run that resume=... names, without Hydra's entry point.

    Args:
        task: gets the run's folder and the settings that are typed beside resume=....
        args: the arguments. None: all of sys.argv[1:].
    """
    args = sys.argv[1:] if args is None else args
    program = program_of(args)
    setup()
    with exit_codes():
        if {"-m", "--multirun"} & {*args}:
            raise UserError("resume=... continues one run, so leave out -m.")
        run = resume.find(resume.asked(args))
        own = [word for word in args if not word.startswith("resume=")]
        overrides = parse(own)
        typed = resume.TypedSettings(overrides, *compose_today(own, overrides, run))
        check_unlocked(run)
        # Lightning starts the other processes of a run with it.
        sys.argv = [*program, *own, f"resume={quoted(str(run))}"]
        survive_full_disk()
        configure_logging(run)
        task(run, typed)


def compose_today(
    args: Sequence[str], overrides: Sequence[Override], run: Path
) -> tuple[DictConfig, DictConfig]:
    """The configuration of the typed groups and public settings, and that without any.

    Raises:
        UserError: a choice or a value is wrong.
    """
    folder = f"folder={quoted(str(run))}"
    defaults = compose_words("train", [folder], args)
    public = (*SETTINGS["train"], "trusted_modules")
    words = [
        str(override.input_line)
        for override in overrides
        if override.key_or_group in public or resume.is_group(override, defaults)
    ]
    try:
        return compose_words("train", [*words, folder], args), defaults
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, "train", overrides)) from error


def compose_words(config_name: str, words: Sequence[str], args: Sequence[str]) -> DictConfig:
    """The unresolved configuration of some words.

    args: the command line, which may name a folder of configuration files.
    """
    search = []
    if folder := get_args_parser().parse_args([*args]).config_dir:
        search = [f"hydra.searchpath=['file://{os.path.abspath(folder)}']"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(config_name, [*words, *search])


def configure_logging(run: Path) -> None:
    """Prints and writes log records, as Hydra does for a new run."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", return_hydra_config=True).hydra.job_logging
    content: Any = OmegaConf.to_container(config, resolve=False)
    content["handlers"]["file"]["filename"] = str(run / "train.log")
    logging.config.dictConfig(content)


def program_of(args: Sequence[str]) -> list[str]:
    """The words of sys.argv before the arguments, such as: ganmnist train."""
    n = len(sys.argv) - len(args)
    from_shell = n > 0 and sys.argv[n:] == [*args]  # False if a program calls this function
    return sys.argv[:n] if from_shell else sys.argv[:1]


@contextmanager
def exit_codes() -> Iterator[None]:
    """Ends the program with a message and a code for a mistake of the user, and for Ctrl-C."""
    try:
        yield
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fail("This device has not enough memory. Use fewer images, or a smaller network.")
    except OSError as error:
        if error.errno not in WRITE_ERRORS:
            raise
        fail(
            f"{error.filename or 'The disk'}: {error.strerror}, so nothing can be written there. "
            "Choose another folder with hydra.run.dir=..., or free some space."
        )


def survive_full_disk() -> None:
    """Handlers and threads that write stay silent. With a full disk they would add stack traces."""
    logging.raiseExceptions = False
    threading.excepthook = ignore_os_errors(threading.excepthook)


def expand_bare_folder(args: Sequence[str], command: str) -> list[str]:
    """Turns one bare folder into run=FOLDER, for commands with this setting."""
    pairs = pairwise(["", *args])  # not the value of a flag, such as --config-dir DIR
    bare = [arg for flag, arg in pairs if os.path.isdir(arg) and flag[:1] != "-"]
    if "run" not in SETTINGS[command] or len(bare) != 1:
        return [*args]
    return [f"run={quoted(arg)}" if arg in bare else arg for arg in args]


def add_brackets(word: str, command: str) -> str:
    """Turns labels=0,1,2 into labels=[0,1,2], because Hydra reads commas as a sweep."""
    name, _, value = word.partition("=")
    is_list = name in SETTINGS[command] and str(SETTINGS[command][name].type).startswith("list")
    return f"{name}=[{value}]" if is_list and re.fullmatch(r"\d[\d,]*", value) else word


def parse(args: Sequence[str]) -> list[Override]:
    """The overrides of a command line.

    Raises:
        UserError: a word is no override, or a sweep without -m.
    """
    arguments = get_args_parser().parse_args([*args])
    try:
        overrides = OverridesParser.create().parse_overrides(arguments.overrides)
    except OverrideParseException as error:
        raise UserError(
            f"{error.override}: this does not have the form setting=value. Write a list as [1,2], "
            "and put a string with special characters in 'quotes'."
        ) from error
    if not arguments.multirun:
        for override in overrides:
            if override.is_sweep_override():
                raise UserError(
                    f"{override.input_line}: several values are a sweep, which needs -m. Write a "
                    "list as [1,2]."
                )
    return overrides


def ignore_os_errors(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """A hook for exceptions in threads that prints nothing where a file cannot be written."""
    return lambda args: None if issubclass(args.exc_type, OSError) else hook(args)


def setup() -> None:
    """Registers the schemas of the commands, and the resolvers of the configuration files."""
    register_schema()
    resolvers: dict[str, Callable[..., Any]] = {
        "unique_dir": unique_dir,
        "slug": slug,
        "plus": add,
        "times": mul,
        "settings": describe_settings,
        "groups": describe_groups,
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def fail(message: str) -> NoReturn:
    print(f"ganmnist: {message}", file=sys.stderr)
    sys.exit(2)


class HydraHooks(Callback):
    """A callback of Hydra: checks before anything is written, and the table after a sweep."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        # Hydra turns an exception of a callback into a warning. An exit passes.
        try:
            check_training(config)
            check_used(config, config.hydra.overrides.task, config.hydra.runtime.choices)
            if PARENT not in os.environ:
                require_no_run(config.hydra.run.dir, *RUN_FILES)
            create_dir(config.hydra.run.dir)
            if PARENT not in os.environ:
                check_unlocked(config.hydra.run.dir)
        except (UserError, OmegaConfBaseException) as error:
            fail(str(error))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            sweep.start(config)
            require_no_run(config.hydra.sweep.dir, "sweep.csv", f"*/{resume.LAST}")
            create_dir(config.hydra.sweep.dir)
        except (UserError, OmegaConfBaseException) as error:
            fail(str(error))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if sweep.finish(config.hydra.sweep.dir):
            sys.exit(1)


def explain(error: Exception, config_name: str, parsed: Sequence[Override]) -> str:
    """One or two sentences for an override that Hydra refuses: the key, and valid values."""
    cause = error.__cause__
    if isinstance(cause, UserError):
        return str(cause)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group:
            choices = public(error.options)
            close = get_close_matches(choice, choices, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            return f"Unknown {group} {choice!r}.{hint} Available: {', '.join(choices)}."
    if isinstance(cause, OmegaConfBaseException):
        key = cause.full_key or ""
        override = next((o for o in parsed if f"{o.key_or_group}.".startswith(f"{key}.")), None)
        if override is not None and not isinstance(cause, ValidationError):
            return explain_unknown(override, config_name, parsed)
        if override is not None and key in SETTINGS[config_name]:
            return f"{override.input_line}: {key} takes {describe_type(key, config_name)}."
        if override is not None and key == "trusted_modules":
            value = override.value()
            return f"trusted_modules={value}: this is a list. Use trusted_modules=[{value}]."
    text = " ".join(str(error).split())
    if config_name == "evaluate" and text.startswith(
        "In 'data/"
    ):  # data/ring8.yaml overrides the group model, which evaluate lacks
        return (
            "data: a run of points is measured with its own data. Leave data=... out. Change "
            "single settings with +data.std=0.1, for example."
        )
    return text


def explain_unknown(override: Override, config_name: str, parsed: Sequence[Override]) -> str:
    """Names an unknown setting, and lists those of its level. A suggestion is a valid command."""
    tree = compose_groups(config_name, parsed)
    key = override.key_or_group
    value = (override.input_line or "").partition("=")[2]
    place, node = follow(tree, key)
    if node is not None and place != key:
        return f"{key}: this is a reference to {place}. Use {place}={value}."
    parts = place.split(".")
    n = 0  # the first part that is unknown
    while n < len(parts) - 1 and follow(tree, ".".join(parts[: n + 1]))[1] is not None:
        n += 1
    above, name = ".".join(parts[:n]), parts[n]
    inside = public(children(follow(tree, above)[1] if above else tree))
    similar = get_close_matches(name, inside, n=1)
    close = ".".join([*parts[:n], *similar, *parts[n + 1 :]])
    read = used_paths(tree) if config_name == "train" else {*paths_in(tree)}
    valid = follow(tree, close)[1] is not None and any(overlap(close, path) for path in read)
    if not similar or not valid:
        close = suggest(key, (path for path in settings_in(tree) if path in read))
    hint = f" Did you mean {close}={value}?" if close else ""
    if above and (conf_dir() / above / f"{name}.yaml").is_file():
        hint = f" It needs {above}={name}."
    where = f" in {above}" if above else ""
    return f"Unknown setting {key!r}.{hint} Available{where}: {', '.join(inside) or 'nothing'}."


def compose_groups(config_name: str, parsed: Sequence[Override]) -> Any:
    """The unresolved configuration with the group choices of the command line alone."""
    groups = [o for o in parsed if (conf_dir() / o.key_or_group).is_dir()]
    words = [str(o.input_line) for o in groups if not o.is_sweep_override()]
    return OmegaConf.to_container(compose_words(config_name, words, sys.argv[1:]), resolve=False)


def plain(settings: Any) -> Any:
    """A configuration as plain containers, with its interpolations resolved."""
    return OmegaConf.to_container(settings, resolve=True)
