"""trainer.precision=auto."""

import json
import logging
from pathlib import Path
from statistics import median

import pytest
import torch
from helpers.config import configuration
from helpers.launch import BRIEF, launch
from helpers.paths import CHECKOUT

from ganmnist.runs import precision


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether this CPU has bfloat16: the one element of the list."""
    value = [True]
    monkeypatch.setattr(precision, "has_native_bfloat16", lambda kind: value[0])
    return value


@pytest.mark.parametrize(("has", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_bfloat16_where_the_cpu_has_it(
    has: bool, expected: str, native: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    native[:] = [has]
    config = configuration("folder=here", "trainer=cpu", "trainer.precision=auto")
    with caplog.at_level(logging.INFO):
        precision.resolve_precision(config.trainer)
    assert config.trainer.precision == expected
    assert f"trainer.precision=auto: {expected}" in caplog.text


def test_emulated_bfloat16_has_a_warning(
    native: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    config = configuration("folder=here", "trainer=cpu", "trainer.precision=bf16-mixed")
    precision.resolve_precision(config.trainer)
    assert not caplog.text
    native[:] = [False]
    precision.resolve_precision(config.trainer)
    assert config.trainer.precision == "bf16-mixed"
    assert f"about {precision.EMULATION_FACTOR} times as long" in caplog.text


def test_factor_of_the_warning_is_measured() -> None:
    content = json.loads((CHECKOUT / "docs/benchmarks.json").read_text())["emulation"]
    [ratios] = (kind["float32_over_bfloat16"] for kind in content.values())
    assert round(median(ratios)) == precision.EMULATION_FACTOR


def test_resume_keeps_the_precision_on_another_cpu(
    native: list[bool], tmp_path: Path, data_root: Path
) -> None:
    def saved() -> tuple[str, str]:
        checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
        env = json.loads((tmp_path / "env.json").read_text())
        return checkpoint["hyper_parameters"]["trainer"]["precision"], env["precision"]

    native[:] = [False]
    launch(*BRIEF, "trainer.precision=auto", f"hydra.run.dir={tmp_path}")
    assert saved() == ("32-true", "32-true")
    native[:] = [True]
    launch(f"resume={tmp_path}", "epochs=2")
    assert saved() == ("32-true", "32-true")
