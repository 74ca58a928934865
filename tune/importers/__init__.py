"""Other people's adapters: tensors only, nothing of a file is run.

- `checkpoint_reader`: a .pth as named arrays.
- `import_adapter`: `vptkit import`.
- `imported_tensors`: a stranger's file under our names.
- `linear_head`: a head alone, as DINOv2 publishes them.
- `peft_layout`: PEFT's LayerNorm adapters.
- `vpt_bpt_layouts`: VPT's and BPT's code.
"""
