"""Data alignment: transform the predictors of an unseen place to resemble those of the training.

An alignment is fitted on training hours of the source regions and of the target, on *inputs* alone, and wraps a
trained downscaler. It is used if the test region is not in the training set. A model trained on the region needs no
alignment; it is the joint-training oracle with which alignments are compared.
"""

from rainshift.alignment.base import Alignment, Inputs, inputs_of
from rainshift.alignment.quantile_mapping import QuantileMapping
from rainshift.alignment.statistics import Coral, TargetStatistics

__all__ = ["Alignment", "Coral", "Inputs", "QuantileMapping", "TargetStatistics", "inputs_of"]
