"""What is written to disk, and its checks: adapter files, bundles, weights. numpy and safetensors.

- `adapter`: the adapter file, `vptkit.adapter/1` to `/3`.
- `backbone_spec`: an isotropic ViT, described completely.
- `backbone_weights`: a backbone's tensors by timm name, and their digest.
- `bank_tables`: the tables of a bank: shapes, layout, rows of an adapter.
- `bundle`: the bundle NAME.vptk/ and its manifest.
- `bundle_files`: a bundle's files: a closed set, opened and compared.
- `graph_scan`: what an ONNX file would make its reader open besides itself.
- `manifest_schema`: what a manifest may say.
- `pooling`: the pools, and how many numbers each gives the head.
- `summary`: what a file is, for `vptkit inspect`.
- `tensor_file`: safetensors, read and written with numpy alone.
- `weight_deltas`: changes to a backbone's linears and other tensors, and a tensor with them.
"""
