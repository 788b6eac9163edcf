"""Diffusion on n-D fields: everything speaks of the noise level σ of `x = clean + σ · noise`.

A denoiser estimates the clean field from a noisy one and its σ; what networks predict (noise, velocity, flow), discrete
schedules and times are brought to this one form, in which samplers work. Torch and numpy suffice.
"""
