"""What is learned on the backbone: prompts (VPT, BPT), LayerNorms, a head.

- `lambda_search`: the factor λ, chosen on val.
- `layer_norms`: learnable LayerNorms and how far they moved.
- `prompts`: VPT's free rows and BPT's three forms.
- `straight_line`: the line between start and end, and which point of it is taken.
- `tuned_model`: backbone, prompts, norms and head as one module.
- `whitening`: whitening matrices (BPT, section 3.2).
"""
