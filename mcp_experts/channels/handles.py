"""Channels held for clients under random handles, each with an owner and a lifetime, limited in number and memory."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from geoml.errors import UserError
from mcp_experts.channels.channel import Channel
from mcp_experts.inference.verdicts import ChannelView

__all__ = ["Handles", "Limits"]

PREFIX = "ch_"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Largest number and total size of the channels held, and their lifetime after the last use."""

    lifetime_s: float = 3600.0
    count: int = 256
    nbytes: int = 128 * 2**20


@dataclass(eq=False)
class _Held:
    look: ChannelView
    owner: str
    until: float


class Handles:
    """Channels by handle and owner. Thread-safe.

    At the limit, the owner with the largest share loses the least recently used channel, so that no owner displaces
    others.
    """

    def __init__(self, limits: Limits | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or Limits()
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Size of all coefficients held, in bytes."""
        return self._nbytes

    def put(self, channel: Channel, owner: str, name: str = "") -> str:
        """Hold a channel and return its handle: `name`, or 128 random bits."""
        if channel.nbytes > self.limits.nbytes:
            raise UserError(f"the channel takes {channel.nbytes} bytes; at most {self.limits.nbytes} are held")
        name = name or PREFIX + secrets.token_hex(16)
        look = ChannelView(channel, name)  # before the lock: takes a while for a large channel
        with self._lock:
            self._expire()
            if name in self._held:
                self._remove(name)
            while len(self._held) >= self.limits.count or self._nbytes + channel.nbytes > self.limits.nbytes:
                self._remove(self._expendable(owner, channel))
            self._held[name] = _Held(look, owner, self._clock() + self.limits.lifetime_s)
            self._nbytes += channel.nbytes
        return name

    def get(self, name: str, owner: str) -> ChannelView:
        """The channel of a handle of this owner; its lifetime starts again.

        Raises the same `UserError` for a handle that never existed, has expired or belongs to another owner.
        """
        with self._lock:
            self._expire()
            held = self._held.get(name)
            if held is None or held.owner != owner:
                raise _gone(self.limits)
            held.until = self._clock() + self.limits.lifetime_s
            self._held.move_to_end(name)
            return held.look

    def find(self, name: str, owner: str) -> ChannelView | None:
        """As `get`, but None if there is no such handle."""
        try:
            return self.get(name, owner)
        except UserError:
            return None

    def drop(self, name: str, owner: str) -> None:
        """Drop a channel of this owner."""
        with self._lock:
            self._expire()
            held = self._held.get(name)
            if held is None or held.owner != owner:
                raise _gone(self.limits)
            self._remove(name)

    def _expire(self) -> None:
        now = self._clock()
        for name in [name for name, held in self._held.items() if held.until <= now]:
            self._remove(name)

    def _expendable(self, owner: str, channel: Channel) -> str:
        """Least recently used handle of the owner with the largest share. The new `channel` counts for `owner`."""
        shares = defaultdict(float, {owner: self._share(channel)})
        for held in self._held.values():
            shares[held.owner] += self._share(held.look.channel)
        largest = max((held.owner for held in self._held.values()), key=shares.__getitem__)
        return next(name for name, held in self._held.items() if held.owner == largest)

    def _share(self, channel: Channel) -> float:
        """Share of the limits: share of the number of channels plus share of the bytes."""
        return 1 / self.limits.count + channel.nbytes / self.limits.nbytes

    def _remove(self, name: str) -> None:
        self._nbytes -= self._held.pop(name).look.channel.nbytes


def _gone(limits: Limits) -> UserError:
    return UserError(
        "unknown handle: the channel may have expired (channels are kept "
        f"{limits.lifetime_s:g} s after their last use), been dropped, or belong to another process; load the channel "
        "again, or pass the path of its file, which does not expire"
    )
