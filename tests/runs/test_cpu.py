"""The CPU: its model, native bfloat16, the cores of this process and the threads of PyTorch."""

import os
import sys
from pathlib import Path

import pytest
import torch

from ganmnist.runs import cpu


def test_model_is_read_from_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Fast(R)  CPU @ 2.50GHz\n")
    assert cpu.cpu_model(cpuinfo) == "Fast(R) CPU @ 2.50GHz"
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(sys, "platform", "linux")
    cpuinfo.write_text("processor\t: 0\nmodel name\t:\nBogoMIPS\t: 50.00\n")
    assert cpu.cpu_model(cpuinfo) == "arm64"
    assert cpu.cpu_model(tmp_path / "missing") == "arm64"


@pytest.mark.parametrize(
    ("capabilities", "limit", "native"),
    [
        ({"avx2": True, "avx512_f": False, "avx512_bf16": False}, "", False),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "", False),
        ({"avx512_bf16": True}, "", True),
        ({"amx_bf16": True}, "", True),
        ({"neon": True, "bf16": True}, "", True),  # ARM
        ({"neon": True, "bf16": False}, "", False),
        ({"avx512_bf16": True}, "AVX2", False),
        ({"avx512_bf16": True}, "avx512_core", False),
        ({"avx512_bf16": True}, "AVX512_CORE_BF16", True),
        ({"avx512_bf16": True}, "ALL", True),
    ],
)
def test_bfloat16_is_native_with_its_instructions_alone(
    capabilities: dict[str, bool], limit: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    # PyTorch's own check is true for every CPU with AVX-512.
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert cpu.native_bfloat16() == native
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not cpu.native_bfloat16()


def test_quota_of_version_2_is_the_smallest_of_a_group_and_its_parents(tmp_path: Path) -> None:
    groups, root = tmp_path / "cgroup", tmp_path / "mounted"
    groups.write_text("0::/system/job\n")
    (root / "system/job").mkdir(parents=True)
    assert cpu.cgroup_quota(groups, root) is None
    (root / "system/job/cpu.max").write_text("max 100000\n")
    assert cpu.cgroup_quota(groups, root) is None
    (root / "system/cpu.max").write_text("250000 100000\n")
    assert cpu.cgroup_quota(groups, root) == 2.5
    (root / "system/job/cpu.max").write_text("50000 100000\n")
    assert cpu.cgroup_quota(groups, root) == 0.5


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_quota_of_version_1(controllers: str, tmp_path: Path) -> None:
    groups, root = tmp_path / "cgroup", tmp_path / "mounted"
    groups.write_text(f"5:memory:/other\n3:{controllers}:/docker/1\n0::/\n")
    folder = root / controllers / "docker/1"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu.cgroup_quota(groups, root) is None
    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    assert cpu.cgroup_quota(groups, root) == 3.0


def test_quota_of_a_container_is_that_of_the_mounted_root(tmp_path: Path) -> None:
    """Its group has a path of the host, which the container does not see."""
    groups, root = tmp_path / "cgroup", tmp_path / "mounted"
    root.mkdir()
    groups.write_text("0::/../../docker/1\n")
    (root / "cpu.max").write_text("150000 100000\n")
    assert cpu.cgroup_quota(groups, root) == 1.5
    assert cpu.cgroup_quota(tmp_path / "missing", root) is None
    groups.write_text("damaged\n")
    assert cpu.cgroup_quota(groups, root) is None


@pytest.mark.parametrize(
    ("quota", "cores"), [(None, 8), (16.0, 8), (8.0, 8), (2.5, 2), (1.0, 1), (0.5, 1)]
)
def test_cores_are_the_smaller_of_affinity_and_quota(
    quota: float | None, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cpu, "cgroup_quota", lambda: quota)
    assert cpu.available_cores() == cores


def test_cores_without_an_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(cpu, "cgroup_quota", lambda: None)
    assert cpu.available_cores() == 4


@pytest.mark.parametrize(
    ("cores", "processes", "variable", "threads"),
    [(2, 1, None, 2), (2, 2, None, 1), (1, 4, None, 1), (16, 1, None, 8), (2, 1, "8", 8)],
)
def test_threads_share_the_cores_unless_openmp_is_set(
    cores: int,
    processes: int,
    variable: str | None,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = [8]
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: number.__setitem__(0, n))
    monkeypatch.setattr(cpu, "available_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    cpu.limit_threads(processes)
    assert number == [threads]
