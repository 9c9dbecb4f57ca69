"""Tensors that are put away from where they are dear: from a device to memory, from memory to the disk, and back."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from . import _tidegate
from .errors import InvalidRequestError


@dataclass
class OffloadConfig:
    """How tensors are put away.

    ``memory_bytes`` of memory hold what is put away; above ``memory_threshold`` of them, or above ``cache_size`` tensors,
    the tensors that ``policy`` names go to files in ``disk_path`` (a temporary folder where nothing is said), at most
    ``disk_bytes`` of them. ``device`` names a device that OpenCL reaches, such as a GPU that does something else: its number, a
    part of its name, or ``"auto"`` for the first that is not the processor. Then they go to ``device_bytes`` of its memory first.

    With ``prefetch_enabled``, loading one brings up those that were put away after it.
    ``pinned`` asks for memory that is never swapped out, which transfers to a device need to be quick.

    From ``system_threshold`` of the memory on, of the machine or of the control group, tensors give way to whatever else
    uses it: they go to the disk, and what is loaded or put away then takes no more than it needs. 1 heeds nothing.
    """

    memory_threshold: float = 0.8
    cache_size: int = 1000
    prefetch_enabled: bool = True
    memory_bytes: int = 1 << 30
    disk_path: str | os.PathLike[str] | None = None
    disk_bytes: int = 64 << 30
    device: str | int | None = None
    device_bytes: int = 1 << 30
    policy: Literal["lru", "lfu", "lirs", "cost", "presence", "once"] = "lru"
    pinned: bool = False
    system_threshold: float = 0.9


class OffloadedTensor:
    """A tensor that is put away. It goes for good when nobody holds this any more."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any, device: Any, nbytes: int) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.device = device
        self.nbytes = nbytes

    def __repr__(self) -> str:
        return f"<tidegate.OffloadedTensor {self.name} {tuple(self.shape)} {self.dtype}>"


class GPUOffloader:
    """Puts tensors of numpy, torch, or anything that speaks DLPack away, and brings them back bit by bit the same.

    Memory is the top of the ladder and the disk the bottom, with a device between them if one is named. A tensor is copied once each way: from
    where it is into the memory of the offloader, and from there into the tensor that is handed out. That one takes of the
    offloader's memory, too, as long as it lives and where there is room; what is only read need not be copied at all.
    """

    def __init__(self, config: OffloadConfig | None = None) -> None:
        self.config = config or OffloadConfig()
        for name in ("memory_threshold", "system_threshold"):
            share = getattr(self.config, name)
            if not 0 <= share <= 1:
                raise InvalidRequestError(f"{name} is a share of the memory, from 0 to 1, and not {share}")
        self._own_folder = None
        folder = self.config.disk_path
        if folder is None:
            self._own_folder = tempfile.TemporaryDirectory(prefix="tidegate-offload-")
            folder = self._own_folder.name
        self._native = _tidegate.Offloader(
            {
                "memory": self.config.memory_bytes,
                "threshold": self.config.memory_threshold,
                "items": self.config.cache_size,
                "device": None if self.config.device is None else (str(self.config.device), self.config.device_bytes),
                "disk": (os.fspath(folder), self.config.disk_bytes),
                "policy": self.config.policy,
                "locked": self.config.pinned,
                "system_threshold": self.config.system_threshold,
            }
        )
        self._count = itertools.count()

    async def offload_to_cpu(self, tensor: Any) -> OffloadedTensor:
        """Puts a tensor away, waiting for room. The tensor itself is left as it is; drop it to free its memory."""
        number = next(self._count)
        lent, shape, dtype, device = _lent(tensor)
        name = f"tensor-{number}"
        offloaded = OffloadedTensor(name, shape, dtype, device, await self._native.offload(name, lent))
        weakref.finalize(offloaded, self._native.remove, offloaded.name)
        return offloaded

    async def load_to_gpu(self, offloaded: OffloadedTensor, *, writable: bool = True) -> Any:
        """The tensor again, on the device from which it came. It stays put away until the handle goes.

        Without ``writable`` an array is not copied: what comes back is the memory of the offloader itself, which keeps it
        there for as long as that array lives. Torch has no tensors that cannot be written to, so those are always copies.
        """
        writable = writable or offloaded.device is not None
        memory = await (self._native.load if writable else self._native.view)(offloaded.name)
        if self.config.prefetch_enabled:
            number = int(offloaded.name.rpartition("-")[2])
            self._native.prefetch([f"tensor-{number + ahead}" for ahead in range(1, 5)])
        data = _bytes_of(memory)
        return _tensor_of(data if writable else data.toreadonly(), offloaded)

    def prefetch(self, tensors: Iterable[OffloadedTensor]) -> int:
        """Brings tensors up from below before they are loaded; answers how many are in memory or on their way."""
        return self._native.prefetch([tensor.name for tensor in tensors])

    def get_stats(self) -> dict[str, Any]:
        """Bytes and tensors in memory, on the device and on the disk, hits, and what was transferred."""
        stats: dict[str, Any] = json.loads(self._native.stats())
        return stats


def _lent(tensor: Any) -> tuple[Any, tuple[int, ...], Any, Any]:
    """The bytes of a tensor as a DLPack capsule, its shape, its type, and the device of a torch tensor."""
    if hasattr(tensor, "data_ptr") and hasattr(tensor, "untyped_storage"):
        import torch

        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return flat.__dlpack__(), tuple(tensor.shape), tensor.dtype, tensor.device
    import numpy

    if not isinstance(tensor, numpy.ndarray):
        if not hasattr(tensor, "__dlpack__"):
            raise TypeError(f"{type(tensor).__name__} is no tensor; give a numpy array, a torch tensor, or what has __dlpack__")
        tensor = numpy.from_dlpack(tensor)
    if tensor.dtype.hasobject:
        raise TypeError(f"an array of {tensor.dtype} holds Python objects, which cannot be put away")
    flat = numpy.ascontiguousarray(tensor).reshape(-1).view(numpy.uint8)
    # What must not be written to cannot be lent: the protocol's first form has no word for it.
    return (flat if flat.flags.writeable else flat.copy()).__dlpack__(), tuple(tensor.shape), tensor.dtype, None


def _bytes_of(memory: bytearray | _tidegate.LoadedMemory) -> memoryview:
    """The bytes in a piece of memory, which stays as long as anybody looks at them."""
    if isinstance(memory, bytearray):
        return memoryview(memory)
    array = (ctypes.c_ubyte * len(memory)).from_address(memory.address)
    array.memory = memory  # type: ignore[attr-defined]  # What looks at the array holds it, and so this.
    return memoryview(array)


def _tensor_of(data: memoryview, offloaded: OffloadedTensor) -> Any:
    if offloaded.device is not None:
        import torch

        if not data:
            return torch.empty(offloaded.shape, dtype=offloaded.dtype, device=offloaded.device)
        return torch.frombuffer(data, dtype=offloaded.dtype).reshape(offloaded.shape).to(offloaded.device)
    import numpy

    return numpy.frombuffer(data, dtype=offloaded.dtype).reshape(offloaded.shape)
