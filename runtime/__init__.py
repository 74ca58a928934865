"""Inference, evaluation and profiling of bundles. No torch, no onnx package."""
