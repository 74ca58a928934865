"""Several processes that train as one: `torchrun` starts them, one a GPU.

Every process holds the same parameters, walks through the same batches in the same order, and
takes its share of each batch; sums over the processes are all that is exchanged. So a run gives
what one process gives, to rounding, and every process holds the same bytes. What torch knows about
its processes is global, and so are these functions: without torchrun they act as one process.

Unverified: NCCL between GPUs. Tested with gloo, two processes on a CPU.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

__all__ = ["joined", "leads", "share", "started_by_torchrun", "sum_over_processes"]


_MEETINGS = itertools.count()


def started_by_torchrun() -> bool:
    """Whether torchrun started this process (perhaps as the only one)."""
    return dist.is_available() and dist.is_torchelastic_launched()


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the other processes of torchrun while the block runs; without them, nothing.

    A process that fails does not take leave of the others, which would wait for them: it ends, and
    torchrun ends the others.

    Args:
        device: of this process; decides between NCCL and gloo.
    """
    if not started_by_torchrun() or dist.is_initialized():  # a caller may have joined already
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where NCCL's own memory goes
    place, rank, processes = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    # A name of its own each time: processes that meet again would read addresses of the last time.
    store = dist.PrefixStore(f"vptkit/{next(_MEETINGS)}", place)  # type: ignore[attr-defined]
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=processes)
    yield
    dist.barrier()  # what the first one wrote is there when any of them goes on
    dist.destroy_process_group()


def share() -> tuple[int, int]:
    """(k, n): this is process k of n, and takes every n-th image from the k-th on."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def leads() -> bool:
    """Whether this process is the one that writes files."""
    if started_by_torchrun() and not dist.is_initialized():  # before or behind `joined`
        return os.environ["RANK"] == "0"
    return share()[0] == 0


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their sums over all processes, in place, by one exchange.

    Args:
        tensors: of one type and device, the same shapes in each process.
    """
    if share()[1] == 1:
        return
    listed = list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in listed])
    dist.all_reduce(flat)
    for tensor, part in zip(listed, flat.split([t.numel() for t in listed]), strict=True):
        tensor.copy_(part.view_as(tensor))
