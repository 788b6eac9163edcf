"""A small PNG of a channel without a plotting library: delay profile and Doppler spectrum as bars."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS, ChannelWindow

__all__ = ["draw_channel", "png"]

WIDTH, HEIGHT, GAP = 512, 128, 16
RANGE_DB = 40.0
PAPER, DELAY_INK, DOPPLER_INK = (255, 255, 255), (31, 119, 180), (214, 95, 14)


def draw_channel(window: ChannelWindow) -> bytes:
    """PNG of 512 × 272 pixels: power over delay above, power over Doppler shift below, each with a range of 40 dB.

    Delays start an eighth of the window before the strongest; shifts range from −7 to 7 cells of 1/duration.
    """
    taps = np.fft.ifft(window.csi * np.hanning(SUBCARRIERS + 2)[1:-1, None, None], axis=0)
    profile = np.mean(np.abs(taps) ** 2, axis=(1, 2))
    profile = np.roll(profile, SUBCARRIERS // 8 - int(np.argmax(profile)))
    tones = np.fft.fft(taps * np.hanning(SNAPSHOTS + 2)[1:-1, None], n=4 * SNAPSHOTS, axis=1)
    spectrum = np.fft.fftshift(np.mean(np.abs(tones) ** 2, axis=2).sum(axis=0))
    image = np.full((2 * HEIGHT + GAP, WIDTH, 3), PAPER, np.uint8)
    _bars(image[:HEIGHT], profile, DELAY_INK)
    _bars(image[HEIGHT + GAP :], spectrum, DOPPLER_INK)
    return png(image)


def _bars(panel: NDArray[np.uint8], power: NDArray[Any], ink: tuple[int, int, int]) -> None:
    level = 1 + 10 * np.log10(np.maximum(power / power.max(), 1e-12)) / RANGE_DB
    height = np.round(np.clip(level, 0, 1) * panel.shape[0]).astype(int)
    column = np.arange(panel.shape[1]) * len(height) // panel.shape[1]
    panel[np.arange(panel.shape[0])[:, None] >= panel.shape[0] - height[column]] = ink


def png(image: NDArray[np.uint8]) -> bytes:
    """An RGB image `[row, column, 3]` as PNG (ISO/IEC 15948)."""
    rows = b"".join(b"\x00" + row.tobytes() for row in np.ascontiguousarray(image))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
