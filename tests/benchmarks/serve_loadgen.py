"""MLPerf LoadGen's Server scenario on a server that runs (docs/serving.md, "A standard load tool").

    python -m tests.benchmarks.serve_loadgen --host http://127.0.0.1:8000 --image photo.jpg
        --rate 12 --latency-ms 500 --seconds 60 --log-folder logs

LoadGen draws Poisson arrivals, measures, and writes its log files; its summary and verdict are shown as
they are. It knows of no refusals, so an answer that is a 503, an error or another adapter's is
counted here: then the exit status is 1, whatever the verdict says.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlperf_loadgen as loadgen
import numpy as np

from tests.benchmarks.golden_answers import GoldenAnswers, logits_of

SAMPLES = 1024  # an adapter each


class Client:
    """What LoadGen tests: requests over connections that are kept, one a thread."""

    def __init__(self, golden: GoldenAnswers, host: str, args: Any) -> None:
        rng = np.random.default_rng(args.seed)
        self.golden, self.place = golden, urlsplit(host).netloc
        self.adapters = [golden.draw(rng, args.alpha) for _ in range(SAMPLES)]
        self.threads = ThreadPoolExecutor(args.connections)
        self.kept = threading.local()
        self.outcomes: Counter[str] = Counter()
        self.lock = threading.Lock()

    def issue(self, samples: list[Any]) -> None:
        """Begin to ask; LoadGen does not wait for it."""
        for sample in samples:
            self.threads.submit(self._answer, sample.id, self.adapters[sample.index])

    def _answer(self, number: int, adapter: str) -> None:
        try:
            outcome = self._ask(adapter)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            outcome = f"failed: {type(error).__name__}"
            self.kept.connection = None
        with self.lock:
            self.outcomes[outcome] += 1
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(number, 0, 0)])

    def _ask(self, adapter: str) -> str:
        connection = getattr(self.kept, "connection", None)
        if connection is None:
            connection = self.kept.connection = http.client.HTTPConnection(self.place, timeout=60)
        golden = self.golden
        connection.request("POST", golden.path, golden.bodies[adapter], golden.headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            return f"status {answer.status}"
        right = golden.is_right(adapter, logits_of(json.loads(content)))
        return "right" if right else "of the wrong adapter"


def settings_of(args: Any) -> Any:
    """The bounds; MLPerf's own numbers of queries are for machines that take thousands a second."""
    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.Server
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = args.rate
    settings.server_target_latency_ns = int(args.latency_ms * 1e6)
    settings.server_target_latency_percentile = args.percentile
    settings.min_duration_ms = int(args.seconds * 1000)
    settings.min_query_count = args.queries
    return settings


def main() -> None:
    """Ask, and show what LoadGen found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="http://127.0.0.1:8000")
    parser.add_argument("--image", type=Path, required=True)
    for name, default, what in (
        ("--model", "", "its name, where there are several"),
        ("--token", "", "of a user"),
        ("--adapters", 64, "ask for the first so many"),
        ("--alpha", 0.5, "of the power law; 1 is uniform"),
        ("--rate", 10.0, "requests a second"),
        ("--latency-ms", 500.0, "that the percentile must keep"),
        ("--percentile", 0.99, "a share"),
        ("--seconds", 60.0, "at least"),
        ("--queries", 100, "at least"),
        ("--connections", 64, "at most"),
        ("--seed", 0, "of the adapters"),
    ):
        parser.add_argument(name, type=type(default), default=default, help=what)
    parser.add_argument("--log-folder", type=Path, default=Path("loadgen-logs"))
    args = parser.parse_args()
    golden = GoldenAnswers(args.host, args.model, args.image, args.adapters, args.token)
    client = Client(golden, args.host, args)
    args.log_folder.mkdir(parents=True, exist_ok=True)
    logs = loadgen.LogSettings()
    logs.log_output.outdir = str(args.log_folder)
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False
    system = loadgen.ConstructSUT(client.issue, lambda: None)
    library = loadgen.ConstructQSL(SAMPLES, SAMPLES, lambda _: None, lambda _: None)
    loadgen.StartTestWithLogSettings(system, library, settings_of(args), logs)
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(system)
    client.threads.shutdown()
    print((args.log_folder / "mlperf_log_summary.txt").read_text())
    print(f"answers: {dict(client.outcomes)}; log files: {args.log_folder}")
    sys.exit(set(client.outcomes) != {"right"})


if __name__ == "__main__":
    main()
