"""A real `tritonserver` on loopback, asked by `tritonclient` over HTTP and gRPC.

The wheel nvidia-pytriton brings server and Python backend. It pins numpy, so it has an environment of
its own, named by $VPTKIT_TRITON_ENV; `.ci/run` makes it:

    python3 -m venv ENV && ENV/bin/pip install nvidia-pytriton==0.7.0 "tritonclient[http,grpc]" \
        onnxruntime pillow safetensors rich typer

There is no ONNX Runtime backend in it: the graph of the ensemble is run by a stand-in in Python, all
else is Triton's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.architecture import ROOT
from tests.support.bank_cases import family
from tests.support.children import Child, descendants, run_child
from tests.support.exported_banks import export_family
from vptkit.export.bank.edit_bank import add, remove
from vptkit.runtime import open_session
from vptkit.runtime.triton.model_config import Batching
from vptkit.runtime.triton.model_repository import TritonOptions, write_model_repository

pytestmark = pytest.mark.long
KINDS = ("both", "linear", "bilinear")
GRAPH = """
import pathlib
import numpy as np, onnxruntime, triton_python_backend_utils as utils

class TritonPythonModel:
    def initialize(self, args):
        file = pathlib.Path(args["model_repository"]) / "1" / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file))

    def execute(self, requests):
        value = lambda r, n: utils.get_input_tensor_by_name(r, n).as_numpy()
        feed = {n: np.concatenate([value(r, n) for r in requests]) for n in ("images", "adapter")}
        logits = self.session.run(["logits"], feed)[0]
        ends = np.cumsum([len(value(r, "adapter")) for r in requests])[:-1]
        parts = np.split(logits, ends)
        return [utils.InferenceResponse([utils.Tensor("logits", p)]) for p in parts]
"""
CLIENT = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np, tritonclient.grpc as grpc, tritonclient.http as http

place, http_port, grpc_port = sys.argv[1:]
asked = json.loads(open(f"{place}/asked.json").read())
arrays = np.load(f"{place}/arrays.npz")
address = {"http": http_port, "grpc": grpc_port}
clients = {
    "http": http.InferenceServerClient(f"127.0.0.1:{http_port}", concurrency=8),
    "grpc": grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}"),
}

def tensor(module, name, kind, value):
    made = module.InferInput(name, list(value.shape), kind)
    made.set_data_from_numpy(value)
    return made

def ask(one):
    module = {"http": http, "grpc": grpc}[one["by"]]
    inputs = []
    if "file" in one:
        content = open(one["file"], "rb").read()[: one.get("cut")]
        inputs.append(tensor(module, "image", "BYTES", np.array([[content]], dtype=object)))
    if "images" in one:
        inputs.append(tensor(module, "images", "UINT8", arrays[one["images"]]))
    if "adapter" in one:
        names = np.array([[name.encode()] for name in one["adapter"]], dtype=object)
        inputs.append(tensor(module, "adapter", "BYTES", names))
    if "index" in one:
        inputs.append(tensor(module, "adapter_index", "INT32", np.int32(one["index"])[:, None]))
    settings = {"parameters": {"adapter": one["named"]}} if "named" in one else {}
    try:
        found = clients[one["by"]].infer(one["model"], inputs, **settings)
    except Exception as error:
        return {"error": str(error)}
    label = found.as_numpy("label")
    return {
        "logits": found.as_numpy("logits").tolist(),
        "label": [value.decode() for value in label.flat],
        "score": found.as_numpy("score").tolist(),
        "shape": list(label.shape),
    }

with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(ask, [one for one in asked if one["by"] == "grpc"]))
found = {"grpc": found, "http": [ask(one) for one in asked if one["by"] == "http"]}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def environment() -> Path:
    """The environment of nvidia-pytriton."""
    place = os.environ.get("VPTKIT_TRITON_ENV")
    if not place:
        pytest.skip("no tritonserver: VPTKIT_TRITON_ENV names no environment of nvidia-pytriton")
    found = Path(place).absolute()
    if not (found / "bin" / "python").exists() or not list(
        found.glob("lib/python*/site-packages/pytriton")
    ):
        pytest.skip(f"no tritonserver: no nvidia-pytriton in {place}")
    return found


@dataclass
class Server:
    """A tritonserver that runs."""

    environment: Path
    place: Path
    ports: tuple[int, int, int]
    pid: int

    def stubs(self) -> list[int]:
        """The processes of the Python backend, in which the models run."""
        found = []
        for pid in descendants(self.pid):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"triton_python_backend_stub"):
                    found.append(pid)
        return found

    def ask(self, *asked: dict, **arrays: np.ndarray) -> list[dict]:
        """Answers of one client, in the order of what it asks; gRPC's are concurrent."""
        (self.place / "asked.json").write_text(json.dumps(asked))
        np.savez(self.place / "arrays.npz", **arrays)
        python = self.environment / "bin" / "python"
        done = run_child([python, "-c", CLIENT, self.place, *self.ports[:2]], limit=60)
        found = {by: iter(answers) for by, answers in json.loads(done.stdout).items()}
        return [next(found[one["by"]]) for one in asked]

    def metric(self, name: str, model: str) -> float:
        """A counter of Prometheus."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[2]}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        return next(
            float(one.split()[-1]) for one in lines if one.startswith(f'{name}{{model="{model}"')
        )


@contextlib.contextmanager
def serving(environment: Path, repository: Path, place: Path, *options: str, drains: bool = True):
    """Start the server as pytriton does: its backend's stub for this Python, its libraries.

    One that lost a stub waits 30 s for it at its end; it is killed unless it `drains`.
    """
    (site,) = environment.glob("lib/python*/site-packages")
    wheel = site / "pytriton" / "tritonserver"
    shutil.copytree(wheel / "backends", place / "backends")
    stub = wheel / "python_backend_stubs" / site.parent.name.removeprefix("python")
    shutil.copy(stub / "triton_python_backend_stub", place / "backends" / "python")
    ports, shared = free_ports(), f"vptkit{os.getpid()}"
    names = zip(("http", "grpc", "metrics"), ports, strict=True)
    listen = [
        f"--{name}-{key}={value}"
        for name, port in names
        for key, value in (("address", "127.0.0.1"), ("port", port))
    ]
    command = [
        wheel / "bin" / "tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={place / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={shared}",
        "--disable-auto-complete-config",
        *options,
        *listen,
    ]
    env = os.environ | {
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(site.parent.parent / "nvidia_pytriton.libs")
        + f":{site / 'nvidia_pytriton.libs'}",
        "PYTHONPATH": f"{ROOT}:{site}",
        "OMP_NUM_THREADS": "1",
    }
    with (
        (place / "log").open("w") as log,
        Child(command, limit=60, env=env, stdout=log, stderr=log) as child,
    ):
        try:
            wait_until_ready(child, ports, place / "log")
            yield Server(environment, place, ports, child.pid)
            if drains:
                child.send_signal(signal.SIGTERM)
                assert child.wait() == 0
        finally:
            child.end()
            for left in Path("/dev/shm").glob(f"{shared}*"):  # of one that had to be killed
                left.unlink(missing_ok=True)


def wait_until_ready(child: Child, ports: tuple[int, int, int], log: Path) -> None:
    """Models first; the metrics have a listener of their own, which comes last."""
    waiting = [f"{ports[0]}/v2/health/ready", f"{ports[2]}/metrics"]
    while waiting and child.poll() is None:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{waiting[0]}", timeout=5),
        ):
            waiting.pop(0)
        time.sleep(0.05)
    if waiting:
        pytest.fail(log.read_text()[-3000:])


def free_ports() -> tuple[int, int, int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in found)


def repository_of(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    """Two models of the same bank: with a session of ours, and as an ensemble."""
    members, bundles = family(kinds=KINDS), {}
    for name, tables in (("live", "inputs"), ("fixed", "constant")):
        folder = tmp_path / name
        folder.mkdir()
        bundles[name] = export_family(folder, members, tables=tables).rename(
            folder / f"{name}.vptk"
        )
    batching = Batching(delay_us=100_000)
    out = tmp_path / "models"
    options = TritonOptions(session_backend="cpu", threads=1, batching=batching)
    write_model_repository([bundles["live"]], out, options)
    ensemble = TritonOptions(backend="onnxruntime", batching=batching, threads=1)
    write_model_repository([bundles["fixed"]], tmp_path / "ensemble", ensemble)
    for model in (tmp_path / "ensemble").iterdir():
        model.rename(out / model.name)
    graph = out / "fixed_graph"
    (graph / "1" / "model.py").write_text(GRAPH)
    config = (graph / "config.pbtxt").read_text().replace('"onnxruntime"', '"python"')
    (graph / "config.pbtxt").write_text(config.replace("KIND_AUTO", "KIND_CPU"))
    return out, bundles


def test_clients_of_several_adapters(environment, tmp_path):
    members = family(kinds=KINDS)
    out, bundles = repository_of(tmp_path)
    picture = tmp_path / "picture.png"
    Image.effect_noise((60, 40), 90).convert("RGB").save(picture)
    pixels = members.case.images[:2]
    with open_session(bundles["live"], "cpu", threads=1) as session:
        expected = {name: next(session.predict(picture, adapter=name)) for name in KINDS}
        mixed = session.run(pixels, ["linear", "both"])
        mixed[np.isneginf(mixed)] = np.finfo(np.float32).min
    mine = out / "live" / "1" / "live.vptk"
    asked = [
        {"by": by, "model": model, "file": str(picture), "adapter": [name]}
        for by in ("http", "grpc")
        for model in ("live", "fixed")
        for name in KINDS
    ]
    wrong = [
        {"by": by, "model": model, "file": str(picture), **change}
        for by in ("http", "grpc")
        for model in ("live", "fixed")
        for change in ({"adapter": ["new"]}, {"adapter": ["both"], "cut": 60})
    ]
    (tmp_path / "server").mkdir()
    with serving(environment, out, tmp_path / "server") as server:
        runs = server.metric("nv_inference_exec_count", "live")
        found = server.ask(*asked, *wrong)
        for one, answer in zip(asked, found[: len(asked)], strict=True):
            right = expected[one["adapter"][0]]
            own = len(right.logits)
            np.testing.assert_allclose(
                answer["logits"][0][:own], right.logits, rtol=1e-5, atol=1e-5
            )
            assert (np.float32(answer["logits"][0][own:]) == np.finfo(np.float32).min).all()
            assert answer["label"] == [right.label]
            assert answer["score"][0] == pytest.approx([right.score], abs=1e-5)
            assert answer["shape"] == [1, 1]
        for one, answer in zip(wrong, found[len(asked) :], strict=True):
            words = "the image is broken" if "cut" in one else "no adapter 'new', only both"
            assert words in answer["error"]
        # gRPC's five requests of this model came at once: fewer runs than requests
        runs = server.metric("nv_inference_exec_count", "live") - runs
        assert runs < 10

        add(mine, bundles["live"].parent / "linear.safetensors", name="new")
        new, both, numbers = server.ask(
            {"by": "http", "model": "live", "file": str(picture), "named": "new"},
            {"by": "grpc", "model": "live", "images": "pixels", "adapter": ["linear", "both"]},
            {"by": "grpc", "model": "live", "images": "pixels", "index": [1, 0]},
            pixels=pixels,
        )
        np.testing.assert_allclose(
            new["logits"][0][:3], expected["linear"].logits, rtol=1e-5, atol=1e-5
        )
        for answer in (both, numbers):
            np.testing.assert_allclose(answer["logits"], mixed, rtol=1e-5, atol=1e-5)
        remove(mine, "new")


def posted(port: int, path: str, body: bytes = b"") -> tuple[int, dict]:
    """The status of a request by HTTP, and the JSON that came."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or "{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_backend_killed_under_load_is_told_and_loaded_again(environment, tmp_path):
    """Triton tells each request that its stub is gone; it starts a new one when the model is loaded."""
    (tmp_path / "live").mkdir()
    (tmp_path / "server").mkdir()
    members = family(kinds=KINDS)
    bundle = export_family(tmp_path / "live", members).rename(tmp_path / "live.vptk")
    write_model_repository(
        [bundle], tmp_path / "models", TritonOptions(session_backend="cpu", threads=1)
    )
    pixels, bodies, golden = members.case.images[:1], {}, {}
    with open_session(bundle, "cpu", threads=1) as session:
        for name in KINDS:
            golden[name] = session.run(pixels, [name])[0]
            images = {"name": "images", "shape": list(pixels.shape), "datatype": "UINT8"}
            images["data"] = pixels.ravel().tolist()
            adapter = {"name": "adapter", "shape": [1, 1], "datatype": "BYTES", "data": [name]}
            bodies[name] = json.dumps({"inputs": [images, adapter]}).encode()

    def ask(name: str) -> str:
        status, found = posted(server.ports[0], "/v2/models/live/infer", bodies[name])
        if status != 200:
            return found["error"]
        logits = next(one["data"] for one in found["outputs"] if one["name"] == "logits")
        own = np.isfinite(golden[name])
        same = np.allclose(np.float32(logits)[own], golden[name][own], rtol=1e-5, atol=1e-5)
        return "right" if same else "wrong"

    def ask_on(name: str) -> Counter[str]:
        found = Counter()
        while not ended.is_set():
            found[ask(name)] += 1
        return found

    ended, explicit = threading.Event(), ("--model-control-mode=explicit", "--load-model=live")
    with (
        serving(
            environment, tmp_path / "models", tmp_path / "server", *explicit, drains=False
        ) as server,
        ThreadPoolExecutor(4) as pool,
    ):
        try:
            load = [pool.submit(ask_on, KINDS[i % len(KINDS)]) for i in range(4)]
            while server.metric("nv_inference_request_success", "live") < 50:
                time.sleep(0.01)
            (stub,) = server.stubs()
            os.kill(stub, signal.SIGKILL)
            while ask("both") == "right":
                time.sleep(0.01)
            assert posted(server.ports[0], "/v2/repository/models/live/load")[0] == 200
            assert ask("both") == "right"
            assert stub not in server.stubs()
        finally:
            ended.set()
        found = sum((one.result() for one in load), Counter())
    told = found.pop("Stub process 'live_0_0' is not healthy.")
    assert told > 0
    assert found.pop("right") >= 50 - len(load)  # Triton counts an answer before its client has it
    assert not found, "each request is answered rightly, or told why not"
