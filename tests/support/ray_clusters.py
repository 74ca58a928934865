"""Real clusters of Ray on this machine, in processes of their own: Ray warns as it is imported."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import textwrap
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.children import DEVNULL, PIPE, Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ENVIRONMENT", "LIMIT", "TwoNodes", "needs_ray", "two_nodes", "wait_for"]

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed (the extras sweep, ray)"
)
# Ray's own patience with a silent node is 5 × 3 s and more; nothing here waits for a slow network.
_IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}
ENVIRONMENT = {
    **os.environ,
    "RAY_worker_niceness": "0",  # by default 15: whoever shares the machine would starve them
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    **_IMPATIENT,
}
LIMIT = 240  # seconds; only a hung Ray takes so long

# Two nodes; says the address and the second's id, and kills that when told to.
_CLUSTER = """
    import os
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import sys
    from ray.cluster_utils import Cluster

    cpus = int(sys.argv[1])
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": cpus, "include_dashboard": False},
    )
    second = cluster.add_node(num_cpus=cpus)
    print(cluster.address, second.node_id, flush=True)
    sys.stdin.readline()
    cluster.remove_node(second, allow_graceful=False)
    print("killed", flush=True)
    sys.stdin.readline()
    cluster.shutdown()
"""


class TwoNodes(NamedTuple):
    """A cluster.

    Attributes:
        address: HOST:PORT.
        second: the id of the second node.
        kill: kills that.
    """

    address: str
    second: str
    kill: Callable[[], None]


@contextlib.contextmanager
def two_nodes(cpus: int = 1) -> Iterator[TwoNodes]:
    """A cluster with two nodes of so many CPUs while the block runs."""
    command = [sys.executable, "-c", textwrap.dedent(_CLUSTER), str(cpus)]
    streams = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL}

    def kill() -> None:
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "killed\n"

    with Child(command, **streams, env=ENVIRONMENT, limit=2 * LIMIT) as process:
        address, node = process.stdout.readline().split()
        yield TwoNodes(address, node, kill)
        process.communicate()


def wait_for(held: Callable[[], bool], process: Child) -> None:
    """Poll until something holds, or the process is over."""
    while not held():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
