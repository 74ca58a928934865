from __future__ import annotations

import contextlib
import logging
import os
import sys

from vptkit.cluster.quiet_ray import quiet


def test_quiet_is_over_afterwards(capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"relative{os.pathsep}/absolute")
    monkeypatch.setenv("RAY_X", "old")
    before = dict(os.environ)
    with contextlib.suppress(KeyError), quiet({"RAY_X": "new"}):
        assert os.environ["RAY_X"] == "new"
        assert os.environ["PYTHONPATH"] == "/absolute"
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        sys.stdout.write("out")
        sys.stderr.write("error")
        logging.getLogger("ray").error("logged")
        raise KeyError
    assert capsys.readouterr() == ("", "")
    assert dict(os.environ) == before
    assert logging.root.manager.disable == logging.NOTSET
