"""A frozen timm model: loaded, described, and run with prompts.

- `block_spec_from_timm`: one block, described.
- `hub_weights`: timm's own weights: the cache, the hub, and one line without a network.
- `patch_grid`: an input size is a whole number of patches.
- `prefix_forward`: the training forward: prompts as key/value prefixes.
- `reference`: the meaning of an adapter, plain and slow.
- `reference_features`: what the head reads, by the reference.
- `spec_from_timm`: a model, described, or refused by feature.
- `timm_backbone`: created by name, frozen, with hub weights or a file.
- `timm_classes`: those that older releases of timm keep elsewhere, or lack.
"""
