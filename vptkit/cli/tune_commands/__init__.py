"""Commands that learn, or take what others learned: one module a command.

- `analyze`: `vptkit analyze`: burstiness of tokens and prompts.
- `backbones`: `vptkit backbones`: which there are, and what to try first.
- `import_adapter`: `vptkit import`: other code's prompts and LayerNorms.
- `sweep`: `vptkit sweep`: many trainings.
- `tune`: `vptkit tune`: images become an adapter.
- `tune_verdict`: how it ends: accuracy, files, and what one does next.
"""
