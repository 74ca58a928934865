"""Ray, started here or joined: quiet, ended in good order, and told of as everything else is.

`vptkit sweep` and `vptkit run --ray-address` run on it. Ray itself is imported in functions only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingError, VptkitError
from vptkit.python_child import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import FrameType

__all__ = ["LOCAL", "connected", "living_nodes", "quiet", "require_address"]

LOCAL = "local"
# Ray shall not phone home, and leave GPUs as they are for who asks for none.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def require_address(address: str) -> None:
    """Refuse what is no address of a cluster that this machine belongs to.

    Raises:
        VptkitError: neither HOST:PORT, "auto" nor "local"; or one of Ray's client, which runs our
            code elsewhere.
    """
    if address.startswith("ray://"):
        raise VptkitError(
            f"--ray-address {address}: Ray's client does not do. Run the command on a node of "
            "the cluster and pass HOST:PORT (of the head's GCS, often 6379), or auto."
        )
    host, _, port = address.rpartition(":")
    if address not in ("auto", LOCAL) and not (host and port.isdecimal()):
        raise VptkitError(f"--ray-address {address!r}: expected HOST:PORT, or auto")


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
        _require_answer(address)
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


def _require_answer(address: str) -> None:
    """Find out within seconds what Ray finds out within minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise MissingError(
            f"--ray-address {address}: nothing answers there ({error}). Start a cluster with ray "
            "start --head, or leave the option out to run on this machine."
        ) from error


@contextlib.contextmanager
def quiet(settings: Mapping[str, str] | None = None) -> Iterator[None]:
    """Ray's own words go nowhere, its settings are put back afterwards.

    Args:
        settings: further variables of the environment, in which Ray starts its processes.
    """
    # Ray starts its processes with our environment: no search path leads to the current folder.
    clean = child_environment()
    searched = {"PATH": clean.get("PATH", os.defpath), "PYTHONPATH": clean.get("PYTHONPATH", "")}
    wanted = {**_ENVIRONMENT, **(settings or {}), **searched}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    logger = logging.getLogger("ray")
    level, disabled = logger.level, logging.root.manager.disable
    logger.setLevel(logging.CRITICAL)
    logging.disable(logging.ERROR)  # Ray sets levels of its own loggers while it starts
    try:
        # What nodes say, as the last words of one that died, Ray prints, whatever it was told.
        # Our progress keeps the stream that it began with.
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield
    finally:
        logging.disable(disabled)
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _as_interrupt(signum: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)
