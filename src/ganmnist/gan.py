"""The GAN LightningModule, with manual optimization.

    for each batch x:
        sample latents z
        min_D  L_D(D(x), D(G(z)))                  discriminator step
        every `d_steps` iterations, `g_steps` times:
            min_G  L_G(D(x), D(G(z)))              generator step, D frozen

L_D and L_G are sums of `LossTerm`s (losses/). This file depends on no particular loss, architecture
or data set. A family (families/) can override `real_inputs` and `fake_inputs`, the inputs of D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from ganmnist.losses.adversarial import Objective
from ganmnist.losses.base import LossTerm, NetworkName
from ganmnist.losses.outputs import DiscriminatorOutputs, mean_scalars
from ganmnist.losses.terms import LossTerms
from ganmnist.networks.base import Discriminator, DiscriminatorFactory
from ganmnist.networks.initialization import first_batches, init_from_data, init_from_images
from ganmnist.networks.latents import Labels, LatentPrior
from ganmnist.networks.sampler import Sampler
from ganmnist.stabilizers.base import Stabilizer
from ganmnist.utils.batch import Batch, FakeSample, Split, at_least_float32, halves
from ganmnist.utils.ema import EMA
from ganmnist.utils.hooks import BeforeDStep, StepRunner
from ganmnist.utils.mappings import EMPTY
from ganmnist.utils.modules import frozen
from ganmnist.utils.resumable import ResumableModule
from ganmnist.utils.rng import seed_device
from ganmnist.utils.schedules import OptimizerSchedule, TrainingProgress, apply_schedules
from ganmnist.utils.training_options import TrainingOptions

GeneratorFactory = Callable[..., nn.Module]  # called with latent_dim=Z and channels=C
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]


class GAN(ResumableModule):
    """Both networks, their losses, and the alternating updates.

    Args:
        generator: builds G from `latent_dim` and `channels`. G maps latents (B, Z), and conditions
            if it takes them, to images (B, C, H, W) in [-1, 1].
        discriminator: builds D from `channels`.
        latent: samples latents (n, Z); `latent.dim` is Z.
        objective: the adversarial losses.
        optimizers: `d` and `g` build an optimizer from parameters.
        channels: C of the images.
        penalties, auxiliary: further loss terms by name.
        stabilizers: changes of D, of the objective or of the generator step, by name. They apply
            in the order of the mapping.
        schedules: change the settings of both optimizers during the run.
        labels: labels for G in image grids and metrics (training uses those of the batch);
            None: G takes no labels.
        options: options of the training step.

    Raises:
        ValueError: two parts do not fit each other.
    """

    def __init__(
        self,
        generator: GeneratorFactory,
        discriminator: DiscriminatorFactory,
        latent: LatentPrior,
        objective: Objective,
        optimizers: Mapping[str, OptimizerFactory],
        channels: int = 1,
        penalties: Mapping[str, LossTerm] = EMPTY,
        auxiliary: Mapping[str, LossTerm] = EMPTY,
        stabilizers: Mapping[str, Stabilizer] = EMPTY,
        schedules: Mapping[str, OptimizerSchedule] = EMPTY,
        labels: Labels | None = None,
        options: TrainingOptions | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.options = options = options or TrainingOptions()
        self.latent = latent
        self.labels = labels
        self.generator = generator(latent_dim=latent.dim, channels=channels)
        self.ema = None if options.ema is None else EMA(self.generator, options.ema)
        self.stabilizers = [*stabilizers.values()]
        for stabilizer in self.stabilizers:
            channels = stabilizer.input_channels(channels)
        self.discriminator = self.build_discriminator(discriminator, channels)
        for stabilizer in self.stabilizers:
            self.discriminator = stabilizer.wrap_discriminator(self.discriminator)
            objective = stabilizer.wrap_objective(objective)
        self.loss_terms = LossTerms(objective, objective.penalties, penalties, auxiliary)
        self.loss_terms.setup(self.generator, self.discriminator)
        for stabilizer in self.stabilizers:
            stabilizer.check(self.loss_terms)
        self.optimizer_factories = optimizers
        self.schedules = [*schedules.values()]
        self.step_runner: StepRunner | None = None  # replaces `run_step`
        self.stop_requested = False  # ends a chunk of batches early

    def build_discriminator(self, factory: DiscriminatorFactory, channels: int) -> Discriminator:
        """Builds D. `channels` are those of its input."""
        return factory(channels=channels)

    # Inputs of the discriminator. Families override these.

    def real_inputs(self, batch: Batch, z: Tensor) -> Batch:
        """The real inputs of D. z are the latents (B, Z) that this step has sampled."""
        return batch

    def fake_inputs(self, batch: Batch, z: Tensor) -> Batch:
        """The fake inputs of D, with the conditions of the real batch."""
        return Batch(at_least_float32(self.generator(z, batch.y)), batch.y, z)

    # The training step.

    def training_step(self, batch: Batch | list[Batch], batch_idx: int) -> None:
        """Trains on one batch, or on each batch of a chunk."""
        for one_batch in batch if isinstance(batch, list) else [batch]:
            if batches := self.collect(one_batch):
                self.update_schedules()
                (self.step_runner or self).run_step(batches)
                if self.is_g_step and self.ema is not None:
                    self.ema.update(self.generator, self.state.batches_seen)
            if self.stop_requested:
                break

    def run_step(self, batches: Sequence[Batch]) -> None:
        """One discriminator step and, in every `d_steps`-th iteration, the generator steps."""
        d_batches = g_batches = batches
        if self.options.second_batch:
            d_batches, g_batches = zip(*map(halves, batches), strict=True)
        fakes = self.d_step(d_batches)
        if self.is_g_step:
            for i in range(self.options.g_steps):
                self.g_step(g_batches, fakes if i == 0 and self.reuses_fakes else None)

    def d_step(self, batches: Sequence[Batch]) -> list[FakeSample]:
        """min_D L_D(D(x), D(G(z))). Returns the fakes, for the generator step."""
        grad = self.is_g_step and self.reuses_fakes
        fakes = [self.sample_fake(batch, grad) for batch in batches]
        outputs = [self.d_outputs(b, fake) for b, fake in zip(batches, fakes, strict=True)]
        self.minimize("d", outputs)
        for term in self.loss_terms.all:
            term.after_d_step(self.discriminator)
        return fakes

    def g_step(self, batches: Sequence[Batch], fakes: list[FakeSample] | None = None) -> None:
        """min_G L_G(D(x), D(G(z))), D frozen. Without `fakes`, new ones are sampled."""
        fakes = fakes or [self.sample_fake(batch) for batch in batches]
        with frozen(self.parameters_of["d"]):
            outputs = [self.g_outputs(b, fake) for b, fake in zip(batches, fakes, strict=True)]
            self.minimize("g", outputs)

    def d_outputs(self, batch: Batch, fake: FakeSample) -> DiscriminatorOutputs:
        """D's outputs for D's loss. The inputs are detached."""
        with torch.no_grad():
            real = self.real_inputs(batch, fake.z)
        real_grad, fake_grad = self.loss_terms.needs_real_grad, self.loss_terms.needs_fake_grad
        return DiscriminatorOutputs(
            self.discriminator,
            real.detach(requires_grad=real_grad),
            fake.inputs.detach(requires_grad=fake_grad),
            joint_forward=self.discriminator.per_sample and not (real_grad or fake_grad),
        )

    def g_outputs(self, batch: Batch, fake: FakeSample) -> DiscriminatorOutputs:
        """D's outputs for G's loss. Gradients flow through the inputs."""
        real = self.real_inputs(batch, fake.z)
        d = self.discriminator_for_g(real, fake.inputs)
        return DiscriminatorOutputs(d, real, fake.inputs)

    def minimize(self, network: NetworkName, outputs: Sequence[DiscriminatorOutputs]) -> None:
        """One optimizer step on the mean loss over `outputs`."""
        optimizer = self.optimizer_of(network)
        optimizer.zero_grad()
        rows = []
        for out in outputs:
            loss = self.loss_terms.loss(network, out)
            self.manual_backward(loss / len(outputs))
            rows.append({"loss": loss, **out.tracked, **out.means(self.objective.probability)})
        scalars = mean_scalars(rows)
        if self.options.clip is not None:
            parameters = self.parameters_of[network]
            scalars["grad_norm"] = clip_grad_norm_(parameters, self.options.clip)
        optimizer.step()
        # Autocast caches low-precision copies of the weights, which have just changed.
        torch.clear_autocast_cache()
        self.record_scalars(f"train/{network}", scalars)

    # Parts of the training step.

    def collect(self, batch: Batch) -> list[Batch]:
        """Counts a batch, seeds its random numbers. Returns `accumulate` batches, or none yet."""
        batches = self.state.collect(batch, self.options.accumulate)
        key = (self.options.seed, self.global_rank, self.state.batches_seen)
        seed_device(self.device, "step", *key)
        return batches

    def update_schedules(self) -> None:
        """Updates everything that changes over a run, before each discriminator step."""
        fraction = self.state.batches_seen / max(self.batches_of_run, 1)
        for module in self.scheduled_modules:
            module.before_d_step(TrainingProgress(self.d_iteration, fraction))
        optimizers = (self.optimizer_of("d"), self.optimizer_of("g"))
        apply_schedules(self.schedules, optimizers, fraction)

    def sample_fake(self, batch: Batch, grad: bool = True) -> FakeSample:
        """Samples latents, and generates the fake inputs of D for a real batch."""
        z = self.latent(len(batch.x), self.device)
        with torch.set_grad_enabled(grad):
            return FakeSample(self.fake_inputs(batch, z), z)

    def discriminator_for_g(self, real: Batch, fake: Batch) -> Discriminator:
        """The discriminator of the generator step."""
        for stabilizer in self.stabilizers:
            d = stabilizer.discriminator_for_g(self.discriminator, self.loss_terms, real, fake)
            if d is not None:
                return d
        return self.discriminator

    @property
    def objective(self) -> Objective:
        return self.loss_terms.objective

    @property
    def d_iteration(self) -> int:
        """Number of the current discriminator step, from 1."""
        return self.state.batches_seen // self.options.accumulate

    @property
    def is_g_step(self) -> bool:
        """The current iteration ends with generator steps."""
        return self.d_iteration % self.options.d_steps == 0

    @property
    def reuses_fakes(self) -> bool:
        """The first generator step uses the fakes of the discriminator step."""
        return not (self.options.resample_fakes or self.options.second_batch)

    @cached_property
    def scheduled_modules(self) -> list[BeforeDStep]:
        return [module for module in self.modules() if isinstance(module, BeforeDStep)]

    # Optimizers.

    @cached_property
    def parameters_of(self) -> dict[NetworkName, list[nn.Parameter]]:
        """D's: those of the discriminator and of the terms trained with it. G's: all others."""
        terms = [term for term in self.loss_terms.all if term.trained_with == "d"]
        d = {p for module in (self.discriminator, *terms) for p in module.parameters()}
        trained = [p for p in self.parameters() if p.requires_grad]
        return {"d": [p for p in trained if p in d], "g": [p for p in trained if p not in d]}

    def optimizer_of(self, network: NetworkName) -> LightningOptimizer:
        d, g = cast(list[LightningOptimizer], self.optimizers())
        return d if network == "d" else g

    def configure_optimizers(self) -> list[Optimizer]:
        parameters = self.parameters_of.items()
        optimizers = [self.optimizer_factories[network](ps) for network, ps in parameters]
        apply_schedules(self.schedules, optimizers, 0.0)  # may raise ValueError
        return optimizers

    # Images and metrics.

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.generator, self.ema, self.latent, self.labels)

    def sample(self, z: Tensor | int, y: Tensor | None = None, ema: bool = False) -> Tensor:
        """Images (n, C, H, W) in [-1, 1] of latents (n, Z), or of n new ones, in eval mode."""
        return self.sampler(z, y, ema)

    def extra_images(self, real_images: Callable[[int], Batch]) -> dict[str, Tensor]:
        """A family's own grids (rows, columns, C, H, W) in [-1, 1], for samples/NAME.png.

        real_images: returns the first n test images of a fixed order.
        """
        return {}

    def extra_metrics(self, real_batches: Callable[[Split], Iterable[Batch]]) -> dict[str, float]:
        """A family's own metrics; `real_batches` yields all images of a split in batches."""
        return {}

    @property
    def expected_classes(self) -> dict[str, int]:
        """For each setting of the family, the number of classes that the networks expect."""
        return {} if self.labels is None else {"family.labels.n_classes": self.labels.n_classes}

    # Start of a training.

    def on_fit_start(self) -> None:
        super().on_fit_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.state.batches_seen == 0 and data is not None:
            self.initialize(partial(data.fixed_batch, "train", device=self.device), data.batch_size)

    def initialize(self, real_images: Callable[[int], Batch], batch_size: int) -> None:
        """Data-dependent initialization of a new training (networks/initialization.py).

        real_images: returns the first n training images of a fixed order.
        """
        seed_device(self.device, "initialization", self.options.seed)
        init_from_images(self.generator, real_images)
        if self.ema is not None:
            self.ema.reset(self.generator)

        images, n_batches = first_batches(real_images, batch_size)

        def forward() -> None:
            z = self.latent(len(images.x), self.device)
            self.discriminator(self.real_inputs(images, z))

        init_from_data(self.discriminator, forward, n_batches)
        for term in self.loss_terms.all:
            term.after_initialization(self.discriminator)
