"""Weights as others publish them, read without torch: tensors only, in timm's names.

- `hugging_face_names`: names of transformers' ViTs, of both generations, in timm's.
- `plain_pickle`: a pickle in stand-ins, nothing of it built.
- `torch_archive`: the tensors of a file of `torch.save`, checked against its bytes.
"""
