"""`python -m vptkit`: the command line."""

from vptkit.cli.entry import main

main()
