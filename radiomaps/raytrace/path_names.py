"""Units and meanings of the variables of path tables."""

__all__ = ["ABOUT"]

ABOUT = {
    "path_gain_db": ("dB", "sum of the paths' powers, receivers of both polarisations"),
    "coherent_gain_db": ("dB", "power of the paths' sum with their phases"),
    "path_count": ("1", "paths found"),
    "gain_db": ("dB", "power of the path"),
    "amplitude_real": ("1", "real part of the path's coefficient at the carrier, its delay's phase included"),
    "amplitude_imag": ("1", "imaginary part of the path's coefficient at the carrier, its delay's phase included"),
    "delay_s": ("s", "delay of the path"),
    "arrival_azimuth": ("rad", "azimuth from the receiver to where the path comes from"),
    "arrival_zenith": ("rad", "zenith angle from the receiver to where the path comes from"),
    "departure_azimuth": ("rad", "azimuth in which the path leaves the transmitter"),
    "departure_zenith": ("rad", "zenith angle in which the path leaves the transmitter"),
    "doppler_hz": ("Hz", "Doppler shift of the path for the receivers' velocities"),
    "bounces": ("1", "surfaces and edges the path met"),
    "diffracted": ("1", "whether an edge is among them"),
    "reflections": ("1", "surfaces of each material that reflect the path"),
}
