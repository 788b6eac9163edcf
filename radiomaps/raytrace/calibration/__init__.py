"""Measured powers against traced paths: residuals by place, and a fit of what paths cannot know."""

from radiomaps.raytrace.calibration.fit import Fit, Priors
from radiomaps.raytrace.calibration.measurements import Measurements, read_measurements
from radiomaps.raytrace.calibration.run import Calibration, calibrate

__all__ = ["Calibration", "Fit", "Measurements", "Priors", "calibrate", "read_measurements"]
