"""`python -m vptkit`: the command line.

Python puts the current folder before all others then, and so does `torchrun -m`; what lies beside
somebody's bundle is not ours to import. It stays where it is the very folder that vptkit lies in.
"""

import sys
from pathlib import Path

if (
    not getattr(sys.flags, "safe_path", False)
    and sys.path[:1] == [str(Path.cwd())]
    and Path.cwd() != Path(__file__).resolve().parents[1]
):
    del sys.path[0]

from vptkit.cli.entry import main

main()
