"""The papers that gancolor implements: their tables as data, and the walk that trains and measures
their rows.
"""

from gancolor.papers.published import PAPERS, Paper

__all__ = ["PAPERS", "Paper"]
