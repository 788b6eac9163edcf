"""Diffusion on n-D fields, parameterised by the noise level σ of `x = clean + σ · noise`.

A denoiser estimates the clean field from a noisy one and its σ. Network predictions (noise, velocity, flow), discrete
schedules and times are converted to this form, which samplers use. Needs only torch and numpy.
"""
