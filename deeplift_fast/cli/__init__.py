"""The command `deeplift-fast`, with one file per subcommand."""

from deeplift_fast.cli.app import app, main

__all__ = ["app", "main"]
