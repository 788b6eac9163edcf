"""Data alignment: the predictors of a place that a model never saw, made to look like those it was trained on.

An alignment is fitted on training hours of the source regions and of the target, on *inputs* alone, and wraps a
trained downscaler. It is used where the test region is not among the regions trained on: a model that has seen the
region needs none, and is the joint-training oracle that an alignment is measured against.
"""

from rainshift.alignment.base import Alignment, Inputs, inputs_of
from rainshift.alignment.quantile_mapping import QuantileMapping
from rainshift.alignment.statistics import Coral, TargetStatistics

__all__ = ["Alignment", "Coral", "Inputs", "QuantileMapping", "TargetStatistics", "inputs_of"]
