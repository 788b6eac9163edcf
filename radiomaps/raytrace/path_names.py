"""Units and meanings of the variables of path tables."""

__all__ = ["ABOUT"]

ABOUT = {
    "path_gain_db": ("dB", "sum of the paths' powers, over both polarisations of the receiver"),
    "coherent_gain_db": ("dB", "power of the paths' sum with their phases"),
    "path_count": ("1", "paths found"),
    "gain_db": ("dB", "power of the path"),
    "amplitude_real": ("1", "real part of the path's coefficient at the carrier, including the phase of its delay"),
    "amplitude_imag": (
        "1",
        "imaginary part of the path's coefficient at the carrier, including the phase of its delay",
    ),
    "delay_s": ("s", "delay of the path"),
    "arrival_azimuth": ("rad", "azimuth of arrival, from the receiver towards the source of the path"),
    "arrival_zenith": ("rad", "zenith angle of arrival, from the receiver towards the source of the path"),
    "departure_azimuth": ("rad", "azimuth of departure at the transmitter"),
    "departure_zenith": ("rad", "zenith angle of departure at the transmitter"),
    "doppler_hz": ("Hz", "Doppler shift of the path for the receivers' velocities"),
    "bounces": ("1", "number of surfaces and edges on the path"),
    "diffracted": ("1", "whether the path is diffracted at an edge"),
    "reflections": ("1", "number of reflections of the path by each material"),
}
