"""What a bank's adapters answer over HTTP, to compare the banks that killed commands leave.

Of `kills.py`. The picture is the same each time, so are session, threads and batches of one: logits of
the same adapter are equal to the bit.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

from PIL import Image

from tests.support.children import PIPE, Child
from tests.support.serving import served

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Answers = Mapping[str, list[float]]  # adapter -> logits


class ServedBank:
    """Banks that must be one of two, by their manifests and by what is answered.

    Attributes:
        servers: how many of each sort were started.
    """

    def __init__(self, golden: Mapping[str, Answers], real_every: int) -> None:
        self._golden, self._real_every = golden, real_every
        self.servers: Counter[str] = Counter()

    def check(self, bundle: Path, state: str) -> None:
        """Start a server on a bank, and ask it for each adapter.

        Args:
            bundle: the bank.
            state: "old" or "new", as its manifest says.

        Raises:
            AssertionError: it does not start, lacks an adapter, or answers otherwise.
        """
        count = sum(self.servers.values()) + 1
        real = bool(self._real_every) and count % self._real_every == 0
        found = (answers_of_process if real else answers_in_process)(bundle)
        self.servers["own process" if real else "this process"] += 1
        assert same_answers(found, self._golden[state]), (
            f"the server answers not as the {state} bank"
        )


def same_answers(one: Answers, other: Answers) -> bool:
    """Whether two banks have the same adapters, which answer alike."""
    return dict(one) == dict(other)


def answers_in_process(bundle: Path) -> Answers:
    """By a server's application, without a socket."""
    with served([bundle]) as ask:

        def request(method: str, path: str, body: bytes | None = None) -> Any:
            headers = {"Content-Type": "application/json"}
            answer = ask(method, path, content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            return answer.json()

        return _answers(request)


def answers_of_process(bundle: Path) -> Answers:
    """By `vptkit serve`, over loopback; it is killed at the end."""
    command = [sys.executable, "-m", "vptkit", "serve", bundle, "--port", "0"]
    with Child([*command, "--backend", "cpu", "--threads", "1"], stdout=PIPE) as server:
        address = server.stdout.readline().split(" at ")[1].split("/v2")[0]

        def request(method: str, path: str, body: bytes | None = None) -> Any:
            headers = {"Content-Type": "application/json"}
            wanted = urllib.request.Request(address + path, body, headers, method=method)
            with urllib.request.urlopen(wanted, timeout=60) as answer:
                return json.load(answer)

        found = _answers(request)
        server.end()
        return found


def _answers(request: Callable[..., Any]) -> Answers:
    listed = request("GET", "/v2/models")["models"]
    names = [one["name"] for one in listed if one["parent"] is not None]
    model = next(one["name"] for one in listed if one["parent"] is None)
    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(stream, "PNG")
    data = [base64.b64encode(stream.getvalue()).decode()]
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
    document = {"inputs": [image], "outputs": [{"name": "logits"}]}
    found = {}
    for name in names:
        body = json.dumps({**document, "parameters": {"adapter": name}}).encode()
        found[name] = request("POST", f"/v2/models/{model}/infer", body)["outputs"][0]["data"]
    return found
