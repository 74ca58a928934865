"""A load by Locust on a server that runs (docs/serving.md, "A standard load tool").

    python -m locust -f tests/benchmarks/locustfile.py --headless --host http://127.0.0.1:8000
        --users 40 --spawn-rate 40 --run-time 60s --image photo.jpg --rate 20

Arrivals are Poisson, --rate of them a second by all users together. Each user keeps its own timetable
and does not shift it when an answer is late; but it has one request on its way at a time, so the loop
is open as long as there are more users than requests on their way. What comes late for want of users
is counted ("late for want of users").

Adapters are drawn by a power law (--alpha). Every answer is compared with the logits that the server
gave at the start: another adapter's are a failure. 503 is an answer that clients are told to expect:
it has a row of its own and is no failure.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from locust import FastHttpUser, events, task

from tests.benchmarks.golden_answers import GoldenAnswers, logits_of

LATE = 0.05  # seconds behind the timetable that are counted


@events.init_command_line_parser.add_listener
def add_options(parser, **_):
    parser.add_argument("--image", default="photo.jpg", help="an encoded image, sent each time")
    parser.add_argument("--model", default="", help="its name, where there are several")
    parser.add_argument("--adapters", type=int, default=64, help="ask for the first so many")
    parser.add_argument("--alpha", type=float, default=0.5, help="of the power law; 1 is uniform")
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second of all users")
    parser.add_argument("--token", default=os.environ.get("VPTKIT_TOKEN", ""), is_secret=True)


@events.test_start.add_listener
def ask_golden(environment, **_):
    options = environment.parsed_options
    environment.golden = GoldenAnswers(
        environment.host, options.model, Path(options.image), options.adapters, options.token
    )
    environment.late = 0


@events.quitting.add_listener
def tell_late(environment, **_):
    print(f"late for want of users: {getattr(environment, 'late', 0)}")


class Asker(FastHttpUser):
    """Asks at the times of its own Poisson process."""

    network_timeout = connection_timeout = 60.0

    def on_start(self):
        self.rng = np.random.default_rng()
        options = self.environment.parsed_options
        self.gap = (options.num_users or 1) / options.rate
        self.due = time.monotonic()
        time.sleep(self.wait_time())  # gevent's

    def wait_time(self):
        self.due += self.rng.exponential(self.gap)
        behind = time.monotonic() - self.due
        self.environment.late += behind > LATE
        return max(0.0, -behind)

    @task
    def ask(self):
        golden = self.environment.golden
        name = golden.draw(self.rng, self.environment.parsed_options.alpha)
        request = {"data": golden.bodies[name], "headers": golden.headers, "name": "infer"}
        with self.client.post(golden.path, catch_response=True, **request) as answer:
            if answer.status_code == 503:
                answer.request_meta["name"] = "infer, refused by 503"
                answer.success()
            elif answer.status_code != 200:
                answer.failure(f"{answer.status_code}: {(answer.text or '')[:200]}")
            elif not golden.is_right(name, logits_of(answer.json())):
                answer.failure(f"the logits are not those of {name}")
