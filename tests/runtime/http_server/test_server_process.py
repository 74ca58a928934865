"""A server on a socket: the official client, slow clients, signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("tests.support.serving")

import httpx

from tests.support.children import PIPE, Child
from tests.support.serving import encoded, served
from vptkit.errors import VptkitError
from vptkit.runtime.http_server import server_process
from vptkit.runtime.http_server.request_limits import BodyLimits
from vptkit.runtime.http_server.server_process import address_of, bound_socket, uvicorn_server

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 24, 16, 3), dtype=np.uint8)


@contextlib.contextmanager
def listening(bundle, **settings):
    """A server in a thread: its asker and its address."""
    with served([bundle], **settings) as ask, contextlib.closing(bound_socket("127.0.0.1", 0)) as s:
        server = uvicorn_server(ask.application)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [s]})
        thread.start()
        try:
            yield ask, address_of(s)
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_official_client_talks_to_it(make_bundle):
    client_module = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    with listening(make_bundle()) as (ask, address):
        client = client_module.InferenceServerClient(address.removeprefix("http://"))
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny-0")
        assert client.get_model_metadata("tiny-0")["outputs"][0]["name"] == "logits"
        assert client.get_model_repository_index()[0]["name"] == "tiny-0"
        expected = ask.model.session.run(PIXELS)
        for binary in (True, False):
            images = client_module.InferInput("images", list(PIXELS.shape), "UINT8")
            images.set_data_from_numpy(PIXELS, binary_data=binary)
            wanted = [
                client_module.InferRequestedOutput(name, binary_data=binary)
                for name in ("logits", "label", "score")
            ]
            answer = client.infer("tiny-0", [images], outputs=wanted, request_id="seven")
            np.testing.assert_array_equal(answer.as_numpy("logits"), expected)
            assert answer.get_response()["id"] == "seven"
        file = client_module.InferInput("image", [1], "BYTES")
        file.set_data_from_numpy(np.array([encoded(PIXELS[0])], dtype=object))
        answer = client.infer("tiny-0", [file], parameters={"adapter": "tiny"})
        assert answer.as_numpy("label")[0] in (b"red", b"green", b"blue")
        with pytest.raises(Exception, match="no adapter 'b', expected one of tiny"):
            client.infer("tiny-0", [file], parameters={"adapter": "b"})
        client.close()


@pytest.mark.slow
def test_slow_clients_are_let_go_and_others_are_answered(make_bundle, monkeypatch):
    monkeypatch.setattr(server_process, "_IDLE", 0.2)
    with listening(make_bundle()) as (ask, address):
        ask.application.limits = BodyLimits(1 << 20, seconds=0.2)
        host, port = address.removeprefix("http://").split(":")
        slow_headers = socket.create_connection((host, int(port)), timeout=30)
        slow_headers.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
        slow_body = socket.create_connection((host, int(port)), timeout=30)
        slow_body.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nab"
        )
        good = httpx.post(f"{address}/predict", content=encoded(PIXELS[0]), timeout=30)
        assert good.status_code == 200
        assert slow_headers.recv(100) == b""
        answer = slow_body.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert slow_body.recv(1000).endswith(b'2 bytes came"}') or b"2 bytes came" in answer
        slow_headers.close()
        slow_body.close()


def test_an_answer_does_not_wait_for_the_clients_acknowledgement():
    async def nodelay() -> int:
        found = asyncio.get_running_loop().create_future()
        with contextlib.closing(bound_socket("127.0.0.1", 0)) as listener:

            def answer(_, writer):
                own = writer.get_extra_info("socket")
                found.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                writer.close()

            async with await asyncio.start_server(answer, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                writer.close()
                return await asyncio.wait_for(found, 10)

    assert asyncio.run(nodelay())


def test_a_port_that_is_taken_is_named():
    with contextlib.closing(bound_socket("127.0.0.1", 0)) as taken:
        taken.listen()
        with pytest.raises(VptkitError, match="Pass another --port"):
            bound_socket("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(VptkitError, match="cannot listen there"):
        bound_socket("no.such.host.invalid", 80)


@pytest.mark.long
def test_sigterm_drains_and_a_second_one_ends(make_bundle):
    """What is on its way is answered, and probes and further requests see the end coming."""
    command = [sys.executable, "-m", "vptkit", "serve", make_bundle(), "--port", "0"]
    more = ["--backend", "cpu", "--threads", "1", "--log-requests", "--timeout-ms", "60000"]
    with Child([*command, *more], stdout=PIPE, stderr=PIPE) as server:
        address = server.stdout.readline().split(" at ")[1].split("/v2")[0]
        host, port = address.removeprefix("http://").split(":")
        file = encoded(PIXELS[0])
        slow = socket.create_connection((host, int(port)), timeout=30)
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(file)}\r\n\r\n"
        slow.sendall(head.encode() + file[:10])
        while 'vptkit_requests_total{model=""' not in httpx.get(f"{address}/metrics").text:
            time.sleep(0.01)
        os.kill(server.pid, signal.SIGTERM)
        while httpx.get(f"{address}/v2/health/ready").status_code == 200:
            time.sleep(0.01)
        assert httpx.post(f"{address}/predict", content=file).status_code == 503
        slow.sendall(file[10:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
        slow.close()
        _, err = server.communicate()
        assert server.returncode == 0, err
        assert '"status": 200' in err
    with Child([*command, *more], stdout=PIPE, stderr=PIPE) as server:
        address = server.stdout.readline().split(" at ")[1].split("/v2")[0]
        host, port = address.removeprefix("http://").split(":")
        slow = socket.create_connection((host, int(port)), timeout=30)
        slow.sendall(head.encode() + file[:10])
        while 'vptkit_requests_total{model=""' not in httpx.get(f"{address}/metrics").text:
            time.sleep(0.01)
        os.kill(server.pid, signal.SIGTERM)
        while httpx.get(f"{address}/v2/health/ready").status_code == 200:
            time.sleep(0.01)
        os.kill(server.pid, signal.SIGTERM)
        _, err = server.communicate()
        assert (server.returncode, "interrupted" in err) == (130, True)
        slow.close()
