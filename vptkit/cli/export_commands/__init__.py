"""Commands that compile: one module a command, and what they share.

- `bank`: `vptkit bank`: adapters of a bank added, replaced, removed, listed.
- `bisect`: `vptkit bisect`: the smallest set of fp32 islands.
- `export`: `vptkit export`: an adapter becomes a bundle.
- `export_verdict`: how they end: how good it is, what to type next.
- `option_rules`: which option goes with which.
- `output_name`: where an export goes, and names that promise another kind of file.
- `web_export`: the end of `vptkit export --target web`.
"""
