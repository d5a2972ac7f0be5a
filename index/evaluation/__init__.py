"""How well descriptors retrieve: ground truth, full rankings, measures, intervals. Pure numpy."""

from index.evaluation.evaluation import Evaluation, evaluate, leave_one_out, measured
from index.evaluation.groundtruth import Box, GroundTruth, Judgement, Query, by_labels
from index.evaluation.intervals import Difference, Interval, bootstrap, paired
from index.evaluation.ranking import rankings
from index.evaluation.refining import Refinement

__all__ = [
    "Box",
    "Difference",
    "Evaluation",
    "GroundTruth",
    "Interval",
    "Judgement",
    "Query",
    "Refinement",
    "bootstrap",
    "by_labels",
    "evaluate",
    "leave_one_out",
    "measured",
    "paired",
    "rankings",
]
