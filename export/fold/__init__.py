"""The exact folds in float64 numpy: backbone + adapter → fewer, larger constants.

Arrays in, arrays out. Every fold is one pure function with its equation.

- `block_tensors`: a block's tensors under one set of names.
- `equations`: the folds: norm → linear, scale, value bias, pixels.
- `fold_network`: `fold`: the whole network.
- `folded_network`: what a graph is written from: blocks, attentions, MLPs.
- `position_encoding`: rotary embedding and relative bias as constants.
"""
