"""Commands that compile: one module a command.

- `bank`: `vptkit bank`: adapters of a bank added, replaced, removed, listed.
- `bisect`: `vptkit bisect`: the smallest set of fp32 islands.
- `export`: `vptkit export`: an adapter becomes a bundle.
"""
