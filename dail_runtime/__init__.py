"""dail_runtime: the code that runs in dail's containers, and on a laptop: rewrite, select, train, evaluate, report."""

__version__ = "0.1.0"
