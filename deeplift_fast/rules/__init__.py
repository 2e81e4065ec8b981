"""The rules, as autograd Functions over the ops, and the choice of a rule for each operation."""

from deeplift_fast.rules.functions import relu, sigmoid, tanh
from deeplift_fast.rules.registered import register_rule, unregister_rule
from deeplift_fast.rules.secant import SecantRule

__all__ = ["SecantRule", "register_rule", "relu", "sigmoid", "tanh", "unregister_rule"]
