"""Timestamps of packets that start again or jump, made to go on: as FFmpeg's command does it.

A recording of a transport stream may be cut and joined: its clock then goes back, or jumps. In formats where that is
allowed (FFmpeg's flag ``ts_discont``) a decoding time that lies before the one expected by more than a tenth of a
second, or more than ten seconds beyond it, moves all later ones so that the video goes on without a gap. In others only
jumps of more than thirty hours are taken for faults, and in the same way (``fftools/ffmpeg_demux.c``: its thresholds).

A file has one clock: what stands beside the video follows it (``Follower``).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av

__all__ = ["Follower", "PacketClock", "moved"]

_BACK, _JUMP, _FAULT = Fraction(1, 10), Fraction(10), Fraction(30 * 3600)
"""Seconds."""


def moved(packet: Any, seconds: Fraction) -> None:
    """Add to the timestamps of a packet."""
    ticks = round(seconds / packet.time_base)
    packet.pts = None if packet.pts is None else packet.pts + ticks
    packet.dts = None if packet.dts is None else packet.dts + ticks


class PacketClock:
    """Of the video. ``may_jump``: whether the format allows it. ``step``: how long a frame lasts, in seconds, where a
    packet does not say it. ``jumps``: seconds at which the clock was set, and by how much it was off. ``offsets``: what
    was added to its times, from the start of the file on and behind each jump."""

    def __init__(self, *, may_jump: bool, step: Fraction) -> None:
        self._may_jump, self._step = may_jump, step
        self._expected: Fraction | None = None
        self.offsets = [Fraction(0)]
        self.jumps: list[tuple[float, float]] = []

    def set(self, packet: av.Packet) -> None:
        """Move the timestamps of a packet. Packets come in decoding order."""
        base = packet.time_base
        if not base or packet.dts is None:
            return
        now = packet.dts * base + self.offsets[-1]
        if self._expected is not None and self._is_broken(now - self._expected):
            self.jumps.append((float(self._expected), float(now - self._expected)))
            self.offsets.append(self.offsets[-1] + round((self._expected - now) / base) * base)
            now = packet.dts * base + self.offsets[-1]
        if self.offsets[-1]:
            moved(packet, self.offsets[-1])
        self._expected = now + (packet.duration * base if packet.duration else self._step)

    def _is_broken(self, difference: Fraction) -> bool:
        if self._may_jump:
            return difference < -_BACK or difference > _JUMP
        return abs(difference) > _FAULT


class Follower:
    """The clock of another stream of the file, by the offsets of the video's: behind each jump of that, this one takes
    the next offset with the first packet that it brings nearer to the packet before."""

    def __init__(self, offsets: Sequence[Fraction]) -> None:
        self._offsets, self._at = offsets, 0
        self._last: Fraction | None = None

    def set(self, packet: av.Packet) -> None:
        """Move the timestamps of a packet."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if not packet.time_base or stamp is None or len(self._offsets) == 1:
            return
        time = stamp * packet.time_base
        if self._last is not None and self._at + 1 < len(self._offsets):
            here, there = (abs(time + self._offsets[self._at + k] - self._last) for k in range(2))
            self._at += there < here
        self._last = time + self._offsets[self._at]
        moved(packet, self._offsets[self._at])
