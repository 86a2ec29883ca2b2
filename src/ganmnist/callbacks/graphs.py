"""CUDA graphs: both updates of an iteration, captured once and then replayed.

The networks are so small that a GPU mostly waits for Python. A replay needs Python only to seed the
generator and to copy the batch. It computes the same numbers, dropout and latents included, because
the graph reads the seed when it runs.
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

from ganmnist.gan import GAN
from ganmnist.utils.batch import Batch
from ganmnist.utils.errors import UserError

log = logging.getLogger(__name__)

WARM_UP = 3  # eager iterations before a capture: lazy initialization must be over
MAX_KINDS = 8  # captured kinds of iterations, and kinds that are counted for a capture


class Graphs(Callback):
    """Runs iterations as CUDA graphs. Without a suitable device it only logs the reason.

    chunk: batches per training_step. More than 1 saves Lightning's overhead, and other callbacks
        see only the last batch of a chunk.

    Raises:
        UserError: an operation of the iteration cannot be captured.
    """

    def __init__(self, chunk: int = 16) -> None:
        self.chunk = chunk

    def setup(self, trainer: L.Trainer, gan: GAN, stage: str) -> None:
        if not reason_against(trainer):
            trainer.datamodule.chunk = self.chunk

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        gan.step_runner = None
        if reason := reason_against(trainer):
            log.info("No CUDA graphs: %s.", reason)
        else:
            gan.step_runner = GraphRunner(gan, CaptureStream(gan.device))

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        gan.step_runner = None

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        gan.step_runner = None


def reason_against(trainer: L.Trainer) -> str:
    """Why this training cannot be captured; empty if it can."""
    if trainer.strategy.root_device.type != "cuda":
        return f"the device is {trainer.strategy.root_device.type}"
    if isinstance(trainer.strategy, DDPStrategy):
        return "DDP communicates between processes"
    if trainer.precision == "16-mixed":
        return "trainer.precision=16-mixed reads every gradient"
    return ""


class GraphRunner:
    """Runs each kind of iteration `WARM_UP` times, then captures it, then replays it.

    Iterations are of one kind if everything that Python decides is equal: the shapes of the
    batches, whether G is updated, the state of scheduled modules, and the optimizer settings. While
    a schedule changes these in every iteration, nothing is captured.
    """

    def __init__(self, gan: GAN, stream: CaptureStream) -> None:
        self.gan = gan
        self.stream = stream
        self.seen: Counter[tuple[Any, ...]] = Counter()  # kinds that are not captured yet
        self.captured: dict[tuple[Any, ...], CapturedStep] = {}
        self.warned = False

    def run_step(self, batches: Sequence[Batch]) -> None:
        kind = self.kind(batches)
        if step := self.captured.get(kind):
            step.replay(batches)
        elif self.seen[kind] == WARM_UP:
            del self.seen[kind]
            if len(self.captured) == MAX_KINDS:
                del self.captured[next(iter(self.captured))]
            self.captured[kind] = CapturedStep(self.gan, batches, self.stream)
            self.captured[kind].replay(batches)
        else:
            self.seen[kind] += 1
            if len(self.seen) > MAX_KINDS:
                self.seen.clear()
                if not self.warned:
                    log.info("No CUDA graphs while the settings differ in every iteration.")
                self.warned = True
            with self.stream.side_stream():
                self.gan.run_step(batches)

    def kind(self, batches: Sequence[Batch]) -> tuple[Any, ...]:
        gan = self.gan
        shapes = [tuple(None if value is None else value.shape for value in b) for b in batches]
        modules = [plain(vars(module)) for module in gan.scheduled_modules]
        optimizers = (gan.optimizer_of("d"), gan.optimizer_of("g"))
        groups = [plain(group) for o in optimizers for group in o.param_groups]
        return (*shapes, gan.is_g_step, *modules, *groups)


def plain(settings: dict[str, Any]) -> tuple[Any, ...]:
    """The settings that Python may branch on. Tensors are read on the device."""
    kinds = (bool, int, float, str, tuple)
    return tuple(item for item in settings.items() if isinstance(item[1], kinds))


class CapturedStep:
    """A captured iteration, its input batches and its scalars."""

    def __init__(self, gan: GAN, batches: Sequence[Batch], stream: CaptureStream) -> None:
        self.gan = gan
        self.batches = [batch.map(Tensor.clone) for batch in batches]
        self.names: list[str] = []

        def run() -> Tensor:
            gan.run_step(self.batches)
            row = gan.pending_scalars.pop(gan.state.batches_seen)
            self.names = [*row]
            return torch.stack([value.float() for value in row.values()])

        try:
            with capturable(gan):
                self.run = stream.capture(run)
        except RuntimeError as error:  # the state of the device is lost
            reason = str(error.__context__ or error).split("\n")[0]
            raise UserError(
                f"callbacks=graphs: this training cannot be captured as a CUDA graph ({reason}). "
                "Use callbacks=default."
            ) from error

    def replay(self, batches: Sequence[Batch]) -> None:
        for target, batch in zip(self.batches, batches, strict=True):
            for value, new in zip(target, batch, strict=True):
                if value is not None and new is not None:
                    value.copy_(new)
        values = self.run().clone()  # the next replay overwrites them
        row = dict(zip(self.names, values.unbind(), strict=True))
        self.gan.pending_scalars[self.gan.state.batches_seen] = row


@contextmanager
def capturable(gan: GAN) -> Iterator[None]:
    """Lets optimizers be captured. Their step counters move to the device, and stay there."""
    optimizers: list[Optimizer] = [gan.optimizer_of("d").optimizer, gan.optimizer_of("g").optimizer]
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


class CaptureStream:
    """The CUDA stream of captures, beside the current stream."""

    def __init__(self, device: torch.device) -> None:
        self.stream: Any = torch.cuda.Stream(device)

    @contextmanager
    def side_stream(self) -> Iterator[None]:
        """Runs on this stream. Warm-up has to, as PyTorch's documentation of captures says."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Captures `work`. The returned function replays it, and returns the same tensor."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            result = work()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
