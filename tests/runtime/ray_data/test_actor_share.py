from __future__ import annotations

import pytest

from vptkit.errors import TargetError
from vptkit.runtime.ray_data.actor_share import share_of


def nodes(*have):
    """Nodes a, b, … with (CPUs, GPUs) each."""
    named = zip("abcdefgh", have, strict=False)
    return [{"NodeID": n, "Resources": {"CPU": float(c), "GPU": float(g)}} for n, (c, g) in named]


def shared(have, backend="auto", **asked):
    share = share_of(nodes(*have), backend, **asked)
    return share.cpus, share.gpus, share.actors, "".join(share.nodes)


def test_processors():
    assert shared([(8, 0), (2, 0)]) == (1, 0, 10, "ab")
    assert shared([(8, 0), (2, 0)], threads=3) == (3, 0, 2, "a")
    assert shared([(8, 0), (0, 0)], actors=5) == (1, 0, 5, "a")
    assert shared([(2, 0)], actors=5) == (1, 0, 2, "a")
    for backend in ("cpu", "openvino", "openvino-gpu"):  # its GPUs are none of Ray's
        assert shared([(8, 4)], backend) == (1, 0, 8, "a")
        assert shared([(8, 0)], backend) == (1, 0, 8, "a")
    assert share_of([{"NodeID": "a", "Resources": {"CPU": 2.0}}], "auto").actors == 2


def test_gpus():
    assert shared([(16, 2), (8, 0), (12, 4)]) == (3, 1, 6, "ac")
    assert shared([(16, 2), (8, 0)], "tensorrt", threads=4) == (4, 1, 2, "a")
    assert shared([(2, 4)]) == (1, 1, 2, "a")


def test_no_room():
    with pytest.raises(TargetError, match="takes 9 CPUs and 0 GPUs; no node has them"):
        shared([(8, 0)], threads=9)
    with pytest.raises(TargetError, match="no node has them"):
        shared([(0, 0)])
    with pytest.raises(TargetError, match="--backend cuda: no node of the cluster has a GPU"):
        shared([(8, 0)], "cuda")
