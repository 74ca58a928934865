"""Batches on Ray Data: numbers → actors that hold sessions → parts of answers.

Ray Data hands out the batches, starts an actor again whose node has died, writes the parts, and
notes which batches are in them (its checkpoint, in two phases from Ray 2.55 on). What is noted is
not answered again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.checkpoint import CheckpointConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vptkit import errors
from vptkit.cluster.cluster_address import LOCAL
from vptkit.cluster.connection import connected, living_nodes
from vptkit.cluster.quiet_ray import quiet
from vptkit.errors import OutputError, VptkitError
from vptkit.runtime.bulk.parquet_file import pyarrow_and_parquet

from .actor_share import share_of
from .batch_worker import BatchWorker, require_shared
from .gathered_answers import GatheredAnswers, remember
from .parts_folder import ANSWERS, NOTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .actor_share import ActorShare
    from .batch_worker import WorkOrder

__all__ = ["run_dataset"]

_ID = "id"
_BLOCK = (
    512  # images that are answered in one go and lie in one part: what a kill can cost an actor
)
_BLOCKS = 4  # for each actor at least, so that none waits long for the last one
_TRIES = 3
# In a traceback: of ours, to the end of what it says
_RAISED = re.compile(r"^vptkit\.errors\.(\w+): (node .*?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
_FILTER = 256 << 20  # bytes of memory of the actor that reads Ray's notes; by default 1 GiB


def run_dataset(
    order: WorkOrder, *, address: str, threads: int | None = None, actors: int | None = None
) -> None:
    """Answer the batches that are not answered yet.

    Args:
        order: what the nodes are told, and where the answers go; its threads are not looked at.
        address: of the cluster (`vptkit.cluster.connection.connected`).
        threads, actors: of `vptkit.runtime.ray_data.actor_share.share_of`.

    Raises:
        MissingError: no cluster answers.
        TargetError: no node can hold an actor.
        VptkitError: a node lacks something that it needs.
        OutputError: parts go away again and again.
    """
    cpus = len(os.sched_getaffinity(0)) if address == LOCAL else None
    with quiet(), connected(address, cpus):
        share = share_of(living_nodes(), order.backend, threads, actors)
        order = replace(order, threads=share.cpus)
        _require_nodes(order, share)
        for _ in range(_TRIES):
            with _causes():
                _write_answers(order, share)
            answers = GatheredAnswers(order.parts / ANSWERS, order.batches)
            if not answers.missing:
                return
            remember(answers, order.parts / NOTES, _ID)
    raise OutputError(
        f"{order.parts / ANSWERS}: {answers.missing} of {order.batches} batches are in no part, though Ray "
        "has written them. Do all nodes reach this folder? The same command goes on."
    )


def _require_nodes(order: WorkOrder, share: ActorShare) -> None:
    """Ask each node whether it has what it needs; one that dies meanwhile is Ray's business."""
    look = ray.remote(require_shared)
    asked = [
        look.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(order)
        for node in share.nodes
    ]
    for answer in asked:
        with _causes(), contextlib.suppress(ray.exceptions.RaySystemError):
            ray.get(answer)


def _write_answers(order: WorkOrder, share: ActorShare) -> None:
    context = ray.data.DataContext.get_current()
    before = context.checkpoint_config, context.enable_progress_bars
    context.checkpoint_config = _notes(order.parts / NOTES)
    context.enable_progress_bars = False
    batches = max(1, min(_BLOCK // order.batch, order.batches // (_BLOCKS * share.actors)))
    blocks = -(-order.batches // batches)
    try:
        # What is not an actor takes no CPU: on a small cluster Ray would wait for one for ever.
        numbers = ray.data.read_datasource(
            _Batches(order.batches), override_num_blocks=blocks, num_cpus=0, concurrency=1
        )
        answers = numbers.map_batches(
            BatchWorker,
            fn_constructor_args=(order,),
            batch_size=batches,
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            # Not a fixed number: one whose node died may find no other.
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=share.actors, initial_size=share.actors
            ),
        )
        answers.write_parquet(
            str(order.parts / ANSWERS),
            ray_remote_args={"num_cpus": 0},
            concurrency=len(share.nodes),
        )
    finally:
        context.checkpoint_config, context.enable_progress_bars = before


def _notes(folder: Path) -> CheckpointConfig:
    folder.mkdir(exist_ok=True)
    config = CheckpointConfig(_ID, str(folder), delete_checkpoint_on_success=False)
    config.checkpoint_actor_memory_bytes = _FILTER  # eight bytes a batch
    config.checkpoint_actor_pool_max_size = 1
    return config


class _Batches(ray.data.Datasource):  # type: ignore[misc]  # Ray has no types
    """The numbers 0 to n - 1; as `ray.data.range`, which cannot do without a CPU."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def estimate_inmemory_data_size(self) -> int:
        """Bytes."""
        return 8 * self._count

    def get_read_tasks(self, parallelism: int, *_: Any, **_named: Any) -> list[ray.data.ReadTask]:
        """One for each block."""
        tasks = []
        for numbers in np.array_split(np.arange(self._count), parallelism):
            about = {"num_rows": len(numbers), "size_bytes": numbers.nbytes}
            metadata = BlockMetadata(**about, input_files=None, exec_stats=None)
            block = functools.partial(_block, int(numbers[0]), len(numbers))
            tasks.append(ray.data.ReadTask(block, metadata))
        return tasks


def _block(first: int, count: int) -> list[Any]:
    return [pyarrow_and_parquet()[0].table({_ID: np.arange(first, first + count)})]


@contextlib.contextmanager
def _causes() -> Iterator[None]:
    """What a worker raised, instead of what Ray makes of it.

    Ray Data wraps it into an exception of its own, of which only the text arrives here.
    """
    try:
        yield
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, VptkitError):
            raise cause from None
        if found := _RAISED.search(str(error)):
            kind: type[VptkitError] = getattr(errors, found[1], VptkitError)
            raise kind(found[2].strip()) from None
        raise
