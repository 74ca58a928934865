"""vptkit: deploy Vision Transformers that were adapted by prompts or LayerNorm tuning.

The adapter is compiled away: what ships is one static ONNX graph that costs no more than the
backbone alone.

Shape alphabet, used in every docstring:
    B images, H W pixels, N patches, T tokens (prefix tokens, then patches), m prompts,
    d width, h heads, e width of a head, L depth, C classes, G golden images.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
