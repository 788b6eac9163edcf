"""`mcp-experts check`: check that a channel file is read correctly and is valid for the experts, one line per check.

The same command writes the options that it was given as a profile, for later files of the same rig.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import DataError, UserError
from geoml.runs.files import atomic_path
from mcp_experts.channels.arrays import Contents
from mcp_experts.channels.channel import Channel
from mcp_experts.channels.importing import FREQUENCIES, KEYS, folder_options, parse_options, profile_text, quantity
from mcp_experts.channels.loading import channel_from_file
from mcp_experts.channels.opening import FORMATS, PROFILE
from mcp_experts.inference.registry import Registry
from mcp_experts.inference.sentences import natural
from mcp_experts.inference.validity import invalid
from mcp_experts.inference.verdicts import OUTSIDE, ChannelView

__all__ = ["check", "findings"]

WELL, NOTE, WRONG = "ok", "note", "problem"


def check(arguments: Sequence[str]) -> list[dict[str, Any]] | int:
    """Print one row per question; the exit code is 1 if there is a problem."""
    listed = "\n".join(f"  {key:<20}{about}" for key, about in KEYS.items())
    parser = argparse.ArgumentParser(
        prog="mcp-experts check",
        usage="mcp-experts check [--index INDEX] [--save FILE] FILE [KEY=VALUE …]",
        description="Check how a channel file is read, and whether the experts can judge it.",
        epilog=f"keys:\n{listed}\n  {'profile':<20}YAML file of these keys; {PROFILE} is its folder's",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help=", ".join(FORMATS))
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="how it is read")
    parser.add_argument("--index", type=int, default=0, help="number of the channel in the file, from 0")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the options as a profile")
    flags = parser.parse_intermixed_args(arguments)
    options = parse_options(flags.options)
    if not flags.file.exists():
        raise UserError(f"{flags.file} does not exist")
    if flags.save is not None and not options:
        raise UserError("--save without options; add those that the file needs, such as csi=data bandwidth=20MHz")
    try:
        channel = channel_from_file(flags.file, flags.index, options)
    except DataError as error:
        _show([("reading", WRONG, str(error))])
        return 1
    rows = list(findings(channel, options or folder_options(flags.file)))
    _show(rows)
    if flags.save is not None:
        with atomic_path(flags.save) as partial:
            partial.write_text(profile_text(options), encoding="utf-8")
        print(f"profile={flags.save}")
    return int(any(state == WRONG for _, state, _ in rows))


def _show(rows: Sequence[tuple[str, str, str]]) -> None:
    for name, state, said in rows:
        print(f"{state:<8}{name:<11}{said}")


def findings(
    channel: Channel, options: Mapping[str, str], registry: Registry | None = None
) -> Iterator[tuple[str, str, str]]:
    """Check a channel. Yields name, state and finding of each check; the finding suggests a solution."""
    registry = registry or Registry()
    view = ChannelView(channel)
    window = view.window
    subcarriers, snapshots, antennas = channel.csi.shape
    shape = f"{subcarriers} subcarriers × {snapshots} snapshots × {antennas} antennas"
    if snapshots > subcarriers and not options.get("axes"):
        yield "axes", NOTE, f"{shape}; if time and subcarriers are swapped, add axes=time,subcarrier"
    else:
        yield "axes", WELL, f"complex, {shape}"
    yield from _band(channel, view, registry)
    yield from _time(channel, view)
    changed = [note for note in window.warnings if "snapshot" not in note]
    yield (
        "padding",
        NOTE if changed or window.padded else WELL,
        "; ".join(changed)
        or (
            "most delays are exactly zero: no noise is seen, and the SNR is not judged; export without padding"
            if window.padded
            else "no padding, no gaps, and the signal fills the band"
        ),
    )
    yield (
        "noise",
        WELL if view.snr_db >= 0 else WRONG,
        f"SNR about {view.snr_db:.0f} dB"
        + ("" if view.snr_db >= 0 else "; average several estimates, or use pilots with more power"),
    )
    score = view.ood_score(registry.gate)
    yield (
        "training",
        WELL if score <= OUTSIDE else WRONG,
        (
            "like the channels that the experts were trained on"
            if score <= OUTSIDE
            else "unlike the training data: all experts abstain; check axes and spacing, or use mcp-experts adapt"
        ),
    )
    if "carrier" in options:
        carrier = quantity(Contents({}, {}), options["carrier"], "carrier", "options", FREQUENCIES)
        if not 1e6 <= carrier <= 1e12:
            raise UserError(f"carrier {options['carrier']!r} is {carrier:g} Hz; expected 1 MHz to 1 THz, as 3.5GHz")
        speed = SPEED_OF_LIGHT / carrier
        yield "carrier", WELL, f"{natural(carrier, 'Hz')}; 100 Hz of Doppler shift are {100 * speed:.3g} m/s"


def _band(channel: Channel, view: ChannelView, registry: Registry) -> Iterator[tuple[str, str, str]]:
    spaced = f"{natural(channel.bandwidth_hz, 'Hz')}, {natural(channel.subcarrier_spacing_hz, 'Hz')} apart"
    reasons = {each.name: invalid(each, view.window, max(view.snr_db, 0.0)) for each in registry.classifiers}
    without = [name for name, reason in reasons.items() if reason and "bandwidth" in reason]
    if not without:
        yield "band", WELL, f"{spaced}, covered by the cards of all experts"
        return
    state = WRONG if len(without) == len(reasons) else NOTE
    yield "band", state, f"{spaced}; outside the cards of {', '.join(without)}: check the spacing and its unit"


def _time(channel: Channel, view: ChannelView) -> Iterator[tuple[str, str, str]]:
    window = view.window
    spaced = f"{natural(channel.duration_s, 's')}, {natural(channel.snapshot_interval_s, 's')} apart"
    if not window.coherent:
        yield (
            "coherence",
            NOTE,
            (
                f"{spaced}; phase or timing of each snapshot is the receiver's: aligned, but nothing is said on "
                "Doppler shift and coherence time; use a common clock for both ends"
            ),
        )
    elif not window.shows_time:
        few = "; ".join(note for note in window.warnings if "snapshot" in note) or "too few snapshots"
        yield "coherence", NOTE, f"{few}; record at least 14 snapshots"
    else:
        yield "coherence", WELL, f"{spaced}, one phase reference"
