"""The exact folds in float64 numpy: backbone + adapter → fewer, larger constants.

Arrays in, arrays out; each fold is a pure function with its equation. One place is lazy, for memory:
`Folded.blocks` folds a block when the graph's writer comes to it, and keeps none (`lazy_blocks`).

- `block_tensors`: a block's tensors under one set of names.
- `equations`: the folds: norm → linear, scale, value bias, pixels.
- `fold_block`: one block: tensors and prompts in, constants out.
- `fold_network`: `fold`: the whole network.
- `folded_network`: what a graph is written from: blocks, attentions, MLPs.
- `last_block`: its forms where only the class token is read.
- `lazy_blocks`: the blocks, one at a time.
- `position_encoding`: rotary embedding and relative bias as constants.
- `prefix_keys_values`: what a block's prompts become.
"""
