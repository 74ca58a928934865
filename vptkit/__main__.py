"""`python -m vptkit`: the command line.

Python puts the current folder before all others then, and so does `torchrun -m`; what lies beside
somebody's bundle is not ours to import. It stays where it is the very folder that vptkit lies in.
"""

import os
import sys


# os.path, not pathlib: that is loaded only now, and might be a pathlib.py of the current folder
def _is_strange(first: str) -> bool:
    """Whether Python put the current folder first, and vptkit does not lie in it."""
    try:
        here = os.getcwd()  # noqa: PTH109
    except OSError:  # it was removed: nothing is found there
        return False
    ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120
    return first == here and os.path.realpath(here) != ours


if not getattr(sys.flags, "safe_path", False) and sys.path and _is_strange(sys.path[0]):
    del sys.path[0]

from vptkit.cli import main  # noqa: E402

main()
