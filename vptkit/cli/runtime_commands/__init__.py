"""Commands that use a bundle or look at a machine: one module a command.

- `build`: `vptkit build`: a TensorRT engine.
- `check`: `vptkit check`: parity, overflow, oracles.
- `devices`: `vptkit devices`: boards, and which one this is.
- `doctor`: `vptkit doctor`: what is here, what is missing.
- `evaluate`: `vptkit eval`: accuracy, and where it fails.
- `inspect`: `vptkit inspect`: what a file or bundle is.
- `profile`: `vptkit profile`: latency, memory, energy.
- `run`: `vptkit run`: predictions.
- `serve`: `vptkit serve`: bundles behind HTTP.
"""
