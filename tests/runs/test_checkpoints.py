"""A checkpoint of every kind of run passes the checks before it is loaded."""

from pathlib import Path

import pytest
import torch
from helpers.config import settings_of

from ganmnist.runs.checkpoints import check_optimizers, check_size
from ganmnist.runs.folders import conf_dir
from ganmnist.runs.instantiate import instantiate
from ganmnist.runs.resume import Checkpoint
from ganmnist.utils.errors import UserError

pytestmark = pytest.mark.no_cover  # compositions take twice as long with coverage


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


WORDS = [
    *(f"family={family}" for family in choices("family") if family[0] != "_"),
    *(f"model={model}" for model in choices("model") if model not in ("dcgan64", "plane")),
    *(f"stabilizer={stabilizer}" for stabilizer in choices("stabilizer")),
    *(f"optimizer={optimizer}" for optimizer in choices("optimizer")),
    *(f"schedule={schedule}" for schedule in ("cosine", "exponential", "linear")),
    *("model=dcgan64 data.image_size=64", "data=ring8", "schedule=r3gan", "objective=wgan_gp"),
]


@pytest.mark.parametrize("words", WORDS)
def test_own_checkpoint_fits(words: str) -> None:
    family = settings_of("data=digits", *words.split())["family"]
    gan = instantiate(family)
    checkpoint = Checkpoint(Path("last.ckpt"), {"state_dict": gan.state_dict()})
    check_size(family, checkpoint, None)
    optimizers = gan.configure_optimizers()
    check_optimizers(gan, [optimizer.state_dict() for optimizer in optimizers])
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    check_optimizers(gan, [optimizer.state_dict() for optimizer in optimizers])


def test_other_weights_do_not_fit() -> None:
    family = settings_of("data=digits")["family"]
    weights = instantiate(family).state_dict()
    name = next(iter(weights))
    for wrong in (weights | {name: weights[name][:1]}, weights | {"more": weights[name]}, {}):
        checkpoint = Checkpoint(Path("last.ckpt"), {"state_dict": wrong})
        with pytest.raises(UserError, match=r"last\.ckpt"):
            check_size(family, checkpoint, None)
