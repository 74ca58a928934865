"""What the routes of a server share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .recent_requests import RecentRequests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from vptkit.runtime.serving.metrics import Metrics
    from vptkit.runtime.serving.model_store import ModelStore

    from .authentication import Access
    from .request_limits import BodyLimits
    from .request_log import RequestLog, RequestRecord

    Handler = Callable[["ServerState", Request, RequestRecord], Awaitable[Response]]

__all__ = ["BankEditor", "ServerState"]


class BankEditor(Protocol):
    """What `vptkit bank add`, `replace` and `remove` call."""

    def add(self, bundle: str | Path, adapter: str | Path, *, name: str | None = None) -> str:
        """Add an adapter."""

    def replace(self, bundle: str | Path, adapter: str | Path, *, name: str | None = None) -> str:
        """Put another adapter in the place of one."""

    def remove(self, bundle: str | Path, name: str) -> None:
        """Remove an adapter."""


@dataclass(slots=True, eq=False, kw_only=True)
class ServerState:
    """What the routes share.

    Attributes:
        store: the models.
        access: who may ask.
        limits: of bodies.
        metrics, log: told of each request.
        seconds: that a request may take behind its body.
        decoders: threads that decode.
        editor: changes banks; None where nobody may.
        page: whether there is one at /ui/.
        recent: told of each request, too, for that page.
        draining: no further work is taken.
        active: requests that are on their way, those of probes left out.
    """

    store: ModelStore
    access: Access
    limits: BodyLimits
    metrics: Metrics
    log: RequestLog
    seconds: float = 10.0
    decoders: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))
    editor: BankEditor | None = None
    page: bool = False
    recent: RecentRequests = field(default_factory=RecentRequests)
    draining: bool = False
    active: int = 0
