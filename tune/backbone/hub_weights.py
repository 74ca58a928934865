"""timm's own weights, from the cache or from Hugging Face's hub; one line where it is out of reach.

huggingface_hub tries a dead network for a minute, and writes each try on the terminal. So a file
that is in the cache is taken without asking anybody, and before anything is fetched the place is
asked once, for seconds.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import timm

from vptkit.atomic_files import sha256_of_file
from vptkit.checkpoints.weights_files import weights_file
from vptkit.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["hub_repository", "model_of_hub", "weights_origin"]

_SECONDS = 8.0  # for the first answer, looking up the name of the host included
_FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
_TALKERS = ("huggingface_hub", "urllib3", "timm", "httpx", "httpcore", "filelock")


def hub_repository(name: str) -> str | None:
    """The repository of a model's weights, such as timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k."""
    settings = timm.get_pretrained_cfg(name, allow_unregistered=False)
    found = getattr(settings, "hf_hub_id", None)
    return str(found) if found else None


def weights_origin(name: str, weights: Path | None) -> dict[str, Any]:
    """What an adapter keeps of where its backbone's weights came from: no path, that is private.

    Args:
        name: of the timm model.
        weights: the file or folder that was read, None for the hub.
    """
    if weights is None:
        return {"hub": hub_repository(name)}
    file = weights_file(weights)
    return {"file": file.name, "sha256": sha256_of_file(file)}


def model_of_hub(name: str, args: Mapping[str, Any]) -> Any:
    """A timm model with its own weights, without classifier.

    Raises:
        BackboneError: timm has no weights of this name, or they are neither in the cache nor to be
            had: with the page to fetch them from by other means.
    """
    try:
        repository = hub_repository(name)
    except (RuntimeError, ValueError) as error:  # an unknown tag
        raise BackboneError(f"{name}: {error}") from error
    settings = timm.get_pretrained_cfg(name, allow_unregistered=False)
    url = getattr(settings, "url", None)
    if repository is None and not url:
        raise BackboneError(
            f"{name}: timm has no weights of this name. Pass --weights FILE.safetensors, or another "
            "backbone (vptkit backbones lists which have some)"
        )
    cached = repository is not None and _is_cached(repository)
    page = _page(repository) if repository is not None else str(url)
    if not cached:
        reason = _offline() or _out_of_reach(page)
        if reason is not None:
            raise _unreachable(name, page, reason)
    try:
        with _quietly(offline=cached):
            return timm.create_model(name, pretrained=True, num_classes=0, **args)
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(name, page, type(error).__name__) from error


def _unreachable(name: str, page: str, reason: str) -> BackboneError:
    return BackboneError(
        f"{name}: its weights could not be fetched ({reason}). Fetch {page} by other means, then "
        f"pass --weights {page.rsplit('/', 1)[-1]}"
    )


def _page(repository: str) -> str:
    from huggingface_hub import constants

    name, _, revision = repository.partition("@")
    return f"{constants.ENDPOINT}/{name}/resolve/{revision or 'main'}/{_FILES[0]}"


def _is_cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repository.partition("@")
    found = (try_to_load_from_cache(name, file, revision=revision or None) for file in _FILES)
    return any(isinstance(path, str) for path in found)


def _offline() -> str | None:
    from huggingface_hub import constants

    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else None


def _out_of_reach(url: str) -> str | None:
    """Why nobody answers at an address, or None: an answer, whatever it says, is one.

    In a thread, as nothing else ends the search for a host's name in time.
    """
    answer: list[str | None] = [f"no answer within {_SECONDS:g} s"]

    def ask() -> None:
        answer[0] = _asked(url)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answer[0]


def _asked(url: str) -> str | None:
    host = urllib.parse.urlsplit(url).hostname or url
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 -- timm's https addresses
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310
            return None
    except urllib.error.HTTPError:
        return None  # it answers; whether with the file, the real request tells
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return None  # the libraries below know other certificates; they shall try
        if isinstance(error.reason, socket.gaierror):
            return f"{host} is not found: no network?"
        if isinstance(error.reason, (TimeoutError, ConnectionError)):
            return f"{host} does not answer"
        return f"{host}: {getattr(error.reason, 'strerror', None) or error.reason}"
    except (OSError, ValueError) as error:
        return f"{host}: {getattr(error, 'strerror', None) or type(error).__name__}"


@contextlib.contextmanager
def _quietly(*, offline: bool) -> Iterator[None]:
    """Without the log of the libraries below; offline also without their requests."""
    from huggingface_hub import constants

    loggers = [logging.getLogger(name) for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(constants, "HF_HUB_ETAG_TIMEOUT", 5))
        stack.enter_context(patch.object(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 10))
        if offline:
            stack.enter_context(patch.object(constants, "HF_HUB_OFFLINE", True))
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
