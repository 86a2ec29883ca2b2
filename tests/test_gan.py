"""The training step: who moves when, on what, and what is the same in every bit."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from conftest import RandomImages, changed, fit, images, small_gan, snapshot, watch
from torch import Tensor, nn

from ganmnist.callbacks import LastCheckpoint
from ganmnist.data import DataModule
from ganmnist.duel import Duel, Player, Sample, Term
from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.networks import mlp, noisy
from ganmnist.objectives import BCE, RelativisticPairing
from ganmnist.passes import frozen
from ganmnist.regularizers import HistoricalAverage
from ganmnist.rng import generator_for, seed_for

fresh_or_not = pytest.mark.parametrize("fresh_fakes", [False, True], ids=["same", "fresh"])


def parameters(gan: GAN, *prefixes: str) -> set[str]:
    return {name for name, _ in gan.named_parameters() if name.startswith(prefixes)}


def buffers(gan: GAN, *prefixes: str) -> set[str]:
    return {name for name, _ in gan.named_buffers() if name.startswith(prefixes)}


def assert_same_bits(a: nn.Module, b: nn.Module) -> None:
    assert changed(snapshot(a), snapshot(b)) == set()


class Recorded(GAN):
    """Keeps every duel with the player it was played for."""

    def __init__(self, **parts: object) -> None:
        super().__init__(**parts)
        self.duels: list[tuple[Player, Duel]] = []

    def update(self, player: Player, duels: Sequence[Duel]) -> None:
        self.duels += [(player, duel) for duel in duels]
        super().update(player, duels)


# Who moves


@fresh_or_not
def test_an_update_moves_its_player_and_the_statistics_of_d(fresh_fakes: bool) -> None:
    """D's batch norm also counts what passes through D on G's update; nothing of G's moves."""
    gan = small_gan(fresh_fakes=fresh_fakes)
    moved = watch(gan)
    fit(gan)
    statistics = buffers(gan, "discriminator")
    assert moved == {
        "d": parameters(gan, "discriminator") | statistics,
        "g": parameters(gan, "generator") | statistics,
    }


@pytest.mark.parametrize(("fresh_fakes", "passes"), [(False, 1), (True, 2)])
def test_passes_through_the_networks(fresh_fakes: bool, passes: int) -> None:
    """As batch norm counts them: D sees real and fake, then fake again; G draws once or twice."""
    gan = small_gan(fresh_fakes=fresh_fakes)
    fit(gan, batches=3)
    state = gan.state_dict()
    counts = {name: n.item() for name, n in state.items() if name.endswith("batches_tracked")}
    assert counts == {
        "generator.blocks.1.num_batches_tracked": 3 * passes,
        "discriminator.blocks.1.num_batches_tracked": 3 * 3,
    }


def test_drawing_fakes_moves_the_statistics_of_g_and_nothing_else() -> None:
    gan = small_gan()
    before = snapshot(gan)
    gan.fake(images(), gan.latent(8))
    assert changed(before, gan.state_dict()) == buffers(gan, "generator")


@fresh_or_not
def test_both_players_see_the_same_fakes_or_g_fresh_ones(fresh_fakes: bool) -> None:
    gan = small_gan(Recorded, fresh_fakes=fresh_fakes)
    fit(gan, batches=2)
    assert [player for player, _ in gan.duels] == ["d", "g", "d", "g"]
    for (_, d), (_, g) in (gan.duels[:2], gan.duels[2:]):
        assert torch.equal(d.real.x, g.real.x)
        assert torch.equal(d.fake.z, g.fake.z) is not fresh_fakes
        assert torch.equal(d.fake.x, g.fake.x) is not fresh_fakes
        assert torch.equal(d.fake.y, d.real.y)
        assert not d.fake.x.requires_grad
        assert g.fake.x.requires_grad
    assert not torch.equal(gan.duels[0][1].fake.z, gan.duels[2][1].fake.z)


# The recipes' steps against the loop that anyone would write

Step = Callable[[GAN, Tensor, torch.optim.Optimizer, torch.optim.Optimizer], None]


def recipe_a(gan: GAN, real: Tensor, d_adam: torch.optim.Adam, g_adam: torch.optim.Adam) -> None:
    """Cross-entropy of probabilities; G's answer to the updated D on the same fakes."""
    generator, discriminator = gan.generator, gan.discriminator
    ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
    fake = generator(torch.randn(len(real), 4))

    d_adam.zero_grad()
    loss = F.binary_cross_entropy(discriminator(Sample(real)).sigmoid(), ones)
    loss += F.binary_cross_entropy(discriminator(Sample(fake.detach())).sigmoid(), zeros)
    loss.backward()
    d_adam.step()

    g_adam.zero_grad()
    F.binary_cross_entropy(discriminator(Sample(fake)).sigmoid(), ones).backward()
    g_adam.step()


def recipe_b(gan: GAN, real: Tensor, d_adam: torch.optim.Adam, g_adam: torch.optim.Adam) -> None:
    """Cross-entropy with logits; G's answer to the updated D on fresh fakes."""
    generator, discriminator = gan.generator, gan.discriminator
    ones, zeros = torch.ones(len(real)), torch.zeros(len(real))

    d_adam.zero_grad()
    fake = generator(torch.randn(len(real), 4)).detach()
    if discriminator.singly:
        features = discriminator.features(Sample(torch.cat([real, fake])))
        of_real, of_fake = (discriminator.last(half).flatten() for half in features.chunk(2))
    else:
        of_real, of_fake = discriminator(Sample(real)), discriminator(Sample(fake))
    loss = F.binary_cross_entropy_with_logits(of_real, ones)
    loss += F.binary_cross_entropy_with_logits(of_fake, zeros)
    loss.backward()
    d_adam.step()

    g_adam.zero_grad()
    fake = generator(torch.randn(len(real), 4))
    F.binary_cross_entropy_with_logits(discriminator(Sample(fake)), ones).backward()
    g_adam.step()


def start(gan: GAN) -> tuple[Iterator[Tensor], torch.optim.Adam, torch.optim.Adam]:
    """The batches that `fit` shows, each with the seed of its step, and both optimisers."""

    def batches() -> Iterator[Tensor]:
        x = RandomImages(27).read()[0].x
        order = torch.randperm(27, generator=generator_for("order", 0, 0))
        for i in range(3):
            torch.manual_seed(seed_for("step", gan.seed, 0, i + 1))
            yield (x[order[8 * i : 8 * i + 8]].float() / 255 - 0.5) / 0.5

    adam = partial(torch.optim.Adam, lr=1e-2, betas=(0.5, 0.999))
    return batches(), adam(gan.discriminator.parameters()), adam(gan.generator.parameters())


def perceptrons() -> dict[str, nn.Module]:
    return {
        "generator": mlp.Generator(4, image_size=8, widths=[8, 8], dropout=0.0),
        "discriminator": mlp.Discriminator(image_size=8, widths=[8, 8], dropout=0.0),
    }


@pytest.mark.parametrize(
    ("step", "stable", "networks"),
    [(recipe_a, False, dict), (recipe_b, True, perceptrons), (recipe_b, True, dict)],
    ids=["A", "B", "B with batch norm"],
)
def test_three_steps_are_those_of_a_plain_loop_in_every_bit(
    step: Step, stable: bool, networks: Callable[[], dict[str, nn.Module]]
) -> None:
    parts = networks() | {"objective": BCE(stable), "fresh_fakes": step is recipe_b, "seed": 5}
    gan = small_gan(**parts)
    plain = deepcopy(gan)
    fit(gan, batches=3)

    batches, d_adam, g_adam = start(plain)
    for real in batches:
        step(plain, real, d_adam, g_adam)
    assert_same_bits(gan, plain)


def test_three_steps_in_bfloat16_are_those_of_a_plain_loop_in_every_bit() -> None:
    gan = small_gan(fresh_fakes=True)
    plain = deepcopy(gan)
    fit(gan, batches=3, precision="bf16-mixed")

    def logits(sample: Sample) -> Tensor:
        return plain.discriminator(sample).float()

    autocast = partial(torch.autocast, "cpu", torch.bfloat16, cache_enabled=False)
    cross_entropy = F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(8), torch.zeros(8)
    batches, d_adam, g_adam = start(plain)
    for real in batches:
        with autocast():
            fake = plain.generator(torch.randn(8, 4)).detach()
            real_logits, fake_logits = logits(Sample(real)), logits(Sample(fake))
        d_adam.zero_grad()
        (cross_entropy(real_logits, ones) + cross_entropy(fake_logits, zeros)).backward()
        d_adam.step()
        with autocast():
            fake_logits = logits(Sample(plain.generator(torch.randn(8, 4))))
        g_adam.zero_grad()
        cross_entropy(fake_logits, ones).backward()
        g_adam.step()
    assert_same_bits(gan, plain)


# One clock, keyed randomness


def test_batches_seen_is_the_one_clock() -> None:
    gan = small_gan()
    trainer = fit(gan, batches=3, epochs=2)
    assert gan.batches_seen == 6
    assert trainer.global_step == 12  # Lightning counts the steps of both optimisers
    assert list(gan.history) == [4, 5, 6]  # nobody took the first epoch's


def test_checkpoints_keep_the_clock(tmp_path: Path) -> None:
    gan = small_gan()
    fit(gan, batches=3).save_checkpoint(tmp_path / "3.ckpt")
    checkpoint = torch.load(tmp_path / "3.ckpt", weights_only=True)
    assert checkpoint["batches_seen"] == 3
    other = small_gan()
    other.on_load_checkpoint(checkpoint)
    assert other.batches_seen == 3


def test_a_run_continued_after_an_epoch_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    straight, first, second = (small_gan() for _ in range(3))
    fit(straight, batches=3, epochs=3)
    fit(first, batches=3, epochs=1, callbacks=[LastCheckpoint(tmp_path)])
    fit(second, batches=3, epochs=3, ckpt_path=tmp_path / "last.ckpt")
    assert second.batches_seen == 9
    assert list(second.history) == [7, 8, 9]
    assert_same_bits(second, straight)


class Cached(GAN):
    """Trains under autocast as PyTorch has it, which keeps its copies of weights to the end of
    the context; Lightning 2.6.6 switches that off, so that bf16-mixed alone would not show it."""

    def training_step(self, chunk: list[Sample], batch_idx: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            super().training_step(chunk, batch_idx)


@pytest.mark.parametrize(
    ("family", "precision"),
    [(GAN, "32-true"), (GAN, "bf16-mixed"), (Cached, "32-true")],
    ids=["float32", "bf16-mixed", "autocast"],
)
@fresh_or_not
def test_chunks_change_no_bit(family: type[GAN], precision: str, fresh_fakes: bool) -> None:
    one, four = (small_gan(family, fresh_fakes=fresh_fakes) for _ in range(2))
    fit(one, batches=7, epochs=2, precision=precision)
    fit(four, batches=7, epochs=2, chunk=4, intervals=(5, 3), precision=precision)
    assert four.batches_seen == 14
    assert_same_bits(four, one)
    assert four.history.keys() == one.history.keys()
    for row, same in zip(four.history.values(), one.history.values(), strict=True):
        torch.testing.assert_close(row, same, rtol=0, atol=0)


def test_a_seed_is_a_run() -> None:
    first, again, other = small_gan(seed=1), small_gan(seed=1), small_gan(seed=2)
    assert_same_bits(first, other)  # the networks start alike
    for n, gan in enumerate((first, again, other)):
        torch.rand(n)  # what was drawn before does not matter
        fit(gan)
    assert_same_bits(first, again)
    assert changed(snapshot(first), snapshot(other)) >= parameters(first, "")


# Holding a player still


def test_frozen_restores_what_was_trained() -> None:
    trained, fixed = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
    with frozen([trained, fixed]):
        assert (trained.requires_grad, fixed.requires_grad) == (False, False)
    assert (trained.requires_grad, fixed.requires_grad) == (True, False)
    with pytest.raises(KeyError), frozen([trained, fixed]):
        raise KeyError
    assert (trained.requires_grad, fixed.requires_grad) == (True, False)


def test_d_takes_no_gradient_on_the_generator_s_update() -> None:
    class Asking(Recorded):
        def update(self, player: Player, duels: Sequence[Duel]) -> None:
            wanted[player] = {name for name, p in self.named_parameters() if p.requires_grad}
            super().update(player, duels)

    wanted: dict[Player, set[str]] = {}
    gan = small_gan(Asking)
    fit(gan, batches=1)
    assert wanted["g"] == parameters(gan, "generator")
    assert wanted["d"] == parameters(gan, "")
    assert all(p.requires_grad for p in gan.parameters())


# Terms


class Needy(Term):
    def __init__(self, real: bool = False, fake: bool = False) -> None:
        super().__init__()
        self.needs_real_grad = real
        self.needs_fake_grad = fake


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("fake", [False, True])
def test_d_sees_images_with_gradients_where_a_term_needs_them(real: bool, fake: bool) -> None:
    gan = small_gan(Recorded, terms={"one": Needy(real=real), "other": Needy(fake=fake)})
    fit(gan, batches=1)
    (_, d), (_, g) = gan.duels
    assert (d.real.x.requires_grad, d.fake.x.requires_grad) == (real, fake)
    assert d.fake.x.is_leaf
    assert not g.real.x.requires_grad
    assert g.fake.x.requires_grad


class Head(Term):
    """A classifier of the image, trained on both players' updates."""

    def __init__(self, player: Player) -> None:
        super().__init__()
        self.player = player
        self.head = nn.Linear(4 * 4 * 4, 10)

    def d_loss(self, duel: Duel) -> Tensor:
        return F.cross_entropy(self.head(duel.fake_features), duel.fake.y)

    def g_loss(self, duel: Duel) -> Tensor:
        return F.cross_entropy(self.head(duel.fake_features), duel.fake.y)


@pytest.mark.parametrize(("player", "other"), [("d", "g"), ("g", "d")])
def test_a_term_s_parameters_are_trained_by_its_player_alone(player: Player, other: Player) -> None:
    gan = small_gan(terms={"head": Head(player)})
    moved = watch(gan)
    fit(gan)
    head = parameters(gan, "terms")
    assert head == {"terms.head.head.weight", "terms.head.head.bias"}
    assert head <= moved[player]
    assert not head & moved[other]
    for optimizer, mine in zip(gan.configure_optimizers(), ("d", "g"), strict=True):
        (group,) = optimizer.param_groups
        ids = {id(p) for p in group["params"]}
        trained = {name for name, p in gan.named_parameters() if id(p) in ids}
        network = "discriminator" if mine == "d" else "generator"
        assert trained == parameters(gan, network) | (head if mine == player else set())


class Constant(Term):
    """A loss of `value` for D, and nothing for G."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def d_loss(self, duel: Duel) -> Tensor:
        return torch.tensor(self.value)


def test_a_player_s_loss_is_the_sum_of_its_terms() -> None:
    gan = small_gan(terms={"constant": Constant(3.0), "needy": Needy()})
    duel = Duel(gan.discriminator, images(), images())
    bce = gan.objective.d_loss(duel)
    torch.testing.assert_close(gan.loss("d", duel), bce + 3)
    assert duel.parts.keys() == {"real", "fake", "bce", "constant"}
    assert torch.equal(duel.parts["bce"], bce)
    assert duel.parts["constant"].item() == 3

    duel = Duel(gan.discriminator, images(), images())
    assert torch.equal(gan.loss("g", duel), gan.objective.g_loss(duel))
    assert duel.parts == {}


def test_two_terms_of_one_class_both_count() -> None:
    gan = small_gan(terms={"three": Constant(3.0), "four": Constant(4.0)})
    duel = Duel(gan.discriminator, images(), images())
    torch.testing.assert_close(gan.loss("d", duel), gan.objective.d_loss(duel) + 7)


def test_after_d_update_comes_between_the_two_updates() -> None:
    class Logging(Term):
        def after_d_update(self, discriminator: nn.Module) -> None:
            events.append("after d")
            assert discriminator is gan.discriminator

    class Ordered(GAN):
        def update(self, player: Player, duels: Sequence[Duel]) -> None:
            events.append(player)
            super().update(player, duels)

    events: list[str] = []
    gan = small_gan(Ordered, terms={"logging": Logging()})
    fit(gan, batches=2)
    assert events == ["d", "after d", "g"] * 2


# Steps


def updates(gan: GAN, batches: int) -> list[tuple[int, Player]]:
    """Who was updated, and after how many batches."""
    seen = []
    update = gan.update

    def noted(player: Player, duels: Sequence[Duel]) -> None:
        seen.append((gan.batches_seen, player))
        update(player, duels)

    gan.update = noted
    fit(gan, batches=batches)
    return seen


def test_d_may_move_several_times_before_g_answers() -> None:
    assert updates(small_gan(d_steps=3), 7) == [
        *((1, "d"), (2, "d"), (3, "d"), (3, "g")),
        *((4, "d"), (5, "d"), (6, "d"), (6, "g"), (7, "d")),
    ]


def test_g_may_compare_with_a_second_batch() -> None:
    """D sees the first half of a batch and G's loss the second."""

    class Noted(RelativisticPairing):
        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[str, list[Tensor]] = {"d": [], "g": []}

        def d_loss(self, duel: Duel) -> Tensor:
            self.seen["d"].append(duel.real.x)
            return super().d_loss(duel)

        def g_loss(self, duel: Duel) -> Tensor:
            self.seen["g"].append(duel.real.x)
            return super().g_loss(duel)

    objective = Noted()
    gan = small_gan(objective=objective, second_batch=True)
    data = DataModule(RandomImages(19), 4, second_batch=True)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(gan, datamodule=data)
    assert [len(x) for x in (*objective.seen["d"], *objective.seen["g"])] == [4] * 8
    of_d, of_g = torch.cat(objective.seen["d"]), torch.cat(objective.seen["g"])
    assert not torch.equal(of_d, of_g)
    for x in (of_d, of_g):  # each goes through different images
        assert len(x.flatten(1).unique(dim=0)) == 16


def test_data_sets_nothing_unless_asked_for() -> None:
    gan = small_gan(generator=mlp.Generator(4, image_size=8, widths=[]))
    before = snapshot(gan)
    gan.initialize(images, 8)
    assert changed(before, snapshot(gan)) == set()


def test_data_may_set_parameters_before_training() -> None:
    """G's output by the mean image, D by the first batch, and the averages start from both."""
    history = HistoricalAverage()
    gan = small_gan(
        generator=mlp.Generator(4, image_size=8, widths=[], mean_bias=True, dropout=0.0),
        discriminator=noisy.Discriminator(image_size=8, widths=[6]),
        ema=0.9,
        terms={"history": history},
    )
    before = snapshot(gan)
    gan.initialize(images, 8)
    set_by_data = changed(before, snapshot(gan))
    assert {"generator.layers.0.bias", "discriminator.last.1.bias"} <= set_by_data
    assert_same_bits(gan.ema.network, gan.generator)
    assert_same_bits(history.past["d"], gan.discriminator)
    assert_same_bits(history.past["g"], gan.generator)
    once = snapshot(gan)
    gan.load_state_dict(before)
    torch.manual_seed(1)
    gan.initialize(images, 8)
    assert changed(once, snapshot(gan)) == set()  # whatever else has been drawn before


@fresh_or_not
def test_g_may_answer_several_times_each_time_with_other_images(fresh_fakes: bool) -> None:
    gan = small_gan(Recorded, g_steps=3, fresh_fakes=fresh_fakes)
    fit(gan, batches=1)
    assert [player for player, _ in gan.duels] == ["d", "g", "g", "g"]
    latents = [duel.fake.z for _, duel in gan.duels]
    assert torch.equal(latents[0], latents[1]) == (not fresh_fakes)
    assert not torch.equal(latents[1], latents[2])
    assert not torch.equal(latents[2], latents[3])
    assert gan.duels[3][1].fake.x.grad_fn is not None


def test_accumulated_batches_make_one_update() -> None:
    gan = small_gan(accumulate=3)
    assert updates(gan, 7) == [(3, "d"), (3, "g"), (6, "d"), (6, "g")]
    assert len(gan.waiting) == 1
    assert updates(small_gan(accumulate=2, d_steps=2), 5) == [(2, "d"), (4, "d"), (4, "g")]


class Numbered:
    """Latents that are the next rows of one table."""

    def __init__(self) -> None:
        self.rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(3))
        self.taken = 0

    def __call__(self, n: int, device: object = None, generator: object = None) -> Tensor:
        self.taken += n
        return self.rows[self.taken - n : self.taken]


def test_two_half_batches_accumulated_are_the_whole_batch() -> None:
    """Where nothing couples the images of a batch, the gradients are the same sums."""
    weights, losses = [], []
    for size, accumulate in ((8, 1), (4, 2)):
        gan = small_gan(
            generator=mlp.Generator(4, image_size=8, widths=[8], dropout=0.0),
            discriminator=mlp.Discriminator(image_size=8, widths=[8], dropout=0.0),
            latent=Numbered(),
            accumulate=accumulate,
            d_optimizer=partial(torch.optim.SGD, lr=0.1),
            g_optimizer=partial(torch.optim.SGD, lr=0.1),
        )
        torch.manual_seed(0)
        for p in gan.parameters():
            nn.init.normal_(p, std=0.3)
        before = snapshot(gan)
        data = DataModule(RandomImages(16), size)
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
        L.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **quiet).fit(
            gan, datamodule=data
        )
        assert changed(before, snapshot(gan)) == parameters(gan, "")
        weights.append(snapshot(gan))
        losses.append(list(gan.history.values()))
    torch.testing.assert_close(weights[0], weights[1])
    torch.testing.assert_close(losses[0], losses[1])


def test_a_player_s_gradient_may_be_clipped() -> None:
    """With plain steps of length lr the weights move by lr times the bounded gradient."""
    sgd = partial(torch.optim.SGD, lr=1.0)
    for clip, bound in ((1e-3, 1e-3), (math.inf, math.inf)):
        gan = small_gan(clip=clip, d_optimizer=sgd, g_optimizer=sgd)
        before = [p.detach().clone() for p in gan.discriminator.parameters()]
        fit(gan, batches=1)
        moves = zip(before, gan.discriminator.parameters(), strict=True)
        moved = torch.stack([(a - b).square().sum() for a, b in moves]).sum().sqrt()
        norm = gan.history[1]["train/d/grad_norm"]
        torch.testing.assert_close(moved.detach(), norm.clamp(max=bound), rtol=1e-3, atol=1e-6)
        assert norm > 1e-3
        assert gan.history[1]["train/g/grad_norm"] > 0


def test_clipping_scaled_gradients_is_refused() -> None:
    gan = small_gan(clip=1.0)
    gan._trainer = SimpleNamespace(precision="16-mixed")
    with pytest.raises(UserError, match=r"gan\.clip=1\.0 .* trainer\.precision=16-mixed"):
        gan.on_fit_start()


@pytest.mark.parametrize("name", ["d_steps", "g_steps", "accumulate"])
def test_steps_are_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"gan\.{name}=0"):
        small_gan(**{name: 0})


# The averaged generator


@pytest.mark.parametrize(
    ("ema", "decays"), [(0.999, (2 / 11, 3 / 12, 4 / 13)), (0.2, (2 / 11, 0.2, 0.2))]
)
@pytest.mark.parametrize("g_steps", [1, 2])
def test_ema_is_the_average_of_the_generator_alone(
    g_steps: int, ema: float, decays: Sequence[float]
) -> None:
    """It follows every answer of G's, batch statistics too, ever slower until d is `ema`."""
    gan = small_gan(ema=ema, g_steps=g_steps)
    seen = [snapshot(gan.generator)]
    play = gan.play

    def noted(batches: Sequence[Sample]) -> None:
        play(batches)
        seen.append(snapshot(gan.generator))

    gan.play = noted
    fit(gan, batches=3)
    for name, value in snapshot(gan.ema.network).items():
        if value.is_floating_point():
            expected, *others = (weights[name] for weights in seen)
            for decay, weights in zip(decays, others, strict=True):
                expected = decay * expected + (1 - decay) * weights
            torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("ema", [-0.1, 1.0, 2.0])
def test_ema_is_a_decay(ema: float) -> None:
    with pytest.raises(ValueError, match=f"ema={ema}"):
        small_gan(ema=ema)


def test_ema_trains_nothing_and_is_never_trained() -> None:
    with_ema, without = small_gan(ema=0.9), small_gan()
    fit(with_ema)
    fit(without)
    assert_same_bits(with_ema.generator, without.generator)
    assert_same_bits(with_ema.discriminator, without.discriminator)
    averaged = {id(p) for p in with_ema.ema.parameters()}
    assert averaged
    trained = {id(p) for ps in with_ema.parameters_of.values() for p in ps}
    assert not averaged & trained
    assert {id(p) for p in with_ema.parameters()} == averaged | trained


def test_ema_samples_in_evaluation_mode() -> None:
    gan = small_gan(ema=0.5)
    fit(gan)
    z = torch.randn(4, 4)
    x = gan.sample(z, ema=True)
    torch.testing.assert_close(x, deepcopy(gan.ema.network).eval()(z), rtol=0, atol=0)
    assert not torch.equal(x, gan.sample(z))
    with pytest.raises(UserError, match=r"ema=0\.999"):
        small_gan().sample(z, ema=True)


def test_draw_is_a_function_of_its_generator() -> None:
    gan = small_gan()
    one, other = (gan.draw(130, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)
    assert (one.dtype, one.shape) == (torch.uint8, (130, 1, 8, 8))
    z = torch.randn(130, 4, generator=torch.Generator().manual_seed(3))
    expected = ((gan.sample(z) + 1) * 127.5).round()
    assert (one.float() - expected).abs().max() <= 1  # batches of 100 may round otherwise


# What is shown


def test_history_holds_what_the_losses_looked_at() -> None:
    gan = small_gan()
    fit(gan, batches=2)
    d = {f"train/d/{name}" for name in ("loss", "real", "fake", "real_prob", "fake_prob")}
    for row in gan.history.values():
        assert row.keys() == d | {"train/g/loss", "train/g/fake_prob"}
        assert not any(value.requires_grad for value in row.values())
        torch.testing.assert_close(
            row["train/d/loss"], row["train/d/real"] + row["train/d/fake"], rtol=0, atol=0
        )


def test_sampling_is_in_evaluation_mode_and_leaves_no_trace() -> None:
    gan = small_gan()
    fit(gan)
    z = torch.randn(4, 4)
    for training in (True, False):
        gan.train(training)
        gan.discriminator.eval()  # on purpose, so it stays that way
        before, state = snapshot(gan), torch.get_rng_state()
        together = gan.sample(z)
        one_by_one = torch.cat([gan.sample(row) for row in z.split(1)])
        assert gan.training is gan.generator.training is training
        assert not gan.discriminator.training
        assert changed(before, gan.state_dict()) == set()
        assert torch.equal(torch.get_rng_state(), state)
        assert not together.requires_grad
        assert together.shape == (4, 1, 8, 8)
        torch.testing.assert_close(together, one_by_one)


def test_players_may_have_optimisers_of_their_own() -> None:
    """SGD steps of known size: p - lr * grad."""
    gan = small_gan(
        d_optimizer=partial(torch.optim.SGD, lr=0.0), g_optimizer=partial(torch.optim.SGD, lr=0.5)
    )
    moved = watch(gan)
    before = snapshot(gan)
    fit(gan, batches=1)
    assert moved["d"] == buffers(gan, "discriminator")
    for name, p in gan.generator.named_parameters():
        expected = before[f"generator.{name}"] - 0.5 * p.grad
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=0)
