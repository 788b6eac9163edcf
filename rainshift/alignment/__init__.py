"""Data alignment: map the predictors of an unseen region to the distribution of the training predictors.

An alignment wraps a trained downscaler. It is fitted on predictors alone, from training hours of the source regions
and of the target region. It is applied if the test region is not in the training set. A model that was trained on the
test region needs no alignment and serves as the upper bound (joint training).
"""

from rainshift.alignment.base import Alignment, Inputs, inputs_of
from rainshift.alignment.quantile_mapping import QuantileMapping
from rainshift.alignment.statistics import Coral, TargetStatistics

__all__ = ["Alignment", "Coral", "Inputs", "QuantileMapping", "TargetStatistics", "inputs_of"]
