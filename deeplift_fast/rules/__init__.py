"""What stands in for an operation's gradient: autograd Functions over the ops."""

from deeplift_fast.rules.secant import SecantRule

__all__ = ["SecantRule"]
