"""Channels held for clients under random handles: owned, with a lifetime, within bounds of number and memory."""

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
    """How many channels, of how many bytes together, are held for how long after they were last used."""

    lifetime_s: float = 3600.0
    count: int = 256
    nbytes: int = 128 * 2**20


@dataclass(eq=False)
class _Held:
    look: ChannelView
    owner: str
    until: float


class Handles:
    """Handles by owner. Safe to use from threads.

    Where space is short, the owner who takes most of it loses what was not used for longest: nobody crowds others out.
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
        """Bytes of all coefficients held."""
        return self._nbytes

    def put(self, channel: Channel, owner: str, name: str = "") -> str:
        """Hold a channel; returns its handle, `name` or 128 random bits."""
        if channel.nbytes > self.limits.nbytes:
            raise UserError(f"the channel takes {channel.nbytes} bytes; at most {self.limits.nbytes} are held")
        name = name or PREFIX + secrets.token_hex(16)
        look = ChannelView(channel, name)  # which takes a while for a large one: nobody is to wait for it at the lock
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
        """The channel behind a handle of this owner, whose lifetime starts anew.

        A handle that never was, has expired or belongs to somebody else gives the same `UserError`.
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
        """As `get`, None where the handle is gone."""
        try:
            return self.get(name, owner)
        except UserError:
            return None

    def drop(self, name: str, owner: str) -> None:
        """Forget a channel of this owner."""
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
        """The least recently used handle of who holds most, counting what this owner is about to hold."""
        shares = defaultdict(float, {owner: self._share(channel)})
        for held in self._held.values():
            shares[held.owner] += self._share(held.look.channel)
        largest = max((held.owner for held in self._held.values()), key=shares.__getitem__)
        return next(name for name, held in self._held.items() if held.owner == largest)

    def _share(self, channel: Channel) -> float:
        """Of what may be held: of the number and of the bytes."""
        return 1 / self.limits.count + channel.nbytes / self.limits.nbytes

    def _remove(self, name: str) -> None:
        self._nbytes -= self._held.pop(name).look.channel.nbytes


def _gone(limits: Limits) -> UserError:
    return UserError(
        "no channel of yours has this handle: it may have expired (they are kept "
        f"{limits.lifetime_s:g} s after their last use), been dropped, or belong to another process; load the channel "
        "again, or give the path of its file, which always works"
    )
