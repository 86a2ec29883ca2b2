"""The training step: which weights change when, on which batches, bit by bit."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from helpers.data import RandomImages, images
from helpers.gan import changed, fit, small_gan, snapshot, watch
from torch import Tensor, nn

from ganmnist.callbacks import LastCheckpoint
from ganmnist.data import DataModule
from ganmnist.gan import GAN
from ganmnist.losses.adversarial import BCE, RelativisticPairing
from ganmnist.losses.base import LossTerm, NetworkName
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.losses.penalties import HistoricalAverage
from ganmnist.networks import mlp, noisy
from ganmnist.networks.encoders import LatentDiscriminator
from ganmnist.networks.latents import Normal
from ganmnist.utils.batch import Batch
from ganmnist.utils.errors import UserError
from ganmnist.utils.rng import generator_for, seed_for

either_fakes = pytest.mark.parametrize("resample_fakes", [False, True], ids=["reuse", "resample"])


def parameters(gan: GAN, *prefixes: str) -> set[str]:
    return {name for name, _ in gan.named_parameters() if name.startswith(prefixes)}


def buffers(gan: GAN, *prefixes: str) -> set[str]:
    return {name for name, _ in gan.named_buffers() if name.startswith(prefixes)}


def assert_same_bits(a: nn.Module, b: nn.Module) -> None:
    assert changed(snapshot(a), snapshot(b)) == set()


class RecordingGAN(GAN):
    """Keeps the outputs of every update, in order, with the network that they train."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.updates: list[tuple[NetworkName, DiscriminatorOutputs]] = []

    def minimize(self, network: NetworkName, outputs: Sequence[DiscriminatorOutputs]) -> None:
        self.updates += [(network, out) for out in outputs]
        super().minimize(network, outputs)


def train_without_callbacks(gan: GAN, data: DataModule) -> None:
    """One epoch on the CPU."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(gan, datamodule=data)


# Which weights change


@either_fakes
def test_update_changes_its_network_and_the_batch_statistics_of_d(resample_fakes: bool) -> None:
    gan = small_gan(resample_fakes=resample_fakes)
    moved = watch(gan)
    fit(gan)
    statistics = buffers(gan, "discriminator")
    assert moved == {
        "d": parameters(gan, "discriminator") | statistics,
        "g": parameters(gan, "generator") | statistics,
    }


@pytest.mark.parametrize(("resample_fakes", "passes"), [(False, 1), (True, 2)])
def test_number_of_forward_passes(resample_fakes: bool, passes: int) -> None:
    """As batch norm counts them. D runs on real, fake and again fake images, G once or twice."""
    gan = small_gan(resample_fakes=resample_fakes)
    fit(gan, batches=3)
    state = gan.state_dict()
    counts = {name: n.item() for name, n in state.items() if name.endswith("batches_tracked")}
    assert counts == {
        "generator.blocks.1.num_batches_tracked": 3 * passes,
        "discriminator.blocks.1.num_batches_tracked": 3 * 3,
    }


def test_sampling_fakes_changes_only_the_batch_statistics_of_g() -> None:
    gan = small_gan()
    before = snapshot(gan)
    gan.sample_fake(images())
    assert changed(before, gan.state_dict()) == buffers(gan, "generator")


@either_fakes
def test_generator_step_reuses_or_resamples_fakes(resample_fakes: bool) -> None:
    gan = small_gan(RecordingGAN, resample_fakes=resample_fakes)
    fit(gan, batches=2)
    assert [network for network, _ in gan.updates] == ["d", "g", "d", "g"]
    for (_, d), (_, g) in (gan.updates[:2], gan.updates[2:]):
        assert torch.equal(d.real.x, g.real.x)
        assert torch.equal(d.fake.z, g.fake.z) is not resample_fakes
        assert torch.equal(d.fake.x, g.fake.x) is not resample_fakes
        assert torch.equal(d.fake.y, d.real.y)
        assert not d.fake.x.requires_grad
        assert g.fake.x.requires_grad
    assert not torch.equal(gan.updates[0][1].fake.z, gan.updates[2][1].fake.z)


# A family that a user could write


class LatentGAN(GAN):
    """An adversarial autoencoder: D tells latents z from codes E(x), G decodes."""

    def __init__(self, encoder: Callable[..., nn.Module], **settings: Any) -> None:
        super().__init__(**settings)
        self.encoder = encoder()

    def real_inputs(self, batch: Batch, z: Tensor) -> Batch:
        return Batch(batch.x, z=z)

    def fake_inputs(self, batch: Batch, z: Tensor) -> Batch:
        code = self.encoder(batch.x)
        return Batch(self.generator(code), z=code)


class Reconstruction(LossTerm):
    """E |G(E(x)) - x|^2"""

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return F.mse_loss(out.fake.x, out.real.x)


def test_generator_step_trains_all_networks_that_its_losses_use() -> None:
    def trained(**settings: Any) -> tuple[set[str], GAN]:
        networks = {
            "encoder": nn.Sequential(nn.Flatten(), nn.Linear(64, 4)),
            "discriminator": LatentDiscriminator(4, widths=[8]),
        }
        gan = small_gan(LatentGAN, **networks, **settings)
        moved = watch(gan)
        fit(gan, batches=2)
        assert all(
            value.isfinite() for row in gan.pending_scalars.values() for value in row.values()
        )
        assert moved["d"] == parameters(gan, "discriminator")
        return moved["g"], gan

    moved, gan = trained()
    assert moved == parameters(gan, "encoder")
    moved, gan = trained(auxiliary={"reconstruction": Reconstruction()})
    assert moved == parameters(gan, "encoder", "generator")


# The steps of the recipes against a plain loop

Step = Callable[[GAN, Tensor, torch.optim.Optimizer, torch.optim.Optimizer], None]


def recipe_a(gan: GAN, real: Tensor, d_adam: torch.optim.Adam, g_adam: torch.optim.Adam) -> None:
    """Cross-entropy of probabilities. The generator step uses the same fakes."""
    generator, discriminator = gan.generator, gan.discriminator
    ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
    fake = generator(torch.randn(len(real), 4))

    d_adam.zero_grad()
    loss = F.binary_cross_entropy(discriminator(Batch(real)).sigmoid(), ones)
    loss += F.binary_cross_entropy(discriminator(Batch(fake.detach())).sigmoid(), zeros)
    loss.backward()
    d_adam.step()

    g_adam.zero_grad()
    F.binary_cross_entropy(discriminator(Batch(fake)).sigmoid(), ones).backward()
    g_adam.step()


def recipe_b(gan: GAN, real: Tensor, d_adam: torch.optim.Adam, g_adam: torch.optim.Adam) -> None:
    """Cross-entropy of logits. The generator step uses new fakes."""
    generator, discriminator = gan.generator, gan.discriminator
    ones, zeros = torch.ones(len(real)), torch.zeros(len(real))

    d_adam.zero_grad()
    fake = generator(torch.randn(len(real), 4)).detach()
    if discriminator.per_sample:
        features = discriminator.features(Batch(torch.cat([real, fake])))
        logits = [discriminator.last(half).flatten() for half in features.chunk(2)]
    else:
        logits = [discriminator(Batch(real)), discriminator(Batch(fake))]
    loss = F.binary_cross_entropy_with_logits(logits[0], ones)
    loss += F.binary_cross_entropy_with_logits(logits[1], zeros)
    loss.backward()
    d_adam.step()

    g_adam.zero_grad()
    fake = generator(torch.randn(len(real), 4))
    F.binary_cross_entropy_with_logits(discriminator(Batch(fake)), ones).backward()
    g_adam.step()


def start(gan: GAN) -> tuple[Iterator[Tensor], torch.optim.Adam, torch.optim.Adam]:
    """The batches of `fit`, each after the seed of its step, and both optimizers."""

    def batches() -> Iterator[Tensor]:
        x = RandomImages(27).read()[0].x
        order = torch.randperm(27, generator=generator_for("order", 0, 0))
        for i in range(3):
            torch.manual_seed(seed_for("step", gan.options.seed, 0, i + 1))
            yield (x[order[8 * i : 8 * i + 8]].float() / 255 - 0.5) / 0.5

    adam = partial(torch.optim.Adam, lr=1e-2, betas=(0.5, 0.999))
    return batches(), adam(gan.discriminator.parameters()), adam(gan.generator.parameters())


def mlps() -> dict[str, nn.Module]:
    return {
        "generator": mlp.Generator(4, image_size=8, widths=[8, 8], dropout=0.0),
        "discriminator": mlp.Discriminator(image_size=8, widths=[8, 8], dropout=0.0),
    }


@pytest.mark.parametrize(
    ("step", "stable", "networks"),
    [(recipe_a, False, dict), (recipe_b, True, mlps), (recipe_b, True, dict)],
    ids=["A", "B", "B with batch norm"],
)
def test_steps_are_bit_identical_to_a_plain_loop(
    step: Step, stable: bool, networks: Callable[[], dict[str, nn.Module]]
) -> None:
    gan = small_gan(**networks(), objective=BCE(stable), resample_fakes=step is recipe_b, seed=5)
    plain = deepcopy(gan)
    fit(gan, batches=3)

    batches, d_adam, g_adam = start(plain)
    for real in batches:
        step(plain, real, d_adam, g_adam)
    assert_same_bits(gan, plain)


def test_steps_in_bfloat16_are_bit_identical_to_a_plain_loop() -> None:
    gan = small_gan(resample_fakes=True)
    plain = deepcopy(gan)
    fit(gan, batches=3, precision="bf16-mixed")

    def logits(batch: Batch) -> Tensor:
        return plain.discriminator(batch).float()

    autocast = partial(torch.autocast, "cpu", torch.bfloat16, cache_enabled=False)
    cross_entropy = F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(8), torch.zeros(8)
    batches, d_adam, g_adam = start(plain)
    for real in batches:
        with autocast():
            fake = plain.generator(torch.randn(8, 4)).detach()
            real_logits, fake_logits = logits(Batch(real)), logits(Batch(fake))
        d_adam.zero_grad()
        (cross_entropy(real_logits, ones) + cross_entropy(fake_logits, zeros)).backward()
        d_adam.step()
        with autocast():
            fake_logits = logits(Batch(plain.generator(torch.randn(8, 4))))
        g_adam.zero_grad()
        cross_entropy(fake_logits, ones).backward()
        g_adam.step()
    assert_same_bits(gan, plain)


# Progress and random numbers


def test_batches_seen_counts_batches() -> None:
    gan = small_gan()
    trainer = fit(gan, batches=3, epochs=2)
    assert gan.state.batches_seen == 6
    assert trainer.global_step == 12  # Lightning counts the steps of both optimizers
    assert list(gan.pending_scalars) == [4, 5, 6]  # of the last epoch


def test_checkpoint_has_batches_seen(tmp_path: Path) -> None:
    gan = small_gan()
    fit(gan, batches=3).save_checkpoint(tmp_path / "3.ckpt")
    checkpoint = torch.load(tmp_path / "3.ckpt", weights_only=True)
    assert checkpoint["batches_seen"] == 3
    other = small_gan()
    other.on_load_checkpoint(checkpoint)
    assert other.state.batches_seen == 3


def test_resume_after_an_epoch_is_bit_identical(tmp_path: Path) -> None:
    uninterrupted, first, second = (small_gan() for _ in range(3))
    fit(uninterrupted, batches=3, epochs=3)
    fit(first, batches=3, epochs=1, callbacks=[LastCheckpoint(tmp_path)])
    fit(second, batches=3, epochs=3, ckpt_path=tmp_path / "last.ckpt")
    assert second.state.batches_seen == 9
    assert list(second.pending_scalars) == [7, 8, 9]
    assert_same_bits(second, uninterrupted)


class AutocastGAN(GAN):
    """Trains with PyTorch's autocast, which caches copies of the weights.

    Lightning 2.6.6 disables the cache in bf16-mixed.
    """

    def training_step(self, batch: Batch | list[Batch], batch_idx: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("family", "precision"),
    [(GAN, "32-true"), (GAN, "bf16-mixed"), (AutocastGAN, "32-true")],
    ids=["float32", "bf16-mixed", "autocast"],
)
@either_fakes
def test_chunks_of_batches_are_bit_identical(
    family: type[GAN], precision: str, resample_fakes: bool
) -> None:
    one, four = (small_gan(family, resample_fakes=resample_fakes) for _ in range(2))
    fit(one, batches=7, epochs=2, precision=precision)
    fit(four, batches=7, epochs=2, chunk=4, intervals=(5, 3), precision=precision)
    assert four.state.batches_seen == 14
    assert_same_bits(four, one)
    assert four.pending_scalars.keys() == one.pending_scalars.keys()
    for row, same in zip(four.pending_scalars.values(), one.pending_scalars.values(), strict=True):
        torch.testing.assert_close(row, same, rtol=0, atol=0)


def test_seed_determines_the_run() -> None:
    first, again, other = small_gan(seed=1), small_gan(seed=1), small_gan(seed=2)
    assert_same_bits(first, other)  # the initial weights are equal
    for n, gan in enumerate((first, again, other)):
        torch.rand(n)  # earlier random numbers have no effect
        fit(gan)
    assert_same_bits(first, again)
    assert changed(snapshot(first), snapshot(other)) >= parameters(first, "")


# Gradients


def test_generator_step_computes_no_gradients_of_d() -> None:
    class GradientGAN(GAN):
        def minimize(self, network: NetworkName, outputs: Sequence[DiscriminatorOutputs]) -> None:
            require_grad[network] = {name for name, p in self.named_parameters() if p.requires_grad}
            super().minimize(network, outputs)

    require_grad: dict[NetworkName, set[str]] = {}
    gan = small_gan(GradientGAN)
    fit(gan, batches=1)
    assert require_grad["g"] == parameters(gan, "generator")
    assert require_grad["d"] == parameters(gan, "")
    assert all(p.requires_grad for p in gan.parameters())


class InputGradient(LossTerm):
    """A term without a loss."""

    def __init__(self, real: bool = False, fake: bool = False) -> None:
        super().__init__()
        self.needs_real_grad = real
        self.needs_fake_grad = fake


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("fake", [False, True])
def test_inputs_of_d_require_gradients_if_a_term_needs_them(real: bool, fake: bool) -> None:
    terms = {"one": InputGradient(real=real), "other": InputGradient(fake=fake)}
    gan = small_gan(RecordingGAN, auxiliary=terms)
    fit(gan, batches=1)
    (_, d), (_, g) = gan.updates
    assert (d.real.x.requires_grad, d.fake.x.requires_grad) == (real, fake)
    assert d.fake.x.is_leaf
    assert not g.real.x.requires_grad
    assert g.fake.x.requires_grad


@pytest.mark.parametrize("real", [False, True])
def test_joint_forward_if_no_term_needs_input_gradients(real: bool) -> None:
    gan = small_gan(RecordingGAN, **mlps(), auxiliary={"it": InputGradient(real=real)})
    fit(gan, batches=1)
    (_, d), (_, g) = gan.updates
    assert d.joint_forward != real
    assert not g.joint_forward


class Head(LossTerm):
    """A classifier of generated images, in the losses of both networks."""

    def __init__(self, trained_with: NetworkName) -> None:
        super().__init__()
        self.trained_with = trained_with
        self.head = nn.Linear(4 * 4 * 4, 10)

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return F.cross_entropy(self.head(out.fake_features), out.fake.condition)

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return F.cross_entropy(self.head(out.fake_features), out.fake.condition)


@pytest.mark.parametrize(("network", "other"), [("d", "g"), ("g", "d")])
def test_parameters_of_a_term_are_trained_with_one_network(
    network: NetworkName, other: NetworkName
) -> None:
    gan = small_gan(auxiliary={"head": Head(network)})
    moved = watch(gan)
    fit(gan)
    head = parameters(gan, "loss_terms")
    assert head == {"loss_terms.head.head.weight", "loss_terms.head.head.bias"}
    assert head <= moved[network]
    assert not head & moved[other]
    prefixes = {"d": "discriminator", "g": "generator"}
    names = {p: name for name, p in gan.named_parameters()}
    for optimizer, (trains, prefix) in zip(
        gan.configure_optimizers(), prefixes.items(), strict=True
    ):
        (group,) = optimizer.param_groups
        expected = parameters(gan, prefix) | (head if trains == network else set())
        assert {names[p] for p in group["params"]} == expected


def test_after_d_step_is_called_between_the_two_updates() -> None:
    class Recorder(LossTerm):
        def after_d_step(self, discriminator: nn.Module) -> None:
            events.append("after d")
            assert discriminator is gan.discriminator

    class EventGAN(GAN):
        def minimize(self, network: NetworkName, outputs: Sequence[DiscriminatorOutputs]) -> None:
            events.append(network)
            super().minimize(network, outputs)

    events: list[str] = []
    gan = small_gan(EventGAN, auxiliary={"recorder": Recorder()})
    fit(gan, batches=2)
    assert events == ["d", "after d", "g"] * 2


# Numbers of steps


def updates(gan: GAN, batches: int) -> list[tuple[int, NetworkName]]:
    """Batches seen at each update, and the network that it trains."""
    found = []
    minimize = gan.minimize

    def recorded(network: NetworkName, outputs: Sequence[DiscriminatorOutputs]) -> None:
        found.append((gan.state.batches_seen, network))
        minimize(network, outputs)

    gan.minimize = recorded
    fit(gan, batches=batches)
    return found


def test_d_steps_per_generator_step() -> None:
    assert updates(small_gan(d_steps=3), 7) == [
        *((1, "d"), (2, "d"), (3, "d"), (3, "g")),
        *((4, "d"), (5, "d"), (6, "d"), (6, "g"), (7, "d")),
    ]


def test_second_batch_is_used_in_the_generator_step() -> None:
    """D's loss sees the first half of a batch, G's loss the second half."""
    gan = small_gan(RecordingGAN, objective=RelativisticPairing(), second_batch=True)
    train_without_callbacks(gan, DataModule(RandomImages(19), 4, second_batch=True))
    real = {
        name: [out.real.x for network, out in gan.updates if network == name] for name in ("d", "g")
    }
    assert [len(x) for x in (*real["d"], *real["g"])] == [4] * 8
    d, g = torch.cat(real["d"]), torch.cat(real["g"])
    assert not torch.equal(d, g)
    for x in (d, g):  # each image is used once an epoch
        assert len(x.flatten(1).unique(dim=0)) == 16


def test_initialization_from_data_is_optional() -> None:
    gan = small_gan(generator=mlp.Generator(4, image_size=8, widths=[]))
    before = snapshot(gan)
    gan.initialize(images, 8)
    assert changed(before, snapshot(gan)) == set()


def test_initialization_from_data() -> None:
    """The mean image sets G's last bias, the first batch sets D. The averages start from both."""
    history = HistoricalAverage()
    gan = small_gan(
        generator=mlp.Generator(4, image_size=8, widths=[], mean_bias=True, dropout=0.0),
        discriminator=noisy.Discriminator(image_size=8, widths=[6]),
        ema=0.9,
        auxiliary={"history": history},
    )
    before = snapshot(gan)
    gan.initialize(images, 8)
    initialized = changed(before, snapshot(gan))
    assert {"generator.layers.0.bias", "discriminator.last.1.bias"} <= initialized
    assert_same_bits(gan.ema.network, gan.generator)
    assert_same_bits(history.past["d"], gan.discriminator)
    assert_same_bits(history.past["g"], gan.generator)
    once = snapshot(gan)
    gan.load_state_dict(before)
    torch.manual_seed(1)
    gan.initialize(images, 8)
    assert changed(once, snapshot(gan)) == set()  # earlier random numbers have no effect


@either_fakes
def test_further_generator_steps_sample_new_fakes(resample_fakes: bool) -> None:
    gan = small_gan(RecordingGAN, g_steps=3, resample_fakes=resample_fakes)
    fit(gan, batches=1)
    assert [network for network, _ in gan.updates] == ["d", "g", "g", "g"]
    latents = [out.fake.z for _, out in gan.updates]
    assert torch.equal(latents[0], latents[1]) == (not resample_fakes)
    assert not torch.equal(latents[1], latents[2])
    assert not torch.equal(latents[2], latents[3])
    assert gan.updates[3][1].fake.x.grad_fn is not None


def test_accumulated_batches_make_one_update() -> None:
    gan = small_gan(accumulate=3)
    assert updates(gan, 7) == [(3, "d"), (3, "g"), (6, "d"), (6, "g")]
    assert len(gan.state.microbatches) == 1
    assert updates(small_gan(accumulate=2, d_steps=2), 5) == [(2, "d"), (4, "d"), (4, "g")]


class TableLatent(Normal):
    """Latents are the next rows of a fixed table."""

    def __init__(self) -> None:
        super().__init__(4)
        self.rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(3))
        self.used = 0

    def __call__(self, n: int, device: object = None, generator: object = None) -> Tensor:
        self.used += n
        return self.rows[self.used - n : self.used]


def test_two_accumulated_half_batches_are_the_full_batch() -> None:
    """Without batch statistics the gradients are equal."""
    weights, losses = [], []
    sgd = partial(torch.optim.SGD, lr=0.1)
    for size, accumulate in ((8, 1), (4, 2)):
        gan = small_gan(
            generator=mlp.Generator(4, image_size=8, widths=[8], dropout=0.0),
            discriminator=mlp.Discriminator(image_size=8, widths=[8], dropout=0.0),
            latent=TableLatent(),
            accumulate=accumulate,
            optimizers={"d": sgd, "g": sgd},
        )
        torch.manual_seed(0)
        for p in gan.parameters():
            nn.init.normal_(p, std=0.3)
        before = snapshot(gan)
        train_without_callbacks(gan, DataModule(RandomImages(16), size))
        assert changed(before, snapshot(gan)) == parameters(gan, "")
        weights.append(snapshot(gan))
        losses.append(list(gan.pending_scalars.values()))
    torch.testing.assert_close(weights[0], weights[1])
    torch.testing.assert_close(losses[0], losses[1])


def test_clip_bounds_the_gradient_norm() -> None:
    """An SGD step with learning rate 1 is as long as the clipped gradient."""
    sgd = partial(torch.optim.SGD, lr=1.0)
    for clip in (1e-3, math.inf):
        gan = small_gan(clip=clip, optimizers={"d": sgd, "g": sgd})
        before = [p.detach().clone() for p in gan.discriminator.parameters()]
        fit(gan, batches=1)
        pairs = zip(before, gan.discriminator.parameters(), strict=True)
        step = torch.stack([(a - b).square().sum() for a, b in pairs]).sum().sqrt()
        norm = gan.pending_scalars[1]["train/d/grad_norm"]
        torch.testing.assert_close(step.detach(), norm.clamp(max=clip), rtol=1e-3, atol=1e-6)
        assert norm > 1e-3
        assert gan.pending_scalars[1]["train/g/grad_norm"] > 0


@pytest.mark.parametrize("name", ["d_steps", "g_steps", "accumulate"])
def test_numbers_of_steps_are_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"gan\.{name}=0"):
        small_gan(**{name: 0})


def test_clip_is_above_zero() -> None:
    with pytest.raises(ValueError, match=r"gan\.clip=0"):
        small_gan(clip=0)


# The average of the generator


@pytest.mark.parametrize(
    ("ema", "decays"), [(0.999, (2 / 11, 3 / 12, 4 / 13)), (0.2, (2 / 11, 0.2, 0.2))]
)
@pytest.mark.parametrize("g_steps", [1, 2])
def test_ema_is_the_average_of_the_generator(
    g_steps: int, ema: float, decays: Sequence[float]
) -> None:
    """It includes batch statistics. The decay rises with every batch to `ema`."""
    gan = small_gan(ema=ema, g_steps=g_steps)
    versions = [snapshot(gan.generator)]
    run_step = gan.run_step

    def recorded(batches: Sequence[Batch]) -> None:
        run_step(batches)
        versions.append(snapshot(gan.generator))

    gan.run_step = recorded
    fit(gan, batches=3)
    for name, value in snapshot(gan.ema.network).items():
        if value.is_floating_point():
            expected, *others = (weights[name] for weights in versions)
            for decay, weights in zip(decays, others, strict=True):
                expected = decay * expected + (1 - decay) * weights
            torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("ema", [-0.1, 1.0, 2.0])
def test_ema_is_at_least_zero_and_below_one(ema: float) -> None:
    with pytest.raises(ValueError, match=f"ema={ema}"):
        small_gan(ema=ema)


def test_ema_does_not_change_the_training() -> None:
    with_ema, without = small_gan(ema=0.9), small_gan()
    fit(with_ema)
    fit(without)
    assert_same_bits(with_ema.generator, without.generator)
    assert_same_bits(with_ema.discriminator, without.discriminator)
    averaged = {*with_ema.ema.parameters()}
    trained = {p for ps in with_ema.parameters_of.values() for p in ps}
    assert averaged
    assert not averaged & trained
    assert {*with_ema.parameters()} == averaged | trained


def test_ema_samples_in_evaluation_mode() -> None:
    gan = small_gan(ema=0.5)
    fit(gan)
    z = torch.randn(4, 4)
    x = gan.sample(z, ema=True)
    torch.testing.assert_close(x, deepcopy(gan.ema.network).eval()(z), rtol=0, atol=0)
    assert not torch.equal(x, gan.sample(z))
    with pytest.raises(UserError, match="weights=ema"):
        small_gan().sample(z, ema=True)


def test_uint8_samples_depend_on_the_random_generator_only() -> None:
    gan = small_gan()
    one, other = (gan.sampler.uint8(130, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)
    assert (one.dtype, one.shape) == (torch.uint8, (130, 1, 8, 8))
    z = torch.randn(130, 4, generator=torch.Generator().manual_seed(3))
    expected = ((gan.sample(z) + 1) * 127.5).round()
    assert (one.float() - expected).abs().max() <= 1  # chunks of 100 may round differently


# Scalars and samples


def test_history_has_losses_and_outputs() -> None:
    gan = small_gan()
    fit(gan, batches=2)
    d = {f"train/d/{name}" for name in ("loss", "real", "fake", "real_prob", "fake_prob")}
    for row in gan.pending_scalars.values():
        assert row.keys() == d | {"train/g/loss", "train/g/fake_prob"}
        assert not any(value.requires_grad for value in row.values())
        torch.testing.assert_close(
            row["train/d/loss"], row["train/d/real"] + row["train/d/fake"], rtol=0, atol=0
        )


def test_sampling_uses_evaluation_mode_and_changes_nothing() -> None:
    gan = small_gan()
    fit(gan)
    z = torch.randn(4, 4)
    for training in (True, False):
        gan.train(training)
        gan.discriminator.eval()
        before, state = snapshot(gan), torch.get_rng_state()
        batch = gan.sample(z)
        one_by_one = torch.cat([gan.sample(row) for row in z.split(1)])
        assert gan.training is gan.generator.training is training
        assert not gan.discriminator.training
        assert changed(before, gan.state_dict()) == set()
        assert torch.equal(torch.get_rng_state(), state)
        assert not batch.requires_grad
        assert batch.shape == (4, 1, 8, 8)
        torch.testing.assert_close(batch, one_by_one)


def test_each_network_has_its_own_optimizer() -> None:
    """An SGD step is p - lr * grad."""
    d, g = partial(torch.optim.SGD, lr=0.0), partial(torch.optim.SGD, lr=0.5)
    gan = small_gan(optimizers={"d": d, "g": g})
    moved = watch(gan)
    before = snapshot(gan)
    fit(gan, batches=1)
    assert moved["d"] == buffers(gan, "discriminator")
    for name, p in gan.generator.named_parameters():
        expected = before[f"generator.{name}"] - 0.5 * p.grad
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=0)
