"""A Python process on another machine, spoken with over the system's ssh.

One connection for everything, so a jump host or a slow login is paid once. ssh reads the user's own
configuration (hosts, keys, agents, jump hosts), and asks nothing: it has no terminal.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import GateError, MissingError, TargetError, VptkitError
from vptkit.shown_text import tell

from .board_agent import GRACE, MARKER, ROOT
from .board_messages import KINDS, MOST_LINE, read_message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Link", "connect"]

# A login may hold an @ itself, as user@realm@host. No name begins with -, which ssh would take for
# an option; "--" before it says the same once more.
_NAME = r"(?!-)[A-Za-z0-9._%-]+"
_HOST = re.compile(
    rf"(?P<name>(?:{_NAME}@)*(?:\[(?!-)[A-Za-z0-9._%:-]+\]|{_NAME}))(?::(?P<port>[0-9]{{1,5}}))?"
)
_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "LogLevel=ERROR",
)
_TOO_OLD = "vptkit needs Python 3.10 or newer there, this is"
# Python 2 reads this too. The agent's text comes on standard input: it is too long for a command
# line, and quotes mean something else in each shell.
_BOOT = (
    "import sys; sys.version_info >= (3, 10) or sys.exit("
    f'"{_TOO_OLD} %d.%d" % sys.version_info[:2]); '
    "sys.path[:] = filter(None, sys.path); "  # not what lies in the home folder
    "exec(sys.stdin.buffer.read(int(sys.argv[1])))"
)
_PATIENCE = 60.0  # seconds from ssh's start to the agent's first word
_WORDS = 12  # last lines of standard error that are kept for messages
_MOST_WORDS = 1024  # bytes of such a line; a longer one counts as several


class Link:
    """An open connection; `connect` makes one.

    Attributes:
        host: as the user wrote it.
        doing: what goes on, for the message if the connection is lost.
        board: what the agent said about its machine: {"python", "packages", "free"}.
    """

    def __init__(self, host: str, process: subprocess.Popen[bytes]) -> None:
        self.host, self.doing = host, ""
        self.board: dict[str, Any] = {}
        self._process = process
        self._words: deque[str] = deque(maxlen=_WORDS)
        self._open = False  # until then standard error belongs to ssh and the login shell
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def send(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            VptkitError: see `receive`.
        """
        try:
            self._input.write(data)
            self._input.flush()
        except BrokenPipeError:
            while True:  # its last line says why
                self.receive(*KINDS)

    def order(self, **order: object) -> None:
        """Send an order; see `vptkit.runtime.remote.board_agent`."""
        self.send(json.dumps(order).encode() + b"\n")

    def receive(self, *kinds: str) -> dict[str, Any]:
        """The next message from there.

        Args:
            kinds: what it may be, of `board_messages`.

        Raises:
            MissingError: the connection is lost, or never was.
            TargetError: it is none of these, or is malformed.
            VptkitError: something failed there, as it would have failed here.
        """
        while line := self._line():
            if not line.startswith(
                b"{"
            ):  # a program that a start-up file of the shell left running
                continue
            try:
                message = read_message(line, (*kinds, "error"), self.host)
            except TargetError:
                self._process.kill()  # it has lost the thread: nothing of it is waited for
                raise
            if "error" in message:
                raise _error(self.host, **message["error"])
            return message
        raise self._lost()

    def last_words(self) -> str:
        """The last lines of standard error there."""
        self._listener.join(timeout=1.0)
        return " | ".join(self._words) or "no message"

    def close(self) -> None:
        """End the process there, and wait for its end, so that nothing is left running.

        A second Ctrl-C ends the waiting.
        """
        patience = threading.Timer(GRACE + 10, self._process.kill)
        patience.daemon = True
        patience.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                self._input.close()
            while self._output.read(1 << 16):
                pass
        finally:
            patience.cancel()
            self._process.kill()
            self._process.wait()
            self._output.close()
            self._listener.join(timeout=1.0)

    def greet(self, source: bytes) -> None:
        """Start the agent.

        Raises:
            MissingError: no connection, no login, no fitting Python there.
        """
        patience = threading.Timer(_PATIENCE, self._process.kill)
        patience.daemon = True
        patience.start()
        try:
            self.send(source)
            while (line := self._line()).strip() != MARKER.encode():
                if not line:
                    raise self._lost()
            self._open = True
            self.board = self.receive("greeting")
        finally:
            patience.cancel()

    @property
    def _input(self) -> Any:
        return self._process.stdin

    @property
    def _output(self) -> Any:
        return self._process.stdout

    def _line(self) -> bytes:
        """The next line from there, empty at its end.

        Raises:
            TargetError: it is longer than any message.
        """
        line: bytes = self._output.readline(MOST_LINE + 1)
        if len(line) > MOST_LINE:
            self._process.kill()
            raise TargetError(f"{self.host}: sent a line of more than {MOST_LINE >> 20} MiB")
        return line

    def _listen(self) -> None:
        """Keep the last lines of standard error; pass on what the programs there write."""
        stderr: Any = self._process.stderr
        with stderr:
            while raw := stderr.readline(_MOST_WORDS):
                line = raw.decode(errors="replace").rstrip()
                self._words.append(line)
                if self._open:
                    tell(f"{self.host}: {line}")

    def _lost(self) -> VptkitError:
        status = self._process.wait()
        words = self.last_words()
        if not self._open:
            return _refusal(self.host, status, words)
        if status not in (255, -9):  # ssh's own, and ours
            return TargetError(
                f"{self.host}: the agent ended with {status} while {self.doing}: {words}"
            )
        return MissingError(
            f"{self.host}: the connection was lost while {self.doing} ({words}). What runs there "
            "is stopped when the board notices; files that came whole are kept for the next try. "
            f"To remove them: ssh {' '.join(_target(self.host))} 'rm -r {ROOT}'"
        )


@contextlib.contextmanager
def connect(
    host: str, *, python: str = "python3", ssh_options: Sequence[str] = ()
) -> Iterator[Link]:
    """Log in and start the agent there.

    Args:
        host: "host", "user@host" or "user@host:port"; a name of the user's ssh configuration too.
        python: the Python there, 3.10 or newer; "~/" is the home folder there.
        ssh_options: of ssh's -o, as "IdentityFile=KEY"; they come before our own.

    Yields:
        The open connection; leaving the block ends the process there and what it started.

    Raises:
        MissingError: no ssh here, no way there, no login, no fitting Python there.
        VptkitError: the host is not a name.
    """
    source = Path(__file__).with_name("board_agent.py").read_bytes()
    home, rest = ('"$HOME"/', python[2:]) if python.startswith("~/") else ("", python)
    command = f"exec {home}{shlex.quote(rest)} -c {shlex.quote(_BOOT)} {len(source)}"
    options = [part for option in (*ssh_options, *_OPTIONS) for part in ("-o", option)]
    try:
        process = subprocess.Popen(  # noqa: S603 -- no shell here; the one there gets quotes
            # Neither the user's agent nor the user's screen is the board's to use.
            ["ssh", "-T", "-a", "-x", *options, *_words(host), command],  # noqa: S607 -- the user's
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, who then end it in good order
        )
    except FileNotFoundError as error:
        raise MissingError(
            "no ssh on this machine, which --on needs: sudo apt install openssh-client"
        ) from error
    link = Link(host, process)
    try:
        link.greet(source)
        yield link
    except KeyboardInterrupt:
        tell(f"{host}: stopping what runs there")
        raise
    finally:
        link.close()


def _target(host: str) -> list[str]:
    """What ssh calls the host."""
    found = _HOST.fullmatch(host)
    if found is None:
        raise VptkitError(f"host is {host!r}, expected HOST, USER@HOST or USER@HOST:PORT")
    name = re.sub(r"\[(.*)\]", r"\1", found["name"])
    return ["-p", found["port"], name] if found["port"] else [name]


def _words(host: str) -> list[str]:
    """The same, where ssh must not take the name for an option."""
    *port, name = _target(host)
    return [*port, "--", name]


def _error(host: str, *, code: int, message: str) -> VptkitError:
    kinds = {kind.exit_code: kind for kind in (GateError, TargetError, MissingError)}
    return kinds.get(code, VptkitError)(f"{host}: {message}")


def _refusal(host: str, status: int, words: str) -> MissingError:
    """Why there is no agent."""
    target = " ".join(_target(host))
    if status == 255:
        return _no_login(host, target, words)
    if _TOO_OLD in words:
        return MissingError(f"{host}: {words}. Name a newer one: --python PATH")
    if status == 127 or "not found" in words:
        return MissingError(
            f"{host}: no such Python there ({words}). On the board: sudo apt install python3; or "
            "name one: --python PATH"
        )
    return MissingError(
        f"{host}: Python did not start there within {_PATIENCE:.0f} s, or ended with {status}: "
        f"{words}. Try by hand: ssh {target} python3 --version"
    )


def _no_login(host: str, target: str, words: str) -> MissingError:
    if "Permission denied" in words:
        return MissingError(
            f"{host}: the login was refused ({words}). Passwords are not asked for; let your key "
            f"in: ssh-copy-id {target}; or name a key: --ssh-option IdentityFile=PATH"
        )
    if "Host key verification failed" in words:
        return MissingError(
            f"{host}: this machine does not know that host's key, or knows another ({words}). "
            f"Log in once by hand and compare the key: ssh {target}"
        )
    return MissingError(f"{host}: cannot be reached: {words}. Try by hand: ssh {target}")
