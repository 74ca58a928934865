"""`vptkit serve`: bundles behind HTTP.

No future import of annotations here: typer reads them at run time.
"""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from vptkit.cli.shared.options import Backend, Decode, Force, Threads, TrustEngines, require_choice
from vptkit.errors import VptkitError
from vptkit.shown_text import shown, shown_lines, tell

__all__ = ["serve"]

_K8S_IMAGE = "registry/vptkit-triton:1"


def serve(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE...", help="Folders NAME.vptk, a model each.")
    ],
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Who has one of its tokens, one a line, may ask."),
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Other machines may ask without a token.")
    ] = False,
    admin_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Who has one of these may add, replace and remove adapters, too."
        ),
    ] = None,
    backend: Backend = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Images of a run [8, or the bundle's own].")
    ] = None,
    max_wait_ms: Annotated[
        float,
        typer.Option(min=0, max=10_000, help="How long a run waits for images being decoded."),
    ] = 2.0,
    queue_size: Annotated[
        int, typer.Option(min=1, help="Images of a bundle that may wait; others get 503.")
    ] = 256,
    timeout_ms: Annotated[
        float, typer.Option(min=1, help="What a request may take, and its body before.")
    ] = 10_000.0,
    max_body_mb: Annotated[
        float, typer.Option(min=0.001, max=2048, help="Of one request's body.")
    ] = 32.0,
    decode: Decode = None,
    decode_threads: Annotated[
        int | None, typer.Option(min=1, help="Images decoded at once [all usable cores].")
    ] = None,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="One JSON line a request on standard error.")
    ] = False,
    page: Annotated[bool, typer.Option("--ui", help="Also a page for browsers, at /ui/.")] = False,
    triton: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write a model repository for NVIDIA Triton there instead."
        ),
    ] = None,
    print_k8s: Annotated[
        bool, typer.Option("--print-k8s", help="Of --triton: print what Kubernetes needs.")
    ] = False,
    triton_backend: Annotated[
        str, typer.Option(help="Of --triton, what runs the graph: python, onnxruntime or tensorrt")
    ] = "python",
    instances: Annotated[
        int, typer.Option(min=1, max=1000, help="Of --triton: copies of a model in one server.")
    ] = 1,
    k8s_image: Annotated[
        str, typer.Option(metavar="NAME", help="Of --print-k8s: the container's image.")
    ] = _K8S_IMAGE,
    force: Force = False,
    threads: Threads = None,
    trust_engines: TrustEngines = False,
) -> None:
    """Answer over HTTP: KServe v2, images as they are, many adapters in one batch."""
    _require_triton(triton_backend, instances, k8s_image, triton, print_k8s=print_k8s)
    if triton is not None or print_k8s:
        if page:
            raise VptkitError(
                "--ui does not go with --triton: the page is part of vptkit's own server"
            )
        if token_file is not None or admin_token_file is not None or open_to_all:
            raise VptkitError(
                "--token-file, --admin-token-file and --open do not go with --triton: Triton asks "
                "for no token. Who may ask is up to its --http-restricted-api, or to the network."
            )
        _write_for_triton(
            bundles,
            triton,
            k8s_image=k8s_image if print_k8s else None,
            force=force,
            triton_backend=triton_backend,
            backend=backend,
            decode=decode or "exact",
            threads=threads or 0,
            trust_engines=trust_engines,
            numbers={
                "max_batch": max_batch or 8,
                "delay_us": round(1000 * max_wait_ms),
                "queue": queue_size,
                "timeout_us": round(1000 * timeout_ms),
                "instances": instances,
            },
        )
        return
    from vptkit.api.serving import serve as serve_bundles

    serve_bundles(
        bundles,
        ready=_say_ready,
        host=host,
        port=port,
        token_file=token_file,
        open_to_all=open_to_all,
        admin_token_file=admin_token_file,
        backend=backend,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        queue_size=queue_size,
        timeout_ms=timeout_ms,
        max_body_mb=max_body_mb,
        decode=decode,
        decode_threads=decode_threads,
        log_requests=log_requests,
        page=page,
        threads=threads,
        trust_engines=trust_engines,
    )


def _say_ready(application: Any, address: str) -> None:
    """What is served where, and how to ask it."""
    models = list(application.store)
    for model in models:
        names = model.bundle.adapter_names
        what = f"{len(names)} adapters, {', '.join(names)}" if len(names) > 1 else "1 adapter"
        tell(
            f"serving {model.name} ({what}) at {address}/v2/models/{quote(model.name)}", sys.stdout
        )
    first = models[0].bundle.adapter_names
    query = f"?adapter={quote(first[0])}" if len(first) > 1 or len(models) > 1 else ""
    tell(f"try: curl --data-binary @photo.jpg '{address}/predict{query}'", sys.stdout)
    if application.page:
        tell(f"page: {address}/ui/", sys.stdout)


def _require_triton(
    triton_backend: str, instances: int, k8s_image: str, triton: Path | None, *, print_k8s: bool
) -> None:
    """Refuse options of Triton where nothing is written for it."""
    if triton is None and not print_k8s and (triton_backend != "python" or instances != 1):
        raise VptkitError(
            "--triton-backend and --instances have no effect here: they go with --triton DIR."
        )
    if k8s_image != _K8S_IMAGE and not print_k8s:
        raise VptkitError("--k8s-image has no effect here: it goes with --print-k8s.")


def _write_for_triton(
    bundles: list[Path],
    folder: Path | None,
    *,
    k8s_image: str | None,
    force: bool,
    triton_backend: str,
    backend: str | None,
    numbers: dict[str, int],
    **session: Any,
) -> None:
    """The branch of --triton and --print-k8s: `vptkit.runtime.triton`."""
    from vptkit.runtime.triton.kubernetes import ClusterOptions, cluster_yaml
    from vptkit.runtime.triton.model_config import Batching
    from vptkit.runtime.triton.model_repository import (
        TRITON_BACKENDS,
        TritonOptions,
        instance_kind,
        open_servable,
        write_model_repository,
    )

    require_choice("--triton-backend", triton_backend, TRITON_BACKENDS)
    kind = instance_kind(triton_backend, backend)
    options = TritonOptions(
        backend=triton_backend,  # type: ignore[arg-type]
        batching=Batching(kind=kind, **numbers),
        session_backend=backend or "auto",
        **session,
    )
    opened = open_servable(bundles, options)
    text = ""
    if k8s_image is not None:
        cluster = ClusterOptions(image=k8s_image, gpu=kind == "KIND_GPU")
        text = cluster_yaml(list(opened.values()), options.batching, cluster)
    if folder is not None:
        models = write_model_repository(bundles, folder, options, force=force)
        said = _written(folder, models, triton_backend)
        if text:
            tell(said)
        else:
            text = said
    typer.echo(text.removesuffix("\n"))


def _written(folder: Path, models: dict[str, Any], triton_backend: str) -> str:
    """What was written, a model a line, and how a server starts with it."""
    lines = []
    for name, model in models.items():
        count = len(model["adapters"])
        what = f"bank of {count} adapters" if model["layout"] == "bank" else "1 adapter"
        lines.append(f"{shown(folder)}: model {name}, {what}, {triton_backend}")
    lines.append(f"next: tritonserver --model-repository={shlex.quote(str(folder))}")
    return shown_lines("\n".join(lines))
