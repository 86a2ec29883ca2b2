"""The CPU of this machine: model, instructions, and the cores that this process may use."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Values of ONEDNN_MAX_CPU_ISA that exclude the instructions for bfloat16.
ISA_WITHOUT_BFLOAT16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"}
ISA_WITHOUT_BFLOAT16 |= {"AVX512_CORE", "AVX512_CORE_VNNI"}
# Names in torch.cpu.get_capabilities(): two of x86, two of ARM.
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The model name of this CPU, or its architecture if the system has no model name."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        text = ""
    if model := re.search(r"^model name[ \t]*:[ \t]*(\S.*)$", text, re.MULTILINE):
        return " ".join(model[1].split())
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            model = done.stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            model = ""
        if model:
            return model
    return platform.processor() or platform.machine()


def capability() -> str:
    """Such as "AVX512" or "AVX512, bfloat16": what PyTorch uses, and native bfloat16."""
    import torch

    name: str = torch.backends.cpu.get_cpu_capability()
    return f"{name}, bfloat16" if native_bfloat16() else name


def native_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 with instructions of this CPU.

    Without them oneDNN emulates bfloat16, also with AVX-512: PyTorch's own check
    (`_is_mkldnn_bf16_supported`) is True there.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    capabilities = torch.cpu.get_capabilities()
    has_instructions = any(capabilities.get(name, False) for name in BFLOAT16)
    supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return supported and has_instructions and limit.upper() not in ISA_WITHOUT_BFLOAT16


def available_cores() -> int:
    """The cores that this process may use: the smaller of its affinity and its quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # Linux alone has it
        cores = os.cpu_count() or 1
    quota = cgroup_quota()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def cgroup_quota(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """The CPU quota of this process in cores, the smallest of its groups and their parents.

    Args:
        groups: the groups of this process, a line "ID:CONTROLLERS:PATH" for each.
        root: where version 2 is mounted; version 1 is in its folder `cpu` or `cpu,cpuacct`.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container sees its own group as the root of the mounted tree.
        for mount in (root / controllers, root / "cpu") if controllers else (root,):
            for folder in [*parents(mount, path)]:
                quotas += read_quota(folder)
    return min(quotas, default=None)


def parents(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a group and those above it, up to the mount point."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for n in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:n])


def read_quota(folder: Path) -> list[float]:
    """The quota of one group in cores; empty if there is none."""
    with suppress(OSError, ValueError):
        if (file := folder / "cpu.max").is_file():  # version 2: "QUOTA PERIOD" or "max PERIOD"
            quota, period = file.read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()  # -1: no quota
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        if quota not in ("max", "-1"):
            return [int(quota) / int(period)]
    return []


def limit_threads(processes: int = 1) -> None:
    """Limits PyTorch's threads to the cores of this process, unless OMP_NUM_THREADS is set.

    PyTorch starts a thread per core of its affinity. In a container with a smaller quota these
    threads wait for each other.

    processes: processes that share the cores.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        share = max(1, available_cores() // processes)
        if share < torch.get_num_threads():
            torch.set_num_threads(share)
