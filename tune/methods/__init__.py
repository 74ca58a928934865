"""What is learned on the backbone: prompts (VPT, BPT), LayerNorms, low-rank factors (LoRA), a head.

- `lambda_search`: the factor λ, chosen on val.
- `layer_norms`: learnable LayerNorms and how far they moved.
- `lora`: low-rank changes of linears.
- `own_copy`: a copy of a backbone that shares its tensors.
- `prompts`: VPT's free rows and BPT's three forms.
- `straight_line`: the line between start and end, and which point of it is taken.
- `tuned_model`: backbone, prompts, norms, factors and head as one module.
- `whitening`: whitening matrices (BPT, section 3.2).
"""
