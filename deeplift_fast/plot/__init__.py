"""Figures of attributions for papers: matplotlib axes; orange raises the output and purple lowers it.

Each figure shows signs thrice (colour, ▲ or ▼, + or −), prints its numbers, has a scale that is symmetric about 0, and
draws no text below 7 points. Names from data are shown as text, whatever they hold.
"""

from deeplift_fast.plot.bar import bar
from deeplift_fast.plot.beeswarm import beeswarm
from deeplift_fast.plot.compare import compare
from deeplift_fast.plot.timeline import timeline
from deeplift_fast.plot.waterfall import waterfall

__all__ = ["bar", "beeswarm", "compare", "timeline", "waterfall"]
