"""One adapter and weights in, one bundle out: the steps in order, and the manifest.

- `baselines`: the bare backbone and the unfolded graph, to compare with.
- `export_bundle`: `export`.
- `export_options`: what it is asked for.
- `golden_features`: what the head reads of the golden images, proven by their logits.
- `manifest`: what a baked bundle says of itself.
- `merge_plan`: which tokens are merged.
- `onnx_output`: a bundle's graph as one ONNX file.
- `rejection`: what the images are like that a bundle is for.
"""
