"""Commands that use a bundle or look at a machine: one module a command.

- `build`: `vptkit build`: a TensorRT engine.
- `check`: `vptkit check`: parity, overflow, oracles.
- `devices`: `vptkit devices`: boards, and which one this is.
- `doctor`: `vptkit doctor`: what is here, what is missing.
- `evaluate`: `vptkit eval`: accuracy, and where it fails.
- `found_images`: what `vptkit run` was given, looked up and counted.
- `inspect`: `vptkit inspect`: what a file or bundle is.
- `layers_profile`: `vptkit profile --layers`.
- `profile`: `vptkit profile`: latency, memory, energy.
- `ray_run`: `vptkit run` on many machines.
- `run`: `vptkit run`: predictions.
- `run_outcome`: how that ends.
- `serve`: `vptkit serve`: bundles behind HTTP.
- `stream_run`: `vptkit run` on videos and cameras.
"""
