"""Queries in, answers out, without LoadGen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vptkit.errors import GateError
from vptkit.runtime.loadgen.query_answers import QueryAnswers
from vptkit.runtime.loadgen.sample_library import HeldSamples


class Stub:
    """Of LoadGen: who was answered, with how many bytes, in how many goes."""

    def __init__(self):
        self.goes = []
        self.QuerySampleResponse = lambda number, _, size: (number, size)

    def QuerySamplesComplete(self, answers):  # noqa: N802
        self.goes.append(answers)


class Echo:
    """A session whose logits are the first pixel, and that says whom it asked."""

    def __init__(self, bad=None):
        self.asked, self.bad = [], bad

    def run(self, images, adapter=None):
        self.asked.append((len(images), adapter))
        if self.bad is not None:
            return np.full((len(images), 2), self.bad, np.float32)
        return images[:, 0, 0, :2].astype(np.float32)


def queries(count):
    return [SimpleNamespace(id=100 + i, index=i % 4) for i in range(count)]


def system(loadgen, session, **options):
    return QueryAnswers(loadgen, session, HeldSamples(np.zeros((4, 2, 2, 3), np.uint8)), **options)


def test_a_queue_is_answered_in_batches_that_mix_adapters():
    loadgen, session = Stub(), Echo()
    answers = system(loadgen, session, adapters=("a", "b"), batch=3)
    answers.issue(queries(7))
    answers.close()
    assert sorted(id_ for go in loadgen.goes for id_, _ in go) == [100 + i for i in range(7)]
    assert max(count for count, _ in session.asked) <= 3
    assert all(len(names) == count for count, names in session.asked)
    assert {name for _, names in session.asked for name in names} == {"a", "b"}


def test_a_query_is_one_batch_where_it_comes():
    loadgen, session = Stub(), Echo()
    answers = system(loadgen, session, keep=True)
    answers.issue(queries(8))
    assert session.asked == [(8, None)]
    assert loadgen.goes == [[(100 + i, 8) for i in range(8)]]
    answers.close()


def test_an_error_is_kept_until_the_end_and_everybody_is_answered():
    loadgen = Stub()
    answers = system(loadgen, Echo(bad=np.nan), keep=True, batch=2)
    answers.issue(queries(5))
    with pytest.raises(GateError, match="NaN"):
        answers.close()
    assert sum(len(go) for go in loadgen.goes) == 5
    assert {size for go in loadgen.goes for _, size in go} == {0}
