"""Where a Ray cluster is, as users name it: HOST:PORT, auto, or local."""

from __future__ import annotations

import socket

from vptkit.errors import MissingError, VptkitError

__all__ = ["LOCAL", "require_address", "require_answer"]

LOCAL = "local"  # none yet: Ray is started on this machine


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


def require_answer(address: str) -> None:
    """Find out within seconds what Ray finds out within minutes.

    Args:
        address: HOST:PORT.

    Raises:
        MissingError: nobody listens there.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise MissingError(
            f"--ray-address {address}: nothing answers there ({error}). Start a cluster with ray "
            "start --head, or leave the option out to run on this machine."
        ) from error
