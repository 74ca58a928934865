"""Other people's adapters: tensors only, nothing of a file is run.

- `checkpoint_reader`: a .pth as named arrays.
- `e2vpt_layout`: E²VPT's code.
- `import_adapter`: `vptkit import`.
- `linear_head`: a head alone, as DINOv2 publishes them.
- `merged_layouts`: SSF's and RepAdapter's code.
- `vpt_bpt_layouts`: VPT's and BPT's code.
"""
