"""Files of the page, the state that it shows, and who gets them."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("tests.support.serving")

from tests.support.serving import encoded, served
from vptkit.runtime.http_server.page_routes import PLACE

IMAGE = encoded(np.zeros((8, 8, 3), np.uint8))


def test_without_the_option_there_is_no_page(make_bundle):
    with served([make_bundle()]) as ask:
        assert [ask("GET", place).status_code for place in ("/", "/ui/", "/ui/state")] == [404] * 3


def test_the_page_asks_nobody_else(make_bundle):
    with served([make_bundle()], page=True) as ask:
        assert ask("GET", "/").headers["location"] == "ui/"
        found = ask("GET", PLACE)
        assert found.headers["content-type"].startswith("text/html")
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"(src|href)=\"(?!data:)[^\"]*//", found.text)
        own = re.findall(r"(?:src|href)=\"([a-z_]+\.\w+)\"", found.text)
        assert sorted(own) == ["page.css", "page.js"]
        script = ask("GET", PLACE + "page.js")
        assert script.headers["content-type"].startswith("text/javascript")
        modules = re.findall(r"from \"\./(\w+\.js)\"", script.text)
        assert modules == ["source.js", "words.js"]
        assert [ask("GET", PLACE + module).status_code for module in modules] == [200, 200]
        for name in ("index.html", "..%2Fapplication.py", "none.js", "graph_worker.js"):
            assert ask("GET", PLACE + name).status_code == 404


def test_the_state_is_that_of_the_server(make_bundle):
    with served([make_bundle()], page=True) as ask:
        before = ask("GET", PLACE + "state").json()
        assert before["models"] == [
            {
                "name": "tiny-0",
                "layout": "baked",
                "adapters": ["tiny"],
                "backend": "cpu",
                "held": 0,
                "size": 256,
            }
        ]
        assert (before["ready"], before["editable"], before["requests"]) == (True, False, 0)
        assert ask("POST", "/predict", content=IMAGE).status_code == 200
        assert ask("POST", "/predict", content=b"broken").status_code == 400
        after = ask("GET", PLACE + "state").json()
        assert (after["requests"], after["failed"]) == (2, 1)
        assert 0 < after["p50_ms"] <= after["p99_ms"]


def test_who_may_not_ask_is_not_told_the_state(make_bundle, tmp_path):
    (tmp_path / "tokens").write_text("0123456789abcdef0123456789abcdef\n")
    with served([make_bundle()], page=True, token_file=tmp_path / "tokens") as ask:
        assert ask("GET", PLACE).status_code == 200
        assert ask("GET", PLACE + "state").status_code == 401
    with served([make_bundle()], page=True) as ask:
        elsewhere = {"host": "evil.example"}
        assert ask("GET", PLACE + "state", headers=elsewhere).status_code == 403
