"""The console script `ganmnist`, also `python -m ganmnist`: runs one of the commands.

A command gets its arguments as a parameter. sys.argv keeps the command's name, because Lightning
starts the other processes of a run with sys.argv.
"""

import os
import sys
from importlib import import_module

from ganmnist.commands import COMMANDS


def main() -> None:
    name, *args = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(describe_commands())
    elif name == "--version":
        from importlib.metadata import version

        print(f"ganmnist {version('ganmnist')}")
    elif modules := [command.module for command in COMMANDS if command.name == name]:
        # A user's modules in the current folder, as with python -m. Installed packages come first.
        sys.path.append(os.getcwd())
        import_module(modules[0]).main(args)
    else:
        print(f"ganmnist: {describe_unknown(name)}", file=sys.stderr)
        sys.exit(2)


def describe_commands() -> str:
    lines = [f"  {command.name:<11} {command.help}" for command in COMMANDS]
    usage = "usage: ganmnist COMMAND [ARGUMENT ...]"
    return "\n".join([usage, "", *lines, "", "ganmnist COMMAND --help shows the arguments."])


def describe_unknown(name: str) -> str:
    from difflib import get_close_matches

    names = [command.name for command in COMMANDS]
    close = get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown command {name!r}.{hint} Available: {', '.join(names)}."


if __name__ == "__main__":
    main()
