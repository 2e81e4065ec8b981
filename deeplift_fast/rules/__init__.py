"""What stands in for an operation's gradient: autograd Functions over the ops, and which operation gets which."""

from deeplift_fast.rules.registered import register_rule, unregister_rule
from deeplift_fast.rules.secant import SecantRule

__all__ = ["SecantRule", "register_rule", "unregister_rule"]
