"""Logging in over ssh: what can go wrong, and what is said then."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.sshd import server  # noqa: F401 -- a fixture
from vptkit.errors import MissingError, TargetError, VptkitError
from vptkit.runtime.remote.board_agent import MARKER
from vptkit.runtime.remote.ssh_link import connect


@pytest.fixture
def greeted(server):  # noqa: F811
    """A function that connects and gives what the agent said."""

    def greet(**more):
        defaults = {"python": sys.executable, "ssh_options": server.options}
        with connect(server.host, **defaults | more) as link:
            return link.board

    yield greet
    server.wait_until_idle()
    (server.home / ".profile").unlink(missing_ok=True)


@pytest.fixture
def script(tmp_path):
    """A function that writes a shell script and gives its path."""

    def write(text):
        path = tmp_path / "script"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_the_receiver_knows_its_machine(greeted):
    board = greeted()
    assert board["python"] == sys.version.split()[0]
    assert {"numpy", "safetensors"} <= set(board["packages"])
    assert board["free"] > 0


def test_noise_of_the_login_shell_is_no_answer(server, greeted, capsys):  # noqa: F811
    noise = "echo Welcome\necho '{\"error\": 1}'\necho noise >&2\nprintf 'no end of line'\n"
    (server.home / ".profile").write_text(noise)
    assert greeted()["free"] > 0
    assert capsys.readouterr().err == ""


def test_what_lies_in_the_home_folder_is_not_imported(server, greeted):  # noqa: F811
    (server.home / "json.py").write_text("raise RuntimeError('not the real json')\n")
    try:
        assert greeted()["free"] > 0
    finally:
        (server.home / "json.py").unlink()


def test_what_is_written_to_standard_error_there_is_passed_on(server, greeted, script, capsys):  # noqa: F811
    greeted(python=script(f'{sys.executable} "$@"; echo farewell >&2'))
    assert capsys.readouterr().err == f"{server.host}: farewell\n"


def test_a_wrong_key(server, greeted):  # noqa: F811
    key = Path(server.options[0].partition("=")[2]).with_name("other_key")
    with pytest.raises(MissingError, match=r"refused.*ssh-copy-id -p \d+ 127.0.0.1") as caught:
        greeted(ssh_options=(f"IdentityFile={key}", *server.options[1:]))
    assert caught.value.exit_code == 5


def test_a_host_that_is_not_known(server, greeted):  # noqa: F811
    options = ("UserKnownHostsFile=/dev/null", *server.options)
    with pytest.raises(MissingError, match=r"host's key.*Log in once by hand"):
        greeted(ssh_options=options)


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(MissingError, match=rf"{host}: cannot be reached.*refused"),
            connect(host),
        ):
            pass


@pytest.mark.parametrize(
    "host",
    [
        *("-oProxyCommand=true", "[-oProxyCommand=true]", "me@-oProxyCommand=true"),
        *("a b", "", "host:", "host:22:23", "[::1", "-", "--", "@host", "host;id", "host$x"),
        *("host\n", "h\x00st", "hóst", "host/x", "me@-a@host", "host:٢٢", "host:222222"),
    ],
)
def test_what_is_not_a_host(host):
    with pytest.raises(VptkitError, match="expected HOST"), connect(host):
        pass


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("board", ["board"]),
        ("me@board", ["me@board"]),
        ("me@board:22", ["-p", "22", "me@board"]),
        ("me@[fe80::1]:22", ["-p", "22", "me@fe80::1"]),
        ("[fe80::1]", ["fe80::1"]),
        ("[fe80::1%eth0]", ["fe80::1%eth0"]),
        ("me@realm@board-1.lan", ["me@realm@board-1.lan"]),
    ],
)
def test_what_ssh_is_told(host, target, monkeypatch, script):
    ssh = Path(script('echo "$@" >&2; exit 255'))
    ssh.rename(ssh.with_name("ssh"))
    monkeypatch.setenv("PATH", str(ssh.parent))
    with pytest.raises(MissingError) as caught, connect(host, ssh_options=["Compression=yes"]):
        pass
    told = str(caught.value)
    assert f" {' '.join([*target[:-1], '--', target[-1]])} exec python3 -c " in told
    assert "-T -a -x " in told
    assert told.index("-o Compression=yes") < told.index("-o BatchMode=yes")


# What another machine says -------------------------------------------------------------------------

GREETING = '{"python": "3.10.12", "packages": ["numpy"], "free": 1}'


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A function: what an ssh writes, as a Python program, after the agent was greeted."""

    def write(body):
        path = tmp_path / "bin/ssh"
        path.parent.mkdir(exist_ok=True)
        hello = f"import sys\nw = sys.stdout.write\nw('\\n{MARKER}\\n')\n"
        path.write_text(f"#!{sys.executable}\n{hello}{body}\nsys.stdout.flush()\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent))

    return write


@pytest.mark.parametrize(
    "greeting",
    [
        *(
            '{"python": 3, "packages": [], "free": 1}',
            '{"python": "3", "packages": [], "free": -1}',
        ),
        *('{"python": "3", "packages": [[]], "free": 1}', '{"free": 1}', '{"error": 1}', "{"),
        *('{"error": {"code": "x", "message": "y"}}', '{"error": {"code": 2}}', '{"free": NaN}'),
        *('{"a": ' * 100_000, GREETING[:-1] + ', "more": 1}', "{" + "9" * 5000 + "}"),
        GREETING.replace("1}", "9" * 400 + "}"),
    ],
    ids=range(13),
)
def test_a_greeting_that_is_none(stranger, greeting):
    stranger(f"w({greeting!r} + '\\n')")
    with pytest.raises(TargetError, match="board: "), connect("board"):
        pass


def test_a_line_without_an_end(stranger, monkeypatch):
    """It took memory without bound, before the greeting and after it."""
    monkeypatch.setattr("vptkit.runtime.remote.ssh_link.MOST_LINE", 1 << 20)
    endless = "while True: w('x' * 65536)"
    for body in (endless, f"w({GREETING!r} + '\\n')\n{endless}"):
        stranger(body)
        with (
            pytest.raises(TargetError, match="board: sent a line of more than 1 MiB"),
            connect("board") as link,
        ):
            link.receive("exit")


def test_words_without_an_end_of_line(stranger):
    """On standard error: only the last of them are kept, in pieces."""
    stranger("sys.stderr.write('y' * 1_000_000)\nsys.exit(3)")
    with pytest.raises(TargetError, match="ended with 3") as caught, connect("board"):
        pass
    assert len(str(caught.value)) < 20_000


def test_a_message_that_was_not_expected(stranger):
    stranger(f"""w({GREETING!r} + '\\n{{"exit": 0}}\\n')""")
    with (
        pytest.raises(TargetError, match=r'board: sent a message of \["exit"\], expected missing'),
        connect("board") as link,
    ):
        link.receive("missing")


def test_nobody_answers(monkeypatch, script):
    ssh = Path(script("exec /bin/cat >&2"))
    ssh.rename(ssh.with_name("ssh"))
    monkeypatch.setenv("PATH", str(ssh.parent))
    monkeypatch.setattr("vptkit.runtime.remote.ssh_link._PATIENCE", 0.2)
    with pytest.raises(MissingError, match=r"did not start there within 0 s"), connect("board"):
        pass


def test_there_is_no_ssh(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingError, match="openssh-client"), connect("board"):
        pass


def test_there_is_no_python(greeted):
    with pytest.raises(MissingError, match=r"no such Python.*--python PATH"):
        greeted(python="python-of-nowhere")


def test_python_is_too_old(greeted, script):
    # The real text, and a Python that says it is older.
    old = (
        f'code="$2"; shift 2; exec {sys.executable} -c "import sys; '
        'sys.version_info = (3, 8, 10); $code" "$@"'
    )
    with pytest.raises(MissingError, match=r"needs Python 3.10 or newer there, this is 3.8"):
        greeted(python=script(old))


def test_the_shell_ends_at_once(greeted, script):
    with pytest.raises(MissingError, match=r"ended with 3: this account is closed"):
        greeted(python=script("echo this account is closed >&2; exit 3"))


def test_the_home_folder_cannot_be_written(server, greeted):  # noqa: F811
    (server.home / "file").touch()
    (server.home / ".profile").write_text('export HOME="$HOME/file"\n')
    with pytest.raises(VptkitError, match=re.escape(f"{server.host}: {server.home}/file/.cache")):
        greeted()


def test_the_receiver_dies(server, greeted, script):  # noqa: F811
    python = script(f'{sys.executable} "$@"; echo farewell >&2; exit 7')
    with connect(server.host, python=python, ssh_options=server.options) as link:
        (agent,) = [p for p, line in server.processes().items() if line.startswith(sys.executable)]
        os.kill(agent, signal.SIGKILL)
        link.doing = "nothing was done"
        with pytest.raises(TargetError, match=r"ended with 7 while nothing was done.*farewell"):
            link.receive("exit")
