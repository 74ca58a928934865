"""`vptkit analyze`: how bursty tokens and prompts are (BPT, ICCV 2025).

- `analyze_burstiness`: the whole analysis.
- `block_burstiness`: what prompts meet in each block, measured.
- `burstiness_plot`: the paper's first figure, for your backbone.
- `heavy_tails`: how heavy a tail is, from a stream.
"""
