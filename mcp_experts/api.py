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


def load_channel(path: str | os.PathLike[str], index: int = 0, **options: str) -> Channel:
    """Load a channel from a file.

    Args:
        path: `.npz`, `.nc`, `.zarr`, `.h5` or `.mat` with `csi[subcarrier, time, antenna]` (complex, linear),
            `subcarrier_spacing_hz` and `snapshot_interval_s`; with `taps[tap, time, antenna]`, `sample_rate_hz` and
            `snapshot_interval_s`; or a path table of `radiomaps paths` or DeepMIMO.
        index: number of the channel, from 0, for files with several channels.
        options: how to read a file of others, as `csi="data", axes="time,subcarrier", bandwidth="20MHz"`, or
            `profile="rig.yaml"`; `mcp-experts check --help` lists them.

    Returns a `Channel`, whose `csi` is scaled to a largest magnitude of 1. Raises `UserError` if the file does not
    exist. Raises `DataError` if it holds no channel, fewer than 32 subcarriers, NaN, real numbers only, or no sampling.

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
    from mcp_experts.channels.importing import parse_options
    from mcp_experts.channels.loading import channel_from_file

    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    return channel_from_file(path, index, parse_options(f"{key}={value}" for key, value in options.items()))


def describe(channel: Channel, *, adapted: str | os.PathLike[str] | None = None) -> Verdicts:
    """Verdicts of all experts on a channel: line of sight, K-factor, delay spread, Doppler shift, coherence and more.

    Args:
        channel: from `load_channel` or `Channel(csi=…, subcarrier_spacing_hz=…, snapshot_interval_s=…)`.
        adapted: folder of experts that `mcp-experts adapt` wrote, which replace the shipped ones.

    Returns `Verdicts`, which print as a table. Each has a label (None if the expert abstains), calibrated
    probabilities, an interval in a physical unit and the classical estimate. If `in_distribution` is False, the channel
    is unlike the training data, and every expert abstains. Raises `DataError` if an expert's weights are damaged.

    >>> import mcp_experts
    >>> verdicts = mcp_experts.describe(mcp_experts.synthetic_channel(k_factor_db=12, snr_db=35))
    >>> verdicts.in_distribution, verdicts["snr"].abstained, verdicts["snr"].interval
    (True, False, '> 25 dB')
    """
    from mcp_experts.inference.verdicts import ChannelView
    from mcp_experts.inference.verdicts import describe as verdicts_on

    return verdicts_on(_registry(None if adapted is None else Path(adapted)), ChannelView(channel))


@lru_cache(maxsize=4)
def _registry(adapted: Path | None) -> Registry:
    from mcp_experts.inference.registry import Registry

    return Registry(adapted=adapted)
