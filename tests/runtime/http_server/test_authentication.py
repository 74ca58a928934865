"""Tokens, and who needs none."""

from __future__ import annotations

import pytest

from vptkit.errors import VptkitError
from vptkit.runtime.http_server.authentication import access_of, is_loopback, read_tokens
from vptkit.runtime.serving.http_error import HttpError

USER, ADMIN = "u" * 16, "a" * 16


@pytest.fixture
def files(tmp_path):
    (tmp_path / "users").write_text(f"# ours\n\n{USER}\n  {'v' * 20}\n")
    (tmp_path / "admins").write_text(ADMIN)
    return tmp_path / "users", tmp_path / "admins"


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def test_a_user_may_ask_and_an_admin_may_change(files):
    access = access_of("0.0.0.0", *files, open_to_all=False)
    for token in (USER, "v" * 20, ADMIN):
        access.require_user(bearer(token))
    access.require_admin(bearer(ADMIN))
    assert USER not in repr(access)


@pytest.mark.parametrize(
    "headers", [{}, bearer(""), bearer(USER[1:]), bearer(USER + "u"), {"authorization": USER}]
)
def test_others_may_not(files, headers):
    access = access_of("0.0.0.0", *files, open_to_all=False)
    for require in (access.require_user, access.require_admin):
        with pytest.raises(HttpError, match="Authorization: Bearer") as caught:
            require(headers)
        assert caught.value.status == 401
    with pytest.raises(HttpError):
        access.require_admin(bearer(USER))


def test_without_tokens_only_this_machine_may_ask_by_its_own_names():
    access = access_of("127.0.0.1", None, None, open_to_all=False)
    for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "[::1]"):
        access.require_user({"host": host})
    for host in ("", "evil.example", "127.0.0.1.evil.example:8000", "localhost.evil"):
        with pytest.raises(HttpError, match="not a name of this machine"):
            access.require_user({"host": host})
    with pytest.raises(HttpError, match="--admin-token-file") as caught:
        access.require_admin({"host": "localhost"} | bearer(ADMIN))
    assert caught.value.status == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "board.local"])
def test_other_hosts_need_a_token_or_a_word(host, files):
    assert not is_loopback(host)
    with pytest.raises(VptkitError, match=r"Pass --token-file FILE.*or --open"):
        access_of(host, None, files[1], open_to_all=False)
    access_of(host, None, None, open_to_all=True).require_user({"host": "anything"})
    with pytest.raises(VptkitError, match="pass one of them"):
        access_of(host, files[0], None, open_to_all=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no token"),
        ("# only\n", "no token"),
        ("short", "token 1 is short"),
        (f"{USER}\nwith a space in it", "token 2 is short or has odd letters"),
        ("ü" * 20, "odd letters"),
    ],
)
def test_a_file_of_tokens_that_is_none(tmp_path, text, message):
    (tmp_path / "t").write_text(text)
    with pytest.raises(VptkitError, match=message):
        read_tokens(tmp_path / "t")
