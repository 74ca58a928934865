"""A server of 16 adapters under an open loop: adapters change, and the process is killed.

The short form of tests/benchmarks/serve_load.py.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

pytest.importorskip("timm")
pytest.importorskip("onnxruntime")
pytest.importorskip("tests.support.serving")

from tests.benchmarks.golden_answers import GoldenAnswers, logits_of
from tests.benchmarks.serve_load import Pool, adapters, churn, photograph, server
from tests.support.children import PIPE, Child
from vptkit.export.bank.export_bank import export_bank
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.http_server.server_process import bound_socket

pytestmark = pytest.mark.long
ARGS = SimpleNamespace(
    model="vit_tiny_patch16_224",
    adapters=16,
    prompts=2,
    threads=1,
    queue=256,
    batch=8,
    decode_threads=1,
    token="only-for-this-test-of-a-load",
    alpha=0.5,
    churn=6.0,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    paths, weights = adapters(ARGS, folder)
    export_bank(paths, folder / "bank.vptk", weights=weights)
    return paths, folder / "bank.vptk", photograph(folder)


def test_adapters_change_under_load_and_nothing_is_lost_or_wrong(files):
    paths, bank, photo = files
    urls = [f"/predict?adapter={path.stem}" for path in paths]
    with server([bank], ARGS) as (host, port, pid):
        pool, admin = Pool(host, port, photo.read_bytes()), (f"{host}:{port}", ARGS.token)
        statuses, wrong, changes = asyncio.run(churn(pool, urls, 8.0, paths, admin, pid, ARGS))
    assert set(statuses) == {200}
    assert statuses[200] > 16
    assert wrong == 0
    assert {"PUT 201", "PUT 200", "DELETE 200"} == set(changes)
    assert len(open_bundle(bank).adapter_names) in (16, 17)


def test_a_server_killed_under_load_and_started_again(files):
    """Clients see connections that end or are refused, never a wrong answer; the bank is whole."""
    _, bank, photo = files
    with bound_socket("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vptkit", "serve", bank, "--port", port]
    command += ["--backend", "cpu", "--threads", "1"]
    ended, names = threading.Event(), []

    def ask_on(seed: int) -> Counter[str]:
        found, i = Counter(), seed
        while not ended.is_set():
            i += 1
            found[ask(names[i % len(names)])] += 1
        return found

    def ask(name: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", golden.path, golden.bodies[name], golden.headers)
            answer = connection.getresponse()
            content = answer.read()
        except (ConnectionError, http.client.HTTPException):
            time.sleep(0.02)
            return "no connection"
        finally:
            connection.close()
        if answer.status != 200:
            return f"status {answer.status}"
        right = golden.is_right(name, logits_of(json.loads(content)))
        return "right" if right else "wrong"

    with Child(command, stdout=PIPE) as first:
        first.stdout.readline()
        golden = GoldenAnswers(f"http://127.0.0.1:{port}", "", photo, 16)
        names += golden.names
        with ThreadPoolExecutor(4) as pool:
            load = [pool.submit(ask_on, i) for i in range(4)]
            try:
                time.sleep(0.5)
                os.kill(first.pid, signal.SIGKILL)
                first.wait()
                with Child(command, stdout=PIPE) as second:
                    second.stdout.readline()
                    assert all(ask(name) == "right" for name in names)
                    ended.set()
                    found = sum((one.result() for one in load), Counter())
                    second.send_signal(signal.SIGTERM)
                    assert second.wait() == 0
            finally:
                ended.set()
    assert found.pop("no connection") > 0
    assert found.pop("right") > 0
    assert not found
    assert open_bundle(bank).adapter_names[:16] == tuple(names)
