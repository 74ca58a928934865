"""vptkit: deploy Vision Transformers that were adapted by prompts or LayerNorm tuning.

The adapter is compiled away: what ships is one static ONNX graph that costs no more than the
backbone alone.

Shape alphabet, used in every docstring:
    B images, H W pixels, N patches, T tokens (prefix tokens, then patches), m prompts,
    d width, h heads, e width of a head, L depth, C classes, G golden images.

- `backbones`: what is known of timm's backbones without timm; whose weights a file holds.
- `cli`: the command line.
- `demo`: `vptkit demo`.
- `formats`: what is written to disk: adapters, bundles, weights.
- `images`: image files, data sets of them, pixels.
- `paths`: what lies at a path, and what was meant where it is something else.
- `scores`: how good answers are, and how sure that is.
- `atomic_files`: files that appear whole or not at all.
- `part_files`: where those are made, and what killed runs left of them.
- `errors`: what can go wrong, with exit codes.
- `private_files`: locks, keys and folders that are this user's alone.
- `python_child`: how a Python process of ours is started.
- `regular_files`: files that a stranger may have made, opened and read with bounds.
- `schema`: what a stranger's document may hold, checked whole.
- `plot_text`: somebody else's text in pictures.
- `shown_text`: somebody else's text, shown to people and not obeyed.
- `strict_json`: JSON that a stranger may have written.
- `progress`: bars and lines on standard error.
- `text_table`: results as plain text.
- `tune`, `export`, `runtime`, `devices`: the four rooms beside this folder.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
