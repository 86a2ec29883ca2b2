"""The commands of the console script `ganmnist`.

A command is one module with a function `main(args)`. `args` are the arguments that follow the
command's name; None stands for sys.argv[1:]. A new command needs its module and one line here.
"""

from typing import NamedTuple


class Command(NamedTuple):
    name: str
    module: str
    help: str


COMMANDS = (
    Command("train", "ganmnist.train", "Train a GAN and write its images to logs/."),
    Command("evaluate", "ganmnist.evaluate", "Measure FID and other metrics of a run."),
    Command("generate", "ganmnist.generate", "Generate images with a trained GAN."),
    Command("report", "ganmnist.commands.report", "Draw report.html of a run again."),
    Command("completion", "ganmnist.commands.completion", "Print tab completion for bash or zsh."),
)
