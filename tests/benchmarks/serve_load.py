"""What `vptkit serve` costs, and whether the number of adapters can be seen (docs/serving.md).

A bank of deep-prompt adapters on one backbone of random weights, asked over loopback with one JPEG:

- idle: one request after the other, against the session's own `predict` of the same file, in turns;
- saturation: as many connections as keep the queue full, against the bare session's batches with
  decoding;
- open loop: the same offered rate for 1, 2, 4 … adapters, arrivals Poisson (--cv 1) or bursty (Gamma of
  a larger coefficient of variation), adapters drawn by a power law as S-LoRA's benchmark does;
- with --churn SECONDS: at 80 % of saturation, while an adapter is added, replaced and removed, a change
  a second; every answer is compared with the one before, and resident memory is looked at;
- with --baked: saturation of as many baked bundles in one server, and the memory of both.

    python -m tests.benchmarks.serve_load [--adapters 16] [--seconds 10] [--rounds 3] [--baked]
        [--churn 600] [--plot adapters.png]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import io
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
from PIL import Image

from tests.support.children import PIPE, Child
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.baselines import random_weights
from vptkit.export.bundle.export_bundle import export
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.tensor_file import write_tensors
from vptkit.images.preprocess import Preprocess
from vptkit.plot_text import new_figure, plain_pictures, require_plot
from vptkit.runtime import open_session
from vptkit.tune.backbone.spec_from_timm import spec_from_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(slots=True)
class Outcome:
    """What came of a load."""

    offered: float
    seconds: float
    milliseconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def percentiles(self) -> tuple[float, float]:
        """The 50th and the 99th of the answered, ms."""
        ms = sorted(self.milliseconds) or [float("nan")]
        p50, p99 = (ms[min(len(ms) - 1, int(share * len(ms)))] for share in (0.5, 0.99))
        return p50, p99

    @property
    def served(self) -> float:
        """Answers a second."""
        return self.statuses[200] / self.seconds

    def row(self) -> str:
        """One line."""
        (p50, p99), served = self.percentiles, self.served
        lost = {status: n for status, n in self.statuses.items() if status != 200}
        return (
            f"offered {self.offered:6.1f}/s served {served:6.1f}/s p50 {p50:7.1f} ms p99 {p99:7.1f} ms "
            f"others {lost or 'none'}"
        )


def adapters(args: Any, folder: Path) -> tuple[list[Path], Path]:
    """Adapter files, and the backbone's weights."""
    rng = np.random.default_rng(0)
    spec = spec_from_model(timm.create_model(args.model, num_classes=0).eval())
    weights = random_weights(spec)
    write_tensors(folder / "weights.safetensors", weights)
    paths = []
    for number in range(args.adapters):
        tensors: dict[str, Any] = {
            f"prompt.{i}": rng.standard_normal((args.prompts, spec.width)).astype(np.float32)
            for i in range(spec.depth)
        }
        tensors["head.weight"] = rng.standard_normal((10, spec.width)).astype(np.float32)
        tensors["head.bias"] = np.zeros(10, np.float32)
        adapter = Adapter(
            name=f"a{number:02}",
            backbone=BackboneRef(name=args.model, spec=spec, sha256=digest_of_weights(weights)),
            method="vpt",
            insert="deep",
            prompt_length=args.prompts,
            pool="token",
            norm="before_pool",
            labels=tuple(map(str, range(10))),
            preprocess=Preprocess(
                input_size=(3, *spec.image_size), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.9
            ),
            tensors=tensors,
        )
        paths.append(folder / f"a{number:02}.safetensors")
        write_adapter(paths[-1], adapter)
    return paths, folder / "weights.safetensors"


def photograph(folder: Path) -> Path:
    """A JPEG of 640 x 480 with some detail."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    stream = io.BytesIO()
    small.resize((640, 480), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    (folder / "photo.jpg").write_bytes(stream.getvalue())
    return folder / "photo.jpg"


@contextlib.contextmanager
def server(bundles: Sequence[Path], args: Any) -> Iterator[tuple[str, int, int]]:
    """A server of its own process: host, port, process."""
    command = [sys.executable, "-m", "vptkit", "serve", *bundles, "--port", "0", "--backend", "cpu"]
    command += ["--threads", args.threads, "--queue-size", args.queue, "--max-batch", args.batch]
    command += ["--decode-threads", args.decode_threads]
    admin = bundles[0].parent / "admin.txt"
    admin.write_text(args.token)
    command += ["--admin-token-file", admin]
    with Child(command, limit=3600, stdout=PIPE) as child:
        line = child.stdout.readline()
        while not line.startswith("try:"):
            if not line:
                raise SystemExit("the server does not start; its standard error says why")
            line = child.stdout.readline()
        host, port = line.split("http://")[1].split("/")[0].split(":")
        yield host, int(port), child.pid
        child.send_signal(signal.SIGTERM)
        child.wait()


async def post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str, body: bytes
) -> int:
    """The status of a request over an open connection."""
    head = f"POST {url} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    size = next(x for x in answer.lower().split("\r\n") if x.startswith("content-length"))
    await reader.readexactly(int(size.split(":")[1]))
    return int(answer.split()[1])


class Pool:
    """Connections that are kept, so many as are needed at once."""

    def __init__(self, host: str, port: int, body: bytes) -> None:
        self._place, self._body = (host, port), body
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, url: str, outcome: Outcome, begun: float | None = None) -> None:
        """One request; its time counts from when it was due."""
        begun = time.perf_counter() if begun is None else begun
        status = await self._status(url)
        outcome.statuses[status] += 1
        if status == 200:
            outcome.milliseconds.append(1000 * (time.perf_counter() - begun))

    async def _status(self, url: str) -> int:
        """Of one request; 0 if there is none. What the server closed meanwhile as idle is not asked."""
        while True:
            fresh = not self._free
            try:
                streams = await asyncio.open_connection(*self._place) if fresh else self._free.pop()
                status = await post(*streams, url, self._body)
            except (OSError, asyncio.IncompleteReadError):
                if fresh:
                    return 0
                continue
            if status == 200:
                self._free.append(streams)
            else:
                streams[1].close()
            return status

    async def answer(self, url: str) -> tuple[int, dict[str, float]]:
        """The status and the best labels' scores of one request on a connection of its own."""
        reader, writer = await asyncio.open_connection(*self._place)
        head = f"POST {url} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(self._body)}\r\n\r\n".encode() + self._body)
        content = await reader.read()
        writer.close()
        status = int(content.split()[1])
        document = json.loads(content.partition(b"\r\n\r\n")[2])
        top = document["predictions"][0]["top"] if status == 200 else []
        return status, {one["label"]: one["score"] for one in top}

    def close(self) -> None:
        """Close those that are free."""
        for _, writer in self._free:
            writer.close()


async def closed_loop(pool: Pool, urls: Sequence[str], clients: int, seconds: float) -> Outcome:
    """Each client asks again when it was answered."""
    outcome, end = Outcome(float("nan"), seconds), time.perf_counter() + seconds
    rng = np.random.default_rng(0)

    async def client() -> None:
        while time.perf_counter() < end:
            await pool.ask(urls[rng.integers(len(urls))], outcome)

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    outcome.seconds = time.perf_counter() - begun
    return outcome


async def open_loop(pool: Pool, urls: Sequence[str], rate: float, args: Any) -> Outcome:
    """Requests come when they come, answered or not."""
    rng = np.random.default_rng(1)
    shape = 1 / args.cv**2
    count = max(1, int(rate * args.seconds))
    gaps = rng.gamma(shape, 1 / (rate * shape), count)
    chosen = (rng.power(args.alpha, count) * len(urls)).astype(int)
    outcome, begun, tasks = Outcome(rate, 0.0), time.perf_counter(), []
    for at, which in zip(np.cumsum(gaps), chosen, strict=True):
        if (left := begun + at - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        tasks.append(asyncio.ensure_future(pool.ask(urls[which], outcome, begun + at)))
    await asyncio.gather(*tasks)
    outcome.seconds = time.perf_counter() - begun
    return outcome


async def churn(
    pool: Pool,
    urls: Sequence[str],
    rate: float,
    paths: Sequence[Path],
    admin: tuple[str, str],
    pid: int,
    args: Any,
) -> tuple[Counter[int], int, Counter[str]]:
    """Requests while an adapter is added, replaced and removed; each answer is checked by its scores.

    Returns:
        Answers by status, how many of them are of the wrong adapter, and changes by method and status.
    """
    golden: dict[str, dict[str, float]] = {}
    for url in urls:
        golden[url] = (await pool.answer(url))[1]
    wrong, outcome = Counter[str](), Outcome(rate, 0.0)
    begun = time.perf_counter()
    end = begun + args.churn
    resident = [(0.0, memory(pid))]
    changes = asyncio.ensure_future(asyncio.to_thread(change_adapters, paths, admin, end))
    rng = np.random.default_rng(2)

    async def one(url: str) -> None:
        status, score = await pool.answer(url)
        outcome.statuses[status] += 1
        if status == 200 and not same(score, golden[url]):
            wrong[url] += 1

    tasks = []
    while time.perf_counter() < end:
        await asyncio.sleep(rng.exponential(1 / rate))
        tasks.append(asyncio.ensure_future(one(urls[int(rng.power(args.alpha) * len(urls))])))
        if time.perf_counter() - begun > resident[-1][0] + 5:
            resident.append((time.perf_counter() - begun, memory(pid)))
    await asyncio.gather(*tasks)
    changed = await changes
    print(
        f"churn, {args.churn:g} s: {changed} changes, answers by status {dict(outcome.statuses)}, "
        f"by the wrong adapter {sum(wrong.values())}; offered {rate:.1f}/s; {growth(resident)}",
        flush=True,
    )
    return outcome.statuses, sum(wrong.values()), changed


def same(found: dict[str, float], golden: dict[str, float]) -> bool:
    """Whether two answers are one adapter's."""
    return found.keys() == golden.keys() and all(
        abs(found[label] - score) <= 1e-5 for label, score in golden.items()
    )


def growth(resident: Sequence[tuple[float, float]]) -> str:
    """Resident memory over the last four fifths of the time: means of its first and last quarter."""
    late = [value for at, value in resident if at >= resident[-1][0] / 5]
    quarter = max(1, len(late) // 4)
    first, last = statistics.fmean(late[:quarter]), statistics.fmean(late[-quarter:])
    return f"resident {first:.1f} MB, then {last:.1f} MB ({last / first - 1:+.1%}), most {max(late):.1f}"


def change_adapters(paths: Sequence[Path], admin: tuple[str, str], end: float) -> Counter[str]:
    """Add, replace and remove one adapter, a change a second: status of each."""
    address, token = admin
    steps = (("PUT", paths[0]), ("PUT", paths[1]), ("DELETE", None))
    done, i = Counter[str](), 0
    while time.perf_counter() < end:
        method, file = steps[i % 3]
        connection = http.client.HTTPConnection(address)
        connection.request(
            method,
            "/adapters/swapped",
            file.read_bytes() if file else None,
            {"Authorization": f"Bearer {token}"},
        )
        done[f"{method} {connection.getresponse().status}"] += 1
        connection.close()
        i += 1
        time.sleep(1)
    return done


def timed(call: Callable[[], Any]) -> float:
    """Milliseconds of a call."""
    begun = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - begun)


def idle(bank: Path, photo: Path, place: tuple[str, int], pid: int, args: Any) -> None:
    """One request after the other, in turns with the session's own."""
    session = open_session(bank, "cpu", args.threads)
    connection = http.client.HTTPConnection(*place)
    body = photo.read_bytes()

    def ask() -> None:
        connection.request("POST", "/predict?adapter=a00", body)
        assert len(connection.getresponse().read()) > 20

    own, served, busy = [], [], 0.0
    before = processor(pid)
    for _ in range(args.calls):
        begun = time.process_time()
        own.append(timed(lambda: list(session.predict(photo, adapter="a00", workers=1))))
        busy += time.process_time() - begun
        served.append(timed(ask))
    parts = [statistics.median(served[i::5]) / statistics.median(own[i::5]) for i in range(5)]
    whole = statistics.median(served) / statistics.median(own)
    spent = processor(pid) - before
    print(
        f"idle, p50 of {args.calls}: predict {statistics.median(own):.1f} ms, served "
        f"{statistics.median(served):.1f} ms, ratio {whole:.3f} [{min(parts):.3f}, {max(parts):.3f}]; "
        f"processor {1000 * busy / args.calls:.1f} and {1000 * spent / args.calls:.1f} ms, ratio "
        f"{spent / busy:.3f}",
        flush=True,
    )


def bare(bank: Path, photo: Path, args: Any) -> tuple[float, float]:
    """Images a second of the session alone, decoded by threads, in batches; and ms of processor each."""
    session = open_session(bank, "cpu", args.threads)
    count, begun, busy = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < args.seconds:
        images = [Image.open(photo) for _ in range(32)]
        found = session.predict(
            images, adapter="a00", batch=args.batch, workers=args.decode_threads
        )
        count += sum(one.error is None for one in found)
    rate = count / (time.perf_counter() - begun)
    return rate, 1000 * (time.process_time() - busy) / count


def processor(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Resident, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def measure(bank: Path, photo: Path, paths: list[Path], args: Any) -> None:
    """All of a bank."""
    body = photo.read_bytes()
    urls = [f"/predict?adapter=a{i:02}" for i in range(args.adapters)]
    with server([bank], args) as (host, port, pid):
        idle(bank, photo, (host, port), pid, args)

        async def loads() -> None:
            pool, best = Pool(host, port, body), 0.0
            ratios: dict[str, list[float]] = {}
            for _ in range(args.rounds):
                rates, spent = [], []
                for some in (urls[:1], urls):
                    before = processor(pid)
                    load = await closed_loop(pool, some, args.clients, args.seconds)
                    spent.append(1000 * (processor(pid) - before) / load.statuses[200])
                    rates.append(load.statuses[200] / load.seconds)
                alone, own = await asyncio.to_thread(bare, bank, photo, args)
                best = max(best, rates[0])
                ratio = {
                    "images/s, many adapters over one": rates[1] / rates[0],
                    "images/s, one adapter over the bare session": rates[0] / alone,
                    "processor an image, many adapters over one": spent[1] / spent[0],
                    "processor an image, one adapter over the bare session": spent[0] / own,
                }
                for what, value in ratio.items():
                    ratios.setdefault(what, []).append(value)
                print(f"{rates[0]:.1f} {rates[1]:.1f} {alone:.1f}/s {spent} {own}", flush=True)
            for what, values in ratios.items():
                middle = statistics.median(values)
                print(f"saturation, {what}: {middle:.3f} [{min(values):.3f}, {max(values):.3f}]")
            counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= args.adapters]
            found: dict[int, list[Outcome]] = {count: [] for count in counts}
            for _ in range(args.rounds):
                for count in counts:
                    outcome = await open_loop(pool, urls[:count], args.share * best, args)
                    found[count].append(outcome)
                    print(f"open loop, {count:2} adapters: {outcome.row()}", flush=True)
            if args.plot:
                draw(found, Path(args.plot))
            if args.churn:
                admin = f"{host}:{port}", args.token
                await churn(pool, urls, args.churn_share * best, paths, admin, pid, args)
            pool.close()

        asyncio.run(loads())
        print(f"resident: {memory(pid):.0f} MB")


@plain_pictures()
def draw(found: dict[int, list[Outcome]], path: Path) -> None:
    """Latency and answers a second over the number of adapters: points are rounds, lines medians."""
    counts = list(found)
    figure = new_figure(8.0, 3.4)
    left, right = figure.subplots(1, 2)
    panels = (
        (left, "99th percentile", "#b8623b", lambda one: one.percentiles[1]),
        (left, "median", "#2a6f97", lambda one: one.percentiles[0]),
        (right, "answered", "#2a6f97", lambda one: one.served),
    )
    for panel, label, colour, value in panels:
        values = [[value(one) for one in found[count]] for count in counts]
        for i, ones in enumerate(values):
            panel.plot([i] * len(ones), ones, "o", color=colour, alpha=0.35, markersize=4)
        panel.plot([statistics.median(ones) for ones in values], color=colour, label=label)
    offered = statistics.fmean(one.offered for ones in found.values() for one in ones)
    right.axhline(offered, color="#6b7078", linestyle=":", label="offered")
    for panel, title in ((left, "latency, ms"), (right, "images a second")):
        panel.set_xticks(range(len(counts)), [str(count) for count in counts])
        panel.set_xlabel("adapters asked for")
        panel.set_title(title, loc="left")
        panel.set_ylim(0, 1.25 * panel.get_ylim()[1])  # room for the legend
        panel.legend(frameon=False, loc="upper right")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def measure_baked(bundles: list[Path], photo: Path, args: Any) -> None:
    """As many bundles of one adapter in one server, at saturation."""
    urls = [f"/predict?model={path.name.removesuffix('.vptk')}" for path in bundles]
    with server(bundles, args) as (host, port, pid):
        pool = Pool(host, port, photo.read_bytes())
        found = asyncio.run(closed_loop(pool, urls, args.clients, args.seconds))
        print(f"{len(bundles)} baked bundles: {found.statuses[200] / found.seconds:.1f}/s")
        print(f"resident: {memory(pid):.0f} MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        *(
            ("--model", "vit_tiny_patch16_224"),
            ("--adapters", 16),
            ("--prompts", 10),
            ("--threads", 1),
        ),
        *(("--batch", 8), ("--queue", 256), ("--clients", 24), ("--calls", 100), ("--rounds", 3)),
        *(("--churn", 0.0), ("--churn-share", 0.8), ("--token", "only-for-this-measurement")),
        *(
            ("--seconds", 10.0),
            ("--share", 0.6),
            ("--cv", 1.0),
            ("--alpha", 1.0),
            ("--decode-threads", 2),
        ),
    ):
        parser.add_argument(name, type=type(default), default=default)
    parser.add_argument("--baked", action="store_true")
    parser.add_argument("--plot", metavar="FILE", help="draw the open loop")
    args = parser.parse_args()
    if args.plot:
        require_plot(Path(args.plot), force=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, weights = adapters(args, folder)
        export_bank(paths, folder / "bank.vptk", weights=weights)
        photo = photograph(folder)
        measure(folder / "bank.vptk", photo, paths, args)
        if args.baked:
            bundles = [folder / f"{path.stem}.vptk" for path in paths]
            for path, bundle in zip(paths, bundles, strict=True):
                export(path, bundle, weights=weights)
            measure_baked(bundles, photo, args)


if __name__ == "__main__":
    main()
