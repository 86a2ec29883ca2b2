"""The command line: Hydra's, with a short message for every mistake of the user.

A mistake ends the program with exit code 2 and without a stack trace, most often before torch is
imported. A bug keeps its stack trace. Ctrl-C ends the program with 130.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NoReturn

import hydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ganmnist.runs import jobs, resume, sweep
from ganmnist.runs.checks import check_training
from ganmnist.runs.composition import configure_logging, parse, setup
from ganmnist.runs.explain import explain
from ganmnist.runs.folders import (
    JOBS,
    check_unlocked,
    conf_dir,
    create_dir,
    is_sweep,
    quoted,
    refuse_links,
    require_no_run,
)
from ganmnist.runs.processes import is_first
from ganmnist.runs.resume import RUN_FILES
from ganmnist.runs.schema import SETTINGS
from ganmnist.runs.typed_settings import TypedSettings
from ganmnist.runs.unused import check_used
from ganmnist.utils.errors import UserError, is_out_of_memory
from ganmnist.utils.signals import STOPPED

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
        except SystemExit as end:  # of a sweep
            if end.code:
                raise


def resume_run(args: Sequence[str] | None = None) -> None:
    """Continues the run or the sweep that resume=... names, without Hydra's entry point.

    args: the arguments. None: all of sys.argv[1:].
    """
    args = sys.argv[1:] if args is None else args
    program = program_of(args)
    setup()
    with exit_codes():
        if {"-m", "--multirun"} & {*args}:
            raise UserError("resume=... needs no -m. It continues a run, or all jobs of a sweep.")
        folder = resume.find(resume.asked(args))
        own = [word for word in args if not word.startswith("resume=")]
        typed = TypedSettings.parse(own, folder)
        refuse_links(folder)
        if is_first():
            check_unlocked(folder)
        # Lightning starts the other processes of a run with it.
        sys.argv = [*program, *own, f"resume={quoted(str(folder))}"]
        survive_full_disk()
        if is_sweep(folder):
            if jobs.continue_sweep(folder, own):
                sys.exit(1)
            return
        configure_logging(folder / "train.log")
        jobs.continue_run(folder, typed)


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
        sys.exit(STOPPED)
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


def ignore_os_errors(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """A hook for exceptions in threads that prints nothing where a file cannot be written."""
    return lambda args: None if issubclass(args.exc_type, OSError) else hook(args)


def fail(message: str) -> NoReturn:
    print(f"ganmnist: {message}", file=sys.stderr)
    sys.exit(2)


def or_exit(hook: Callable[..., None]) -> Callable[..., None]:
    """Ends the program if a hook fails. Hydra would print a warning and go on."""

    @functools.wraps(hook)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with exit_codes():
                hook(*args, **kwargs)
        except OmegaConfBaseException as error:
            fail(str(error))
        except Exception:
            traceback.print_exc()
            sys.exit(1)

    return wrapped


class HydraHooks(Callback):
    """A callback of Hydra: checks before anything is written, and the jobs of a sweep."""

    @or_exit
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        check_training(config)
        check_used(config, config.hydra.overrides.task, config.hydra.runtime.choices)
        if is_first():
            require_no_run(config.hydra.run.dir, *RUN_FILES)
        create_dir(config.hydra.run.dir)
        if is_first():
            check_unlocked(config.hydra.run.dir)

    @or_exit
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweep.start(config)
        require_no_run(config.hydra.sweep.dir, "sweep.csv", JOBS, f"*/{resume.LAST}")
        create_dir(config.hydra.sweep.dir)
        if not sweep.runs_here(config):
            return
        try:
            unfinished = jobs.run_sweep(config)
        except HydraException as error:
            fail(explain(error, "train", parse(["-m", *config.hydra.overrides.task])))
        sys.exit(1 if unfinished else 0)  # Hydra would run the jobs again

    @or_exit
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if sweep.finish(config.hydra.sweep.dir):
            sys.exit(1)
