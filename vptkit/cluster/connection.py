"""Ray, started here or joined, and ended in good order."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingError

from .cluster_address import LOCAL, require_address, require_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

__all__ = ["connected", "living_nodes"]


@contextlib.contextmanager
def connected(address: str | None, cpus: int | None = None) -> Iterator[None]:
    """Ray is there while the block runs.

    Args:
        address: HOST:PORT of a cluster that this machine belongs to, or "auto"; None or "local": Ray
            is started here, and ended afterwards.
        cpus: of this machine, if Ray is started here; None: all.

    Raises:
        VptkitError: no address.
        MissingError: no cluster answers there.
        KeyboardInterrupt: SIGINT or SIGTERM came.
    """
    import ray

    address = address or LOCAL
    require_address(address)
    if address not in ("auto", LOCAL):
        require_answer(address)
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    main = threading.current_thread() is threading.main_thread()  # which alone may take signals
    try:
        _start(address, cpus)
        if main:
            # Ray ends its loop in good order at SIGINT; an exception amid it can crash the process.
            signal.signal(signal.SIGTERM, _as_interrupt)
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error  # what Ray, while it starts, makes of SIGTERM
    finally:
        ray.shutdown()
        for number, handler in kept.items() if main else ():
            signal.signal(number, handler)


def living_nodes() -> list[dict[str, Any]]:
    """What Ray says of each node that is alive: "NodeID", "Resources" (CPU, GPU, …), and more."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


class _Closed(list[str]):
    """Folders that Ray would have its workers import from: the current one, before all others."""

    def extend(self, _folders: Iterable[str]) -> None:
        """Take none."""


def _start(address: str, cpus: int | None) -> None:
    import ray
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _Closed()  # noqa: SLF001 -- there is no other way to say so
    here: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            job_config=job,
            **(here if address == LOCAL else {}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = "this machine" if address == LOCAL else address
        raise MissingError(
            f"Ray cannot be reached at {place}: {error}. Is it running (ray status), and of this "
            "version of Ray and Python?"
        ) from error


def _as_interrupt(signum: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)
