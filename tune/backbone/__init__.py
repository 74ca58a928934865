"""A frozen timm model: loaded, described, and run with prompts.

- `block_spec_from_timm`: one block, described.
- `filled_model`: tensors put into it, all or none.
- `hub_weights`: timm's own weights: the cache, the hub, and one line without a network.
- `low_rank_linear`: a frozen linear with a low-rank product beside it.
- `positions`: a grid of positions resized as its publisher does.
- `prefix_forward`: the training forward: prompts as key/value prefixes.
- `published_model`: what a publisher's model does otherwise than timm's.
- `reference`: the meaning of an adapter, plain and slow.
- `spec_from_timm`: a model, described, or refused by feature.
- `timm_backbone`: created by name, frozen, with hub weights or a file.
- `timm_classes`: those that older releases of timm keep elsewhere, or lack.
- `token_merging`: similar tokens become one, after Bolya et al.
"""
