"""What is looked up in ``tenon`` seldom enough to be imported when it is: training loops, generation, inspection."""

import tenon.callbacks as callbacks
import tenon.data as data
import tenon.metrics as metrics
from tenon.callbacks import Callback, History
from tenon.generation import generate
from tenon.inspection.attribution import attribute
from tenon.inspection.bisect import Difference, bisect
from tenon.inspection.diff import GraphDiff, diff
from tenon.inspection.explain import explain
from tenon.inspection.nonfinite import NonFinite, check_nan
from tenon.inspection.pictures import plot_attention, plot_attribution
from tenon.inspection.summary import Summary, summary
from tenon.pretrained import load_pretrained
from tenon.trainer import Trainer

__all__ = [
    "Callback",
    "Difference",
    "GraphDiff",
    "History",
    "NonFinite",
    "Summary",
    "Trainer",
    "attribute",
    "bisect",
    "callbacks",
    "check_nan",
    "data",
    "diff",
    "explain",
    "generate",
    "load_pretrained",
    "metrics",
    "plot_attention",
    "plot_attribution",
    "summary",
]
