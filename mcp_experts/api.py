"""Wireless experts from Python, without a server or a language model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from geoml.errors import UserError

if TYPE_CHECKING:
    import os

    from mcp_experts.channels.channel import Channel
    from mcp_experts.inference.registry import Registry
    from mcp_experts.inference.verdicts import Verdicts

__all__ = ["describe", "load_channel"]


def load_channel(path: str | os.PathLike[str], index: int = 0) -> Channel:
    """A channel from a file.

    Args:
        path: `.npz`, `.nc`, `.zarr`, `.h5` or `.mat` with `csi[subcarrier, time, antenna]` (complex, linear),
            `subcarrier_spacing_hz` and `snapshot_interval_s`; with `taps[tap, time, antenna]`, `sample_rate_hz` and
            `snapshot_interval_s`; or a path table of `radiomaps paths` or DeepMIMO.
        index: which channel of a file with several.

    Returns a `Channel`, whose `csi` has the largest magnitude 1. Raises `UserError` where there is no such file,
    `DataError` for a file that holds no channel, fewer than 64 subcarriers or 14 snapshots, NaN, or no sampling.

    >>> import mcp_experts, numpy as np, tempfile
    >>> channel = mcp_experts.synthetic_channel(delay_spread_s=1e-7, snr_db=30)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(
    ...         f"{folder}/channel.npz", csi=channel.csi, subcarrier_spacing_hz=channel.subcarrier_spacing_hz,
    ...         snapshot_interval_s=channel.snapshot_interval_s,
    ...     )
    ...     mcp_experts.load_channel(f"{folder}/channel.npz").csi.shape
    (64, 14, 1)
    """
    from mcp_experts.channels.loading import channel_from_file

    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    return channel_from_file(path, index)


def describe(channel: Channel) -> Verdicts:
    """What all experts say of a channel: line of sight, K-factor, delay spread, Doppler shift, coherence and more.

    Args:
        channel: as `load_channel` or `Channel(csi=…, subcarrier_spacing_hz=…, snapshot_interval_s=…)` gives it.

    Returns `Verdicts`, which show as a table: each with a label or None (the expert abstains), calibrated
    probabilities, an interval in a unit and the classical estimate. Where `in_distribution` is False the channel is
    unlike the training data, and every expert abstains. Raises `DataError` where an expert's weights are damaged.

    >>> import mcp_experts
    >>> verdicts = mcp_experts.describe(mcp_experts.synthetic_channel(k_factor_db=12, snr_db=35))
    >>> verdicts.in_distribution, verdicts["snr"].abstained, verdicts["snr"].interval
    (True, False, '> 25 dB')
    """
    from mcp_experts.inference.verdicts import ChannelView
    from mcp_experts.inference.verdicts import describe as verdicts_on

    return verdicts_on(_registry(), ChannelView(channel))


@lru_cache(maxsize=1)
def _registry() -> Registry:
    from mcp_experts.inference.registry import Registry

    return Registry()
