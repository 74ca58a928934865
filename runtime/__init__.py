"""Inference, evaluation and profiling of bundles. No torch, no onnx package.

- `backends`: ONNX Runtime, OpenVINO and TensorRT, one face.
- `bulk`: many images: found, asked, written down.
- `doctor`: `vptkit doctor`.
- `engine_build`: `vptkit build`.
- `evaluation`: parity and accuracy.
- `http_server`: `vptkit serve`.
- `layers`: `vptkit profile --layers`.
- `inputs`: what users name → images: lists, archives, stores.
- `loadgen`: MLPerf's load generator asks a bundle.
- `frame_answers`: videos and cameras, answered.
- `measure`: one quantity a module.
- `profile`: `vptkit profile`.
- `ray_data`: a run on many machines.
- `remote`: `profile --on`.
- `serving`: models that many ask at once.
- `session`: a bundle that answers: `open_session`.
- `settings`: the documented name of `profile_bundles`.
- `stores`: object stores through fsspec.
- `streams`: videos and cameras.
- `triton`: model repositories for NVIDIA Triton.
- `web`: `vptkit export --target web`.
"""

from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.session_protocol import Session

__all__ = ["Session", "open_session"]
