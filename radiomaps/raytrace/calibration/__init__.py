"""Calibration with measured powers: residuals by position, and a fit of offsets, azimuths and material losses."""

from radiomaps.raytrace.calibration.fit import Fit, Priors
from radiomaps.raytrace.calibration.measurements import Measurements, read_measurements
from radiomaps.raytrace.calibration.run import Calibration, calibrate

__all__ = ["Calibration", "Fit", "Measurements", "Priors", "calibrate", "read_measurements"]
