"""LoadGen's own files."""

from __future__ import annotations

import numpy as np
import pytest

from vptkit.errors import VptkitError
from vptkit.runtime.loadgen.loadgen_logs import read_answers, read_summary

SUMMARY = """Scenario : Server
Completed samples per second    : 98.50
Result is : INVALID
  Performance constraints satisfied : NO
  Min duration satisfied : Yes
Recommendations:
 * Reduce target QPS to improve latency.

================================================
Mean latency (ns)               : 1000000
50.00 percentile latency (ns)   : 2000000
99.90 percentile latency (ns)   : 9000000
"""


def test_verdict_and_reasons(tmp_path):
    (tmp_path / "mlperf_log_summary.txt").write_text(SUMMARY)
    found = read_summary(tmp_path)
    assert found["verdict"] == "INVALID"
    assert found["reasons"] == [
        "Performance constraints satisfied : NO",
        "Recommendations:",
        "* Reduce target QPS to improve latency.",
    ]
    assert found["ms"] == {"p50": 2.0, "mean": 1.0}
    assert found["images_per_s"] == 98.5


def test_a_run_that_did_not_end(tmp_path):
    (tmp_path / "mlperf_log_summary.txt").write_text("")
    with pytest.raises(VptkitError, match="did not end"):
        read_summary(tmp_path)


def log(folder, rows):
    lines = [
        f'{{ "seq_id" : {i}, "qsl_idx" : {number}, "data" : "{data}" }}'
        for i, (number, data) in enumerate(rows)
    ]
    (folder / "mlperf_log_accuracy.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


def test_answers_are_put_in_order(tmp_path):
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    log(tmp_path, [(i, rows[i].tobytes().hex().upper()) for i in (2, 0, 1)])
    assert (read_answers(tmp_path, 3, 2) == rows).all()


@pytest.mark.parametrize("rows", [[(0, "")], [(0, "0000803F")], [(5, "0000803F0000803F")], []])
def test_missing_and_short_answers(tmp_path, rows):
    log(tmp_path, rows)
    with pytest.raises(VptkitError, match="answer"):
        read_answers(tmp_path, 1, 2)
