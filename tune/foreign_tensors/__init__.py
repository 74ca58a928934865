"""A stranger's tensors in terms of ours: what all readers of other people's adapters share.

- `imported_tensors`: a stranger's file under our names, and checks of it.
- `low_rank_form`: whole changes as factors, where they have a low rank.
- `module_changes`: what modules become, as tensors of an adapter.
- `module_names`: a stranger's names of modules and tensors, in timm's.
"""
