"""What is known of timm's backbones without timm: a table that ships, and what follows from it.

And the form in which a backbone's tensors are handed on (`stored_tensor`).

- `backbone_names`: the names that somebody means by "ViT-B/16" or "dinov2".
- `backbone_table`: every name that exports: size, input, licence, multiply-accumulates.
- `merge_schedule`: how many tokens each block merges, as files note it.
- `stored_tensor`: a backbone's tensors that stay in their file until they are asked for.
- `timm_arguments`: what of a file may reach `timm.create_model`.
- `weights_fit`: weights that are those of another backbone, said in words.
- `weights_places`: where this user's weights lie, by digest: a hint, checked when it is used.
"""
