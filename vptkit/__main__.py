"""`python -m vptkit`: the command line."""

from vptkit.cli import main

main()
