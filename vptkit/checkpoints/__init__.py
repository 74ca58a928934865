"""Weights as others publish them, read without torch: tensors only, in timm's names.

- `hugging_face_names`: names of transformers' ViTs, of both generations, in timm's.
- `plain_pickle`: a pickle in stand-ins, nothing of it built.
- `proposed_backbone`: the backbone that a folder's documents name.
- `published_names`: whose names a file has, its prefix, and what it calls in timm's words.
- `read_weights`: weights of a file or a folder, for who compiles or loads them.
- `snapshot`: a folder's documents: which backbone, which pixels.
- `tensor_source`: a file of any form, and the one table of tensors within it.
- `torch_archive`: the tensors of a file of `torch.save`, checked against its bytes.
- `weights_files`: which file a path means; shards.
"""
