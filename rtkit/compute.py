"""Where and how tensors are computed: device, number format, threads."""

import json
import multiprocessing
import re
import time
from contextlib import contextmanager, suppress
from functools import cache

import torch
from torch import nn

from rtkit.store import RUNS, write_atomically

# Training computes in bfloat16 where that pays; what is left in float32, decisions above all, is meant to be float32.
torch.backends.cudnn.allow_tf32 = False


@cache
def device() -> torch.device:
    """The device everything runs on: a GPU if there is one, else the processor. Of several, each worker has its own."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    worker = re.search(r"LokyProcess-(\d+)", multiprocessing.current_process().name)
    if not worker or torch.cuda.device_count() == 1:
        return torch.device("cuda")
    return torch.device("cuda", int(worker[1]) % torch.cuda.device_count())


def _has_bf16_units() -> bool:
    # Private names, so a torch release without them simply means float32.
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def _seconds(dtype: torch.dtype | None) -> float:
    """Fastest of eight tries of four small convolutions, forward and backward, in the given format."""
    x, tries = torch.rand(64, 16, 16, 16).contiguous(memory_format=torch.channels_last), []
    net = nn.Sequential(*(part for _ in range(4) for part in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())))
    for _ in range(8):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            y = net(x)
        y.float().sum().backward()
        tries.append(time.perf_counter() - start)
    return min(tries)


@cache
def bf16() -> bool:
    """Whether to compute in bfloat16 here: on a GPU that has it, or on a processor that has it and proves faster.

    Processors without the units emulate the format up to hundreds of times slower, so a timed probe decides; its
    verdict is kept under runs/, where deleting `bf16.json` repeats it.
    """
    if device().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not _has_bf16_units():
        return False
    path = RUNS / "bf16.json"
    machine = {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
    with suppress(OSError, ValueError, KeyError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if {key: known[key] for key in machine} == machine:
            return known["faster"]
    # Taken in turn, and the best of each, so that a busy moment decides nothing; on a thread, as all that shares work.
    with one_thread():
        reduced, full = zip(*[(_seconds(torch.bfloat16), _seconds(None)) for _ in range(3)], strict=True)
    faster = min(reduced) < 0.9 * min(full)
    write_atomically(path, json.dumps(machine | {"faster": faster}).encode())
    return faster


def kind() -> str:
    """Device and number format as a word for cache keys and records, such as "cpu-bf16"."""
    return f"{device().type}-{'bf16' if bf16() else 'fp32'}"


def autocast() -> torch.autocast:
    """Compute what is inside in bfloat16 where that is faster, else in float32."""
    return torch.autocast(device().type, torch.bfloat16, enabled=bf16())


def to_pixels(x: torch.Tensor) -> torch.Tensor:
    """Move uint8 images to the device as pixels in [0, 1]. Shape: (N, 3, H, W) uint8 -> the same in float32."""
    return (x.to(device()).float() / 255).contiguous(memory_format=torch.channels_last)


@contextmanager
def one_thread():
    """Compute on one thread: matrices this small gain nothing from a second one, and lose much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def stopwatch():
    """Yield a function that tells the seconds since entry, pending work of the device included."""
    start = time.perf_counter()

    def seconds() -> float:
        if device().type == "cuda":
            torch.cuda.synchronize()
        return round(time.perf_counter() - start, 3)

    yield seconds
