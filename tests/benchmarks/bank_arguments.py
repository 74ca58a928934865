"""What `bank_cpu` and `bank_deltas_cpu` are both asked."""

from __future__ import annotations

import argparse

from vptkit.devices.probes.machine import detect_machine

__all__ = ["bank_parser"]


def bank_parser(*, model: str, adapters: int) -> argparse.ArgumentParser:
    """A parser of the options that they share; each has its own model and number of adapters."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=model)
    parser.add_argument("--adapters", type=int, default=adapters)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time: for a busy machine"
    )
    parser.add_argument("--last-block", default="auto")
    parser.add_argument("--threads", type=int, default=detect_machine()["cores"])
    return parser
