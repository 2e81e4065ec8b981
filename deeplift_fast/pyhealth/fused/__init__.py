"""Whole layers of PyHealth's models as single rules: the chain of their operations, written out in both directions."""
