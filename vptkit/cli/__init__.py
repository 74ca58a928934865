"""The command line."""

from .entry import app, main

__all__ = ["app", "main"]
