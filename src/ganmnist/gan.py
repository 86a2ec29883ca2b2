"""The training step: two players, one duel at a time.

For each batch of real samples the discriminator moves first and the generator answers through
the discriminator as it then is. Every loss is a `Term` of a `Duel`, so this file knows no
objective, no network and no data set; a family of GANs overrides how samples are drawn (`real`
and `fake`), seldom the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial, reduce
from importlib.metadata import version
from itertools import repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from ganmnist.duel import Clock, Duel, Part, Player, Sample, Term, at_least_float32
from ganmnist.ema import Average
from ganmnist.errors import UserError
from ganmnist.initialization import first_batches, init_from_data
from ganmnist.objectives import Objective
from ganmnist.passes import at_rest, frozen
from ganmnist.pixels import to_bytes
from ganmnist.rng import seed_device

if TYPE_CHECKING:
    from ganmnist.callbacks.graphs import Recorder
    from ganmnist.latents import Labels
    from ganmnist.networks.base import Discriminator
    from ganmnist.unrolled import Unroll

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
NONE: Mapping[str, Any] = MappingProxyType({})
# What an update logs besides its terms and their parts.
RESERVED = {"loss", "grad_norm", "real", "fake"}
RESERVED |= {f"{side}_{kind}" for side in ("real", "fake") for kind in ("prob", "logit")}


class GAN(L.LightningModule):
    """Both networks, what they are trained for, and the alternating updates.

    Args:
        generator: latents (B, Z) and conditions to images (B, C, H, W) in [-1, 1].
        discriminator: a sample to features (B, F), features to logits (B,).
        objective: the adversarial losses.
        latent: draws (n, Z) latents.
        condition: the labels (n,) that n pictures are made of; None where no image has one. While
            training, a fake image has the label of the real one beside it.
        d_optimizer, g_optimizer: build an optimiser from the parameters of their player.
        terms: whatever is added to the objective: penalties, auxiliary heads.
        stabilizers: what is put around the discriminator, from the inside out.
        schedules: change a parameter group of either optimiser, given the run's progress.
        fresh_fakes: the generator answers with a new fake batch. Otherwise both updates look at
            the same one, which saves a pass through the generator.
        d_steps: updates of D, each on a new real batch, before G answers.
        g_steps: updates of G in an answer.
        accumulate: real batches whose gradients make one update.
        clip: greatest norm of a player's gradient; None is no bound.
        ema: decay of a moving average of the generator's weights after each of its answers, which
            is shown and measured beside the trained ones and never trained on.
        unroll: puts another D in the place of the present one, for G to answer to.
        seed: keys all latents and dropout together with the rank and the step.
        second_batch: batches hold twice the images. The second half, and new fakes, are G's.

    Raises:
        ValueError: the parts do not go together.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: Discriminator,
        objective: Objective,
        latent: Callable[..., Tensor],
        d_optimizer: MakeOptimizer,
        g_optimizer: MakeOptimizer,
        terms: Mapping[str, Term] = NONE,
        stabilizers: Mapping[str, Callable[[Discriminator], Discriminator]] = NONE,
        schedules: Mapping[str, Callable[[dict[str, Any], float], None]] = NONE,
        fresh_fakes: bool = False,
        d_steps: int = 1,
        g_steps: int = 1,
        accumulate: int = 1,
        clip: float | None = None,
        ema: float | None = None,
        unroll: Unroll | None = None,
        condition: Labels | None = None,
        seed: int = 0,
        second_batch: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("d_steps", d_steps), ("g_steps", g_steps), ("accumulate", accumulate)):
            if value < 1:
                raise ValueError(f"gan.{name}={value} is no number of steps: choose 1 or more")
        if clip is not None and not clip > 0:
            raise ValueError(f"gan.clip={clip} leaves no gradient: choose a norm above 0, or null")
        if taken := (RESERVED | {name_of(objective)}) & {*terms}:
            raise ValueError(f"terms.{min(taken)} has a name that is taken: choose another")
        self.automatic_optimization = False
        self.generator = generator
        self.ema = None if ema is None else Average(generator, ema)
        for stabilize in stabilizers.values():
            discriminator = stabilize(discriminator)
        self.discriminator = discriminator
        self.objective = objective
        self.terms = cast(Mapping[str, Term], nn.ModuleDict(terms))
        for term in (objective, *terms.values()):
            term.setup(generator, discriminator)
        if len(bounds := [n for n, term in self.named_terms.items() if term.bounds_slope]) > 1:
            raise ValueError(f"{' and '.join(bounds)} both bound D's slope: leave one out")
        self.latent = latent
        self.condition = condition
        self.make_optimizers = (d_optimizer, g_optimizer)
        self.schedules = dict(schedules)
        self.unroll = unroll
        if unroll is not None:
            unroll.check(self)
        self.fresh_fakes = fresh_fakes
        self.d_steps = d_steps
        self.g_steps = g_steps
        self.accumulate = accumulate
        self.clip = clip
        self.seed = seed
        self.second_batch = second_batch
        # The one clock of a run: intervals, axes and checkpoints count the real batches seen.
        self.batches_seen = 0
        self.epochs_seen = 0
        self.epoch_start = 0  # batches seen when the present epoch began
        self.epoch_over = False  # and all is done that follows its batches
        self.waiting: list[Sample] = []  # real batches that the next update will look at
        self.recorder: Recorder | None = None  # plays the turns in this one's place
        # Scalars by clock, left on the device until a callback takes and empties them.
        self.history: dict[int, dict[str, Tensor]] = {}

    # How samples are drawn: what a family overrides.

    def real(self, batch: Sample, z: Tensor) -> Sample:
        """The real side of a duel."""
        return batch

    def fake(self, batch: Sample, z: Tensor) -> Sample:
        """The fake side of a duel; it may be conditioned on what belongs to the real batch."""
        return Sample(at_least_float32(self.generator(z, batch.y)), batch.y, z)

    def prior(self, n: int, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """n latents (n, Z), and what images of them are conditioned on, for pictures and metrics.

        rng: a generator of the CPU, so that the same numbers come on every device.
        """
        device = self.device if rng is None else "cpu"
        return self.latent(n, device, rng).to(self.device), self.labels(n)

    def labels(self, n: int) -> Tensor | None:
        """The labels (n,) that n pictures are made of, in order; None where no image has one."""
        return None if self.condition is None else self.condition(n, self.device)

    @property
    def classes(self) -> dict[str, int]:
        """How many classes of images it knows, by the setting that says so."""
        if self.condition is None:
            return {}
        return {"gan.condition.classes": self.condition.classes}

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, Z) to images (B, C, H, W) in [-1, 1]."""
        return self.generator(z, y)

    # What a family shows of itself besides its samples.

    def pictures(self, real: Callable[[int], Sample]) -> dict[str, Tensor]:
        """Further grids (rows, columns, C, H, W) in [-1, 1], each for samples/NAME.png.

        real: gives test samples, as many as it is asked for, the same ones every time.
        """
        return {}

    def figures(self, real: Callable[[Part], Iterable[Sample]]) -> dict[str, float]:
        """Further figures for the table; `real` gives all samples of a part, batch by batch."""
        return {}

    # The training step.

    def initialize(self, real: Callable[[int], Sample], batch_size: int) -> None:
        """Data-dependent initialisation of both networks (initialization.py), before training.

        real: gives training samples, as many as it is asked for, the same ones every time.
        """
        seed_device(self.device, "initialization", self.seed)
        for module in self.generator.modules():
            if getattr(module, "mean_bias", False):
                module.init_from_images(real(10_000).x)  # type: ignore[operator]
        if self.ema is not None:
            self.ema.reset(self.generator)

        batch, batches = first_batches(real, batch_size)

        def forward() -> None:
            z = self.latent(len(batch.x), self.device)  # type: ignore[arg-type]
            self.discriminator(self.real(batch, z))

        init_from_data(self.discriminator, forward, batches)
        for term in self.all_terms:
            term.after_initialization(self.discriminator)

    def on_fit_start(self) -> None:
        if self.clip is not None and self.trainer.precision == "16-mixed":
            raise UserError(
                f"gan.clip={self.clip} would bound gradients that trainer.precision=16-mixed has "
                "scaled: choose bf16-mixed, or gan.clip=null."
            )

        data = getattr(self.trainer, "datamodule", None)
        if self.batches_seen == 0 and data is not None:
            self.initialize(partial(data.some, "train", device=self.device), data.batch_size)
        if 0 < self.epochs_seen == self.trainer.max_epochs:
            # A run that was broken off in its final table: its last epoch ends once more.
            an_epoch = self.epoch_start // self.epochs_seen
            self.epochs_seen, self.epoch_start = self.epochs_seen - 1, self.epoch_start - an_epoch
        share = len(self.waiting) // self.trainer.world_size  # a checkpoint has all ranks' batches
        own = self.waiting[self.global_rank * share :][:share]
        self.waiting = [
            Sample(*(part if part is None else part.to(self.device) for part in batch))
            for batch in own
        ]
        # Lightning counts its loops' steps, chunks of batches in our case; the clock knows better.
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = self.epochs_seen
        progress.processed = progress.completed = self.epochs_seen

    def on_train_epoch_start(self) -> None:
        self.history.clear()  # what nobody took in an epoch is dropped, or it would only grow

    def on_train_epoch_end(self) -> None:
        self.epochs_seen += 1
        self.epoch_start = self.batches_seen
        self.epoch_over = False

    def training_step(self, chunk: Sequence[Sample], batch_idx: int) -> None:
        """Plays a chunk of real batches, one after the other."""
        for batch in chunk:
            self.batches_seen += 1
            seed_device(self.device, "step", self.seed, self.global_rank, self.batches_seen)
            self.waiting.append(batch)
            if len(self.waiting) == self.accumulate:
                batches, self.waiting = self.waiting, []
                self.tell_the_time()
                (self.recorder or self).play(batches)
                if self.answers and self.ema is not None:
                    self.ema.update(self.generator, self.batches_seen)

    def tell_the_time(self) -> None:
        """Tells everything that changes over a run what time it is."""
        clock = Clock(self.turn, self.batches_seen / max(self.batches_of_run, 1))
        for module in self.timed:
            module.tick(clock)
        self.apply_schedules(self.both_optimizers, clock.progress)

    def apply_schedules(
        self, optimizers: Iterable[Optimizer | LightningOptimizer], progress: float
    ) -> None:
        for schedule in self.schedules.values():
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    schedule(group, progress)

    def play(self, batches: Sequence[Sample]) -> None:
        """D's update on real batches and, at every d_steps-th turn, G's answer."""
        g_batches, reused = batches, not (self.fresh_fakes or self.second_batch)
        if self.second_batch:
            batches, g_batches = zip(*(halves(batch) for batch in batches), strict=True)
        fakes = [self.make_fake(batch, self.answers and reused) for batch in batches]
        duels = []
        for batch, (fake, z) in zip(batches, fakes, strict=True):
            with torch.no_grad():
                real = self.real(batch, z)
            real, fake = real.detach(self.needs_real_grad), fake.detach(self.needs_fake_grad)
            duels.append(Duel(self.discriminator, real, fake, self.at_once))
        self.update("d", duels)

        for step in range(self.g_steps if self.answers else 0):
            if step > 0 or not reused:
                fakes = [self.make_fake(batch) for batch in g_batches]
            with frozen(self.parameters_of["d"]):
                duels = []
                for batch, (fake, z) in zip(g_batches, fakes, strict=True):
                    real = self.real(batch, z)
                    duels.append(Duel(self.opponent(real, fake), real, fake))
                self.update("g", duels)

    def make_fake(self, batch: Sample, grad: bool = True) -> tuple[Sample, Tensor]:
        """The fake side of a duel with a real batch, and the latents that it was drawn with."""
        assert batch.x is not None
        z = self.latent(len(batch.x), self.device)
        with torch.set_grad_enabled(grad):
            return self.fake(batch, z), z

    def opponent(self, real: Sample, fake: Sample) -> Discriminator:
        """The discriminator that G answers to."""
        return self.discriminator if self.unroll is None else self.unroll(self, real, fake)

    def update(self, player: Player, duels: Sequence[Duel]) -> None:
        """One step of one player down the sum of its losses, their mean over the duels."""
        optimizer = self.both_optimizers[0 if player == "d" else 1]
        optimizer.zero_grad()
        rows = []
        for duel in duels:
            loss = self.loss(player, duel)
            self.manual_backward(loss / len(duels))
            outputs = duel.outputs(self.objective.probability)
            rows.append({"loss": loss, **duel.parts, **outputs})
        row = mean_of(rows)
        if self.clip is not None:
            row["grad_norm"] = clip_grad_norm_(self.parameters_of[player], self.clip)
        optimizer.step()
        # Autocast may keep low-precision copies of the weights, which are stale from here on.
        torch.clear_autocast_cache()
        if player == "d":
            for term in self.all_terms:
                term.after_d_update(self.discriminator)
        self.record(f"train/{player}", row)

    def loss(self, player: Player, duel: Duel) -> Tensor:
        """The sum of all terms that take part in this player's update, a scalar."""
        losses = {
            name: loss
            for name, term in self.named_terms.items()
            if (loss := getattr(term, f"{player}_loss")(duel)) is not None
        }
        if not losses:
            raise UserError(
                f"Nothing trains {player.upper()}: choose another objective, or add a term such as "
                "penalty=feature_matching."
            )
        if len(losses) > 1:
            duel.parts.update(losses)
        return reduce(torch.add, losses.values())

    def record(self, prefix: str, scalars: dict[str, Tensor]) -> None:
        """Notes scalars at the present batch, without waiting for the device."""
        row = self.history.setdefault(self.batches_seen, {})
        row.update({f"{prefix}/{name}": value.detach() for name, value in scalars.items()})

    # Who takes part, and who trains what.

    @cached_property
    def named_terms(self) -> dict[str, Term]:
        """The objective under its class's name, then the others under theirs."""
        return {name_of(self.objective): self.objective, **dict(self.terms.items())}

    @cached_property
    def all_terms(self) -> list[Term]:
        return [*self.named_terms.values()]

    @property
    def needs_real_grad(self) -> bool:
        return any(term.needs_real_grad for term in self.all_terms)

    @property
    def needs_fake_grad(self) -> bool:
        return any(term.needs_fake_grad for term in self.all_terms)

    @property
    def at_once(self) -> bool:
        """D looks at both sides in one pass; the slope of one would be taken of both."""
        return self.discriminator.singly and not (self.needs_real_grad or self.needs_fake_grad)

    @cached_property
    def timed(self) -> list[Any]:
        """What in this GAN changes over a run, and wants to be told the time."""
        return [module for module in self.modules() if hasattr(module, "tick")]

    @property
    def turn(self) -> int:
        """Updates of D until now."""
        return self.batches_seen // self.accumulate

    @property
    def answers(self) -> bool:
        """Whether G answers in the present turn."""
        return self.turn % self.d_steps == 0

    @property
    def batches_of_run(self) -> int:
        """How many real batches the whole run will have seen, also where epochs are cut short."""
        loader: Any = self.trainer.train_dataloader
        return int(loader.batches) * (self.trainer.max_epochs or 0)

    @cached_property
    def parameters_of(self) -> dict[Player, list[nn.Parameter]]:
        """D's are the discriminator's and those of the terms that go with it; G's are the rest."""
        with_d = [self.discriminator, *(term for term in self.all_terms if term.player == "d")]
        d = {p for module in with_d for p in module.parameters()}
        return {
            "d": [p for p in self.parameters() if p in d and p.requires_grad],
            "g": [p for p in self.parameters() if p not in d and p.requires_grad],
        }

    @property
    def both_optimizers(self) -> list[LightningOptimizer]:
        return cast(list[LightningOptimizer], self.optimizers())

    def configure_optimizers(self) -> list[Optimizer]:
        d_optimizer, g_optimizer = self.make_optimizers
        optimizers = [d_optimizer(self.parameters_of["d"]), g_optimizer(self.parameters_of["g"])]
        self.apply_schedules(optimizers, 0.0)  # which says at once where they do not suit
        return optimizers

    # What is kept and what is shown.

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Puts the clock in place of Lightning's counters, and says who writes."""
        checkpoint.pop("loops", None)
        checkpoint["ganmnist"] = version("ganmnist")
        checkpoint["batches_seen"] = self.batches_seen
        checkpoint["epochs_seen"] = self.epochs_seen + self.epoch_over
        checkpoint["epoch_start"] = self.batches_seen if self.epoch_over else self.epoch_start
        waiting = [[part if part is None else part.cpu() for part in b] for b in self.waiting]
        ranks = [waiting] * self.trainer.world_size
        if self.waiting and len(ranks) > 1:
            torch.distributed.all_gather_object(ranks, waiting)
        checkpoint["waiting"] = [batch for batches in ranks for batch in batches]

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.batches_seen = checkpoint["batches_seen"]
        self.epochs_seen = checkpoint["epochs_seen"]
        self.epoch_start = checkpoint["epoch_start"]
        self.waiting = [Sample(*batch) for batch in checkpoint["waiting"]]

    def rehearse(self, n: int) -> None:
        """Lets D look at a batch of n images; raises what it raises where it cannot."""
        z, y = self.prior(n)
        batch = Sample(self.sample(z, y), y)
        with at_rest(self):
            for side in (self.real(batch, z), self.fake(batch, z)):
                self.discriminator(side)

    def sample(self, z: Tensor | int, y: Tensor | None = None, ema: bool = False) -> Tensor:
        """Images (n, C, H, W) in [-1, 1] of latents (n, Z), or of n new ones, in evaluation mode.

        ema: by the averaged weights instead of the trained ones.
        """
        if isinstance(z, int):
            z, y = self.prior(z)
        generator = self.generator
        if ema:
            if self.ema is None:
                raise UserError("This GAN has no averaged weights: train with ema=0.999.")
            generator = self.ema.network
        with at_rest(generator):
            return generator(z, y)

    def draw(self, n: int, rng: torch.Generator, ema: bool = False) -> Tensor:
        """Images (n, C, H, W) uint8 of latents drawn by `rng`, a generator of the CPU."""
        z, y = self.prior(n, rng)
        conditions = y.split(100) if y is not None else repeat(None)
        batches = zip(z.split(100), conditions, strict=False)
        return torch.cat([to_bytes(self.sample(*batch, ema=ema)) for batch in batches])


def halves(batch: Sample) -> list[Sample]:
    """The first and the second half of a batch."""
    pairs = [(None, None) if slot is None else slot.chunk(2) for slot in batch]
    return [Sample(*half) for half in zip(*pairs, strict=True)]


def name_of(objective: Objective) -> str:
    return type(objective).__name__.lower()


def mean_of(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of scalars over rows that have the same ones."""
    if len(rows) == 1:
        return rows[0]
    return {name: torch.stack([row[name].detach() for row in rows]).mean() for name in rows[0]}
