"""Lightweight wireless experts: verdicts on measured or simulated channels, from Python or over MCP.

>>> import mcp_experts
>>> channel = mcp_experts.load_channel("channel.npz")  # doctest: +SKIP
>>> mcp_experts.describe(channel)  # doctest: +SKIP

`mcp-experts serve` offers the same experts to language models.
"""

from typing import TYPE_CHECKING

from geoml.public import publish

if TYPE_CHECKING:
    from mcp_experts.api import describe as describe
    from mcp_experts.api import load_channel as load_channel
    from mcp_experts.channels.channel import Channel as Channel
    from mcp_experts.channels.synthetic import synthesize as synthetic_channel  # noqa: F401
    from mcp_experts.inference.verdicts import Verdict as Verdict
    from mcp_experts.inference.verdicts import Verdicts as Verdicts

_PLACES = {
    "Channel": "mcp_experts.channels.channel:Channel",
    "Verdict": "mcp_experts.inference.verdicts:Verdict",
    "Verdicts": "mcp_experts.inference.verdicts:Verdicts",
    "describe": "mcp_experts.api:describe",
    "load_channel": "mcp_experts.api:load_channel",
    "synthetic_channel": "mcp_experts.channels.synthetic:synthesize",
}

publish(__name__, _PLACES)
