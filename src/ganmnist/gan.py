"""The training step: two players, one duel at a time.

For each batch of real samples the discriminator moves first and the generator answers through
the discriminator as it then is. Every loss is a `Term` of a `Duel`, so this file knows no
objective, no network and no data set; a family of GANs overrides how samples are drawn (`real`
and `fake`), seldom the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, reduce
from itertools import repeat
from typing import TYPE_CHECKING, cast

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from ganmnist.duel import Duel, Player, Sample, Term, at_least_float32
from ganmnist.ema import Average
from ganmnist.errors import UserError
from ganmnist.objectives import Objective
from ganmnist.pixels import to_bytes
from ganmnist.rng import seed_device

if TYPE_CHECKING:
    from ganmnist.networks.base import Discriminator

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class GAN(L.LightningModule):
    """Both networks, what they are trained for, and the alternating updates.

    Args:
        generator: latents (B, Z) and conditions to images (B, C, H, W) in [-1, 1].
        discriminator: a sample to features (B, F), features to logits (B,).
        objective: the adversarial losses.
        latent: draws (n, Z) latents.
        d_optimizer, g_optimizer: build an optimiser from the parameters of their player.
        terms: whatever is added to the objective: penalties, auxiliary heads.
        fresh_fakes: the generator answers with a new fake batch. Otherwise both updates look at
            the same one, which saves a pass through the generator.
        ema: decay of a moving average of the generator's weights, which is shown and measured
            beside the trained ones and never trained on.
        seed: keys all latents and dropout together with the rank and the step.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: Discriminator,
        objective: Objective,
        latent: Callable[..., Tensor],
        d_optimizer: MakeOptimizer,
        g_optimizer: MakeOptimizer,
        terms: Sequence[Term] = (),
        fresh_fakes: bool = False,
        ema: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = generator
        self.ema = None if ema is None else Average(generator, ema)
        self.discriminator = discriminator
        self.terms = cast(Sequence[Term], nn.ModuleList([objective, *terms]))
        self.latent = latent
        self.make_optimizers = (d_optimizer, g_optimizer)
        self.fresh_fakes = fresh_fakes
        self.seed = seed
        # The one clock of a run: intervals, axes and checkpoints count the real batches seen.
        self.batches_seen = 0
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
        return self.latent(n, device, rng).to(self.device), None

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, Z) to images (B, C, H, W) in [-1, 1]."""
        return self.generator(z, y)

    @property
    def objective(self) -> Objective:
        return cast(Objective, self.terms[0])

    # The training step.

    def on_train_epoch_start(self) -> None:
        self.history.clear()  # what nobody took in an epoch is dropped, or it would only grow

    def training_step(self, chunk: Sequence[Sample], batch_idx: int) -> None:
        """Plays a chunk of real batches, one after the other."""
        for batch in chunk:
            self.batches_seen += 1
            seed_device(self.device, "step", self.seed, self.global_rank, self.batches_seen)
            self.play(batch)

    def play(self, batch: Sample) -> None:
        """Both updates on one real batch."""
        assert batch.x is not None
        n = len(batch.x)
        z = self.latent(n, self.device)
        with torch.set_grad_enabled(not self.fresh_fakes):
            fake = self.fake(batch, z)
        with torch.no_grad():
            real = self.real(batch, z)
        real = real.detach(x_grad=any(term.needs_real_grad for term in self.terms))
        cut = fake.detach(x_grad=any(term.needs_fake_grad for term in self.terms))
        self.update("d", Duel(self.discriminator, real, cut))

        if self.fresh_fakes:
            z = self.latent(n, self.device)
            fake = self.fake(batch, z)
        with frozen(self.parameters_of["d"]):
            self.update("g", Duel(self.discriminator, self.real(batch, z), fake))

    def update(self, player: Player, duel: Duel) -> None:
        """One step of one player down the sum of its losses."""
        loss = self.loss(player, duel)
        optimizers = cast(list[LightningOptimizer], self.optimizers())
        optimizer = optimizers[0 if player == "d" else 1]
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        if player == "g" and self.ema is not None:
            self.ema.update(self.generator, self.batches_seen)
        # Autocast may keep low-precision copies of the weights, which are stale from here on.
        torch.clear_autocast_cache()
        if player == "d":
            for term in self.terms:
                term.after_d_update(self.discriminator)
        self.record(f"train/{player}", {"loss": loss, **duel.parts, **duel.outputs})

    def loss(self, player: Player, duel: Duel) -> Tensor:
        """The sum of all terms that take part in this player's update, a scalar."""
        losses = [
            (type(t).__name__.lower(), getattr(t, f"{player}_loss")(duel)) for t in self.terms
        ]
        losses = [(name, loss) for name, loss in losses if loss is not None]
        if len(losses) > 1:
            duel.parts.update(losses)
        return reduce(torch.add, [loss for _, loss in losses])

    def record(self, prefix: str, scalars: dict[str, Tensor]) -> None:
        """Notes scalars at the present batch, without waiting for the device."""
        row = self.history.setdefault(self.batches_seen, {})
        row.update({f"{prefix}/{name}": value.detach() for name, value in scalars.items()})

    # Who trains what.

    @cached_property
    def parameters_of(self) -> dict[Player, list[nn.Parameter]]:
        """D's are the discriminator's and those of the terms that go with it; G's are the rest."""
        with_d = [self.discriminator, *(term for term in self.terms if term.player == "d")]
        d = {p for module in with_d for p in module.parameters()}
        return {
            "d": [p for p in self.parameters() if p in d and p.requires_grad],
            "g": [p for p in self.parameters() if p not in d and p.requires_grad],
        }

    def configure_optimizers(self) -> list[Optimizer]:
        d_optimizer, g_optimizer = self.make_optimizers
        return [d_optimizer(self.parameters_of["d"]), g_optimizer(self.parameters_of["g"])]

    # What is kept and what is shown.

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["batches_seen"] = self.batches_seen

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.batches_seen = checkpoint["batches_seen"]

    @torch.no_grad()
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
        was_training = generator.training
        generator.eval()
        images = generator(z, y)
        generator.train(was_training)
        return images

    def draw(self, n: int, rng: torch.Generator, ema: bool = False) -> Tensor:
        """Images (n, C, H, W) uint8 of latents drawn by `rng`, a generator of the CPU."""
        z, y = self.prior(n, rng)
        conditions = y.split(100) if y is not None else repeat(None)
        batches = zip(z.split(100), conditions, strict=False)
        return torch.cat([to_bytes(self.sample(*batch, ema=ema)) for batch in batches])


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Takes no gradient with respect to these parameters, and so saves computing it."""
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
