"""`python -m vptkit`: the command line.

Python puts the current folder before all others then, and so does `torchrun -m`; what lies beside
somebody's bundle is not ours to import. It stays where it is the very folder that vptkit lies in.
"""

import os
import sys

# os.path, not pathlib: that is loaded only now, and might be a pathlib.py of the current folder
if (
    not getattr(sys.flags, "safe_path", False)
    and sys.path[:1] == [os.getcwd()]  # noqa: PTH109
    and os.path.realpath(sys.path[0])
    != os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120
):
    del sys.path[0]

from vptkit.cli import main

main()
