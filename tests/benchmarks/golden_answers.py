"""What a server that runs answers for one image and each adapter, to compare every later answer with.

Of the load tools `locustfile.py` and `serve_loadgen.py`. The answers are asked for at the start, one
after the other, so the adapters must not change while a load runs.
"""

from __future__ import annotations

import base64
import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

TOLERANCE = 1e-4  # of the largest logit: a batch of another size sums in another order


class GoldenAnswers:
    """The requests for one image, one an adapter, and the logits that are right.

    Attributes:
        names: of the adapters, at most as many as were asked for.
        path: where to post.
        bodies: a request of each adapter.
        headers: of each request.
    """

    def __init__(self, address: str, model: str, image: Path, most: int, token: str = "") -> None:
        """Ask a server.

        Args:
            address: as "http://127.0.0.1:8000".
            model: its name; empty where there is but one.
            image: an encoded file.
            most: adapters.
            token: of a user, if the server wants one.

        Raises:
            SystemExit: it does not answer, or two adapters answer alike, so that a swap were not seen.
        """
        self._place = urlsplit(address)
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        listed = self._ask("GET", "/v2/models")["models"]
        models = [one["name"] for one in listed if one["parent"] is None]
        if not model and len(models) != 1:
            raise SystemExit(f"name one of the models: {', '.join(models)}")
        model = model or models[0]
        self.names = [one["name"] for one in listed if one["parent"] == model][:most]
        self.path = f"/v2/models/{quote(model)}/infer"
        content = base64.b64encode(image.read_bytes()).decode()
        self.bodies = {name: _request(content, name) for name in self.names}
        self._logits = {
            name: logits_of(self._ask("POST", self.path, body))
            for name, body in self.bodies.items()
        }
        for i, name in enumerate(self.names):
            for other in self.names[:i]:
                if self.is_right(other, self._logits[name]):
                    raise SystemExit(f"{other} and {name} answer alike: a swap would not be seen")

    def is_right(self, name: str, logits: NDArray[np.float32]) -> bool:
        """Whether these logits, [C], are the adapter's."""
        golden = self._logits[name]
        if golden.shape != logits.shape:
            return False
        return bool(np.abs(golden - logits).max() <= TOLERANCE * np.abs(golden).max())

    def draw(self, rng: np.random.Generator, alpha: float) -> str:
        """An adapter, by a power law of exponent `alpha`, as in S-LoRA's benchmark; 1 is uniform."""
        return self.names[int(rng.power(alpha) * len(self.names))]

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection(self._place.netloc, timeout=60)
        try:
            connection.request(method, path, body, self.headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError as error:
            raise SystemExit(f"{self._place.geturl()} does not answer: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content)


def logits_of(document: Mapping[str, Any]) -> NDArray[np.float32]:
    """Those of the only image of an answer, float32 [C]."""
    return np.float32(document["outputs"][0]["data"])


def _request(content: str, adapter: str) -> bytes:
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [content]}
    document = {"inputs": [image], "outputs": [{"name": "logits"}]}
    return json.dumps({**document, "parameters": {"adapter": adapter}}).encode()
