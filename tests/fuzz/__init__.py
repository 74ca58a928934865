"""A seeded fuzzer over every file that a stranger may have made.

`python -m tests.fuzz --seconds 60` for a minute, `--count 100000` by hand; `docs/security.md` holds
what it found and how often it ran.

- `mutations`: how bytes, JSON and folders are spoilt.
- `subjects`: the honest files of each kind, how they are spoilt, and how vptkit opens them.
- `watch`: what is forbidden meanwhile: writing or reading elsewhere, starting programs, networks.
- `campaign`: inputs one after the other in a child with limits of time and memory.
"""
