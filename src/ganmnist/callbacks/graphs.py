"""A whole turn in one launch: both updates recorded once as a CUDA graph, then replayed.

These networks are so small that a GPU waits for Python most of the time. A replay asks nothing of
Python but to seed the generator and to copy the batch into place, and computes what the turn would
have computed: dropout and latents too, since the seed is read when the graph runs.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from ganmnist.duel import Sample
from ganmnist.errors import UserError
from ganmnist.gan import GAN

log = logging.getLogger(__name__)

WARM_UP = 3  # turns of a kind before it is recorded: what is set up lazily has to be there
MOST = 8  # kinds of turns that are held, and that are remembered until they come again


class Graphs(Callback):
    """Plays turns as CUDA graphs, or says in a line why not and leaves the training as it is.

    Raises:
        UserError: something in a turn cannot be recorded.
    """

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        gan.recorder = None
        if reason := why_not(trainer):
            log.info("No CUDA graphs: %s.", reason)
        else:
            gan.recorder = Recorder(gan, Stream(gan.device))

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        gan.recorder = None

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        gan.recorder = None


def why_not(trainer: L.Trainer) -> str:
    """Why a training cannot be recorded, empty if it can."""
    if trainer.strategy.root_device.type != "cuda":
        return f"the device is {trainer.strategy.root_device.type}"
    if isinstance(trainer.strategy, DDPStrategy):
        return "under DDP processes wait for each other"
    if trainer.precision == "16-mixed":
        return "trainer.precision=16-mixed looks at every gradient"
    return ""


class Recorder:
    """Plays a kind of turn `WARM_UP` times, then records it and replays it from then on.

    Turns are of one kind where everything is the same that Python decides: the shapes of the
    batches, whether G answers, what the clock has told, and the optimisers' settings. While that
    changes all the time, as under an annealed schedule, the turns are played as they come.
    """

    def __init__(self, gan: GAN, stream: Stream) -> None:
        self.gan = gan
        self.stream = stream
        self.met: Counter[tuple[Any, ...]] = Counter()  # kinds that are not recorded yet
        self.recorded: dict[tuple[Any, ...], Turn] = {}
        self.said = False

    def play(self, batches: Sequence[Sample]) -> None:
        kind = self.kind(batches)
        if turn := self.recorded.get(kind):
            turn.replay(batches)
        elif self.met[kind] == WARM_UP:
            del self.met[kind]
            if len(self.recorded) == MOST:
                del self.recorded[next(iter(self.recorded))]
            self.recorded[kind] = Turn(self.gan, batches, self.stream)
            self.recorded[kind].replay(batches)
        else:
            self.met[kind] += 1
            if len(self.met) > MOST:
                self.met.clear()
                if not self.said:
                    log.info("No CUDA graphs for turns that are all different from each other.")
                self.said = True
            with self.stream.aside():
                self.gan.play(batches)

    def kind(self, batches: Sequence[Sample]) -> tuple[Any, ...]:
        gan = self.gan
        shapes = [tuple(None if slot is None else slot.shape for slot in b) for b in batches]
        told = [plain(vars(module)) for module in gan.timed]
        groups = [plain(group) for o in gan.both_optimizers for group in o.param_groups]
        return (*shapes, gan.answers, *told, *groups)


def plain(settings: dict[str, Any]) -> tuple[Any, ...]:
    """The settings that Python may decide by, by name; tensors are read where they lie."""
    kinds = (bool, int, float, str, tuple)
    return tuple(item for item in settings.items() if isinstance(item[1], kinds))


class Turn:
    """One kind of turn, recorded: where its batches go and where its scalars come out."""

    def __init__(self, gan: GAN, batches: Sequence[Sample], stream: Stream) -> None:
        self.gan = gan
        self.batches = [Sample(*(s if s is None else s.clone() for s in b)) for b in batches]
        self.names: list[str] = []

        def turn() -> Tensor:
            gan.play(self.batches)
            row = gan.history.pop(gan.batches_seen)
            self.names = [*row]
            return torch.stack([value.float() for value in row.values()])

        try:
            with capturable(gan):
                self.run = stream.record(turn)
        except RuntimeError as error:  # the device's state is lost with it
            reason = str(error.__context__ or error).split("\n")[0]
            raise UserError(
                f"This training cannot be recorded as CUDA graphs ({reason}): leave out "
                "callbacks=graphs."
            ) from error

    def replay(self, batches: Sequence[Sample]) -> None:
        for there, batch in zip(self.batches, batches, strict=True):
            for slot, value in zip(there, batch, strict=True):
                if slot is not None and value is not None:
                    slot.copy_(value)
        values = self.run().clone()  # the next replay writes there again
        row = dict(zip(self.names, values.unbind(), strict=True))
        self.gan.history[self.gan.batches_seen] = row


@contextmanager
def capturable(gan: GAN) -> Iterator[None]:
    """Lets optimisers be recorded that can be. Their counters go to the device, and stay there."""
    optimizers: list[Optimizer] = [o.optimizer for o in gan.both_optimizers]
    groups = [group for o in optimizers for group in o.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]
    for optimizer in optimizers:
        for weight, state in optimizer.state.items():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(weight.device)
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, flag in zip(groups, before, strict=True):
            group["capturable"] = flag


class Stream:
    """The stream of a CUDA device that graphs are recorded on, beside the one that all run on."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Runs on that stream, where nothing is set up that a graph could not take up."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """What does the work once more and returns its result, always in the same place."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            result = work()

        def again() -> Tensor:
            graph.replay()
            return result

        return again
