"""From the settings of `vptkit serve` to its last answer: sessions opened, requests answered, drained.

HTTP is uvicorn's with h11, both in Python alone; the routes are Starlette's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vptkit.devices.probes.machine import usable_cores
from vptkit.errors import VptkitError
from vptkit.formats.bundle_files import folder_name
from vptkit.runtime.serving.metrics import Metrics
from vptkit.runtime.serving.model_store import ModelStore
from vptkit.runtime.serving.served_model import ServedModel
from vptkit.runtime.session.factory import open_session
from vptkit.shown_text import tell

from .application import Application
from .authentication import access_of
from .request_limits import BodyLimits
from .request_log import RequestLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .authentication import Access
    from .server_state import BankEditor

__all__ = ["ServerSettings", "bound_socket", "open_application", "serve_bundles", "uvicorn_server"]

_CONNECTIONS = 1024
_IDLE = 30  # seconds that an idle connection is kept, and that headers may take
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What `vptkit serve` is told.

    Attributes:
        host, port: where to listen; port 0 is any free one.
        token_file, admin_token_file, open_to_all: of `authentication.access_of`.
        backend, threads, trust_engines: of `open_session`.
        max_batch: images of a run; None for 8, or the bundle's own.
        max_wait_ms: that an image waits for others which are being decoded.
        queue_size: images of a model.
        timeout_ms: for a body, and for the answer behind it.
        max_body_mb: of one request.
        decode: how images are decoded, "exact" or "fast"; exactly unless given.
        decode_threads: None for all usable cores.
        log_requests: a line each on standard error.
        page: a page for browsers at /ui/.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    admin_token_file: Path | None = None
    open_to_all: bool = False
    backend: str | None = None
    threads: int | None = None
    trust_engines: bool = False
    max_batch: int | None = None
    max_wait_ms: float = 2.0
    queue_size: int = 256
    timeout_ms: float = 10_000.0
    max_body_mb: float = 32.0
    decode: str | None = None
    decode_threads: int | None = None
    log_requests: bool = False
    page: bool = False


def serve_bundles(
    bundles: Sequence[Path],
    settings: ServerSettings | None = None,
    *,
    editor: BankEditor | None = None,
    ready: Callable[[Application, str], None] | None = None,
) -> None:
    """Serve bundles until a signal asks for the end.

    The first SIGTERM or SIGINT lets no further request in and waits for those that are on their way;
    a second one ends the process.

    Args:
        bundles: a model each.
        settings: the defaults unless given.
        editor: changes banks for an admin, as `vptkit.export.bank.edit_bank`.
        ready: told of the application and its address when it answers.

    Raises:
        VptkitError: the address is taken, others could ask without a token, two bundles have the same
            name, or a bundle cannot be opened.
    """
    settings = settings or ServerSettings()
    _access(settings)  # before anybody can ask
    listener = bound_socket(settings.host, settings.port)
    with contextlib.closing(listener), _opened(bundles, settings, editor) as application:
        server = uvicorn_server(application)
        application.store.watch()
        if ready is not None:
            ready(application, address_of(listener))
        asyncio.run(_run(server, application, listener, settings.timeout_ms / 1000))


def open_application(
    bundles: Sequence[Path], settings: ServerSettings, *, editor: BankEditor | None = None
) -> Application:
    """The application of some bundles; whoever calls this closes its store.

    Raises:
        VptkitError: see `serve_bundles`.
    """
    access = _access(settings)
    metrics = Metrics()
    store = ModelStore((_model(path, settings, metrics) for path in bundles), metrics.change)
    threads = settings.decode_threads or usable_cores()
    seconds = settings.timeout_ms / 1000
    return Application(
        store=store,
        access=access,
        limits=BodyLimits(int(settings.max_body_mb * 1e6), seconds),
        metrics=metrics,
        log=RequestLog(sys.stderr if settings.log_requests else None),
        seconds=seconds,
        decoders=ThreadPoolExecutor(threads, thread_name_prefix="vptkit-decode"),
        editor=editor if settings.admin_token_file is not None else None,
        page=settings.page,
    )


def uvicorn_server(application: Application) -> uvicorn.Server:
    """A server that answers by an application, and hears no signals itself."""
    config = uvicorn.Config(
        application.asgi(),
        http=_PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=max(1, int(application.seconds)),
    )
    return _DeafServer(config)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        VptkitError: the name is unknown, or the port is taken.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as stack:
            # asyncio lets answers go at once (TCP_NODELAY) only where the protocol is named; else the
            # end of an answer waits for the client's delayed acknowledgement, 40 ms on Linux
            listener = stack.enter_context(
                socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            )
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(_CONNECTIONS)  # who comes before the models are loaded waits
            stack.pop_all()
            return listener
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise VptkitError(
            f"--host {host} --port {port}: cannot listen there: {why}. Pass another --port, 0 for any "
            "free one."
        ) from error


def address_of(listener: socket.socket) -> str:
    """As "http://127.0.0.1:8000"."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _DeafServer(uvicorn.Server):
    """Signals are `_run`'s."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _PatientProtocol(H11Protocol):
    """A connection whose headers do not come in time is closed: uvicorn would wait for ever."""

    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._clock = self.loop.call_later(_IDLE, self.transport.close)

    def data_received(self, data: bytes) -> None:
        """Stop waiting when the headers are there; of a further request on the connection, begin."""
        before = self.cycle
        super().data_received(data)
        waits = getattr(self.cycle, "response_complete", True)  # there is none at first
        if self._clock is not None and not waits:
            self._clock.cancel()
            self._clock = None
        elif self._clock is None and waits and self.cycle is before:
            self._clock = self.loop.call_later(_IDLE, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clock."""
        if self._clock is not None:
            self._clock.cancel()
        super().connection_lost(exc)


@contextlib.contextmanager
def _opened(
    bundles: Sequence[Path], settings: ServerSettings, editor: BankEditor | None
) -> Iterator[Application]:
    application = open_application(bundles, settings, editor=editor)
    try:
        yield application
    finally:
        application.store.close(timeout=settings.timeout_ms / 1000)
        application.decoders.shutdown(wait=False, cancel_futures=True)


def _access(settings: ServerSettings) -> Access:
    return access_of(
        settings.host,
        settings.token_file,
        settings.admin_token_file,
        open_to_all=settings.open_to_all,
    )


def _model(path: Path, settings: ServerSettings, metrics: Metrics) -> ServedModel:
    name = folder_name(path.resolve())
    session = open_session(
        path, settings.backend, settings.threads, trust_engines=settings.trust_engines
    )
    if settings.backend in (None, "auto"):
        tell(f"{name}: backend {session.backend}: {session.choice}")
    return ServedModel(
        name,
        session,
        max_batch=settings.max_batch,
        decode=settings.decode,
        max_wait=settings.max_wait_ms / 1000,
        size=settings.queue_size,
        observed=metrics.runs_of(name),
    )


async def _run(
    server: uvicorn.Server, application: Application, listener: socket.socket, seconds: float
) -> None:
    """Answer until a signal asks for the end, and then what is on its way."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def hear() -> None:
        if asked.is_set():
            os.write(2, b"interrupted\n")
            os._exit(130)
        application.draining = True
        asked.set()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, hear)
    drain = asyncio.ensure_future(_drain(server, application, asked, seconds))
    try:
        await server.serve(sockets=[listener])
    finally:
        drain.cancel()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def _drain(
    server: uvicorn.Server, application: Application, asked: asyncio.Event, seconds: float
) -> None:
    """Wait for the signal, then for the requests that are on their way; probes see it meanwhile."""
    await asked.wait()
    tell(f"draining: {application.active} requests are on their way")
    end = asyncio.get_running_loop().time() + 2 * seconds
    while application.active and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.02)
    server.should_exit = True
