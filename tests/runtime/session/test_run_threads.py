from __future__ import annotations

import pytest

from vptkit.runtime.session.run_threads import run_threads


@pytest.mark.parametrize("cores", range(1, 130))
def test_all_runs_together_take_no_more_than_the_cores_and_hardly_less(cores):
    threads, runs = run_threads(cores)
    assert 1 <= runs <= 4
    assert cores - 4 < threads * runs <= cores


def test_few_cores_have_a_run_each():
    assert [run_threads(cores) for cores in (1, 2, 4)] == [(1, 1), (1, 2), (1, 4)]
