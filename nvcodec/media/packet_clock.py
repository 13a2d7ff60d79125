"""Timestamps of packets that start again or jump, made to go on: as FFmpeg's command does it.

A recording of a transport stream may be cut and joined: its clock then goes back, or jumps. In formats where that is
allowed (FFmpeg's flag ``ts_discont``) a decoding time that lies before the one expected by more than a tenth of a
second, or ten seconds and more beyond it, moves all later ones so that the video goes on without a gap. In others only
jumps of more than thirty hours are taken for faults, and in the same way (``fftools/ffmpeg_demux.c``: its thresholds).
"""

from __future__ import annotations

from fractions import Fraction

import av

__all__ = ["PacketClock"]

_BACK, _JUMP, _FAULT = Fraction(1, 10), Fraction(10), Fraction(30 * 3600)
"""Seconds."""


class PacketClock:
    """Of one stream. ``may_jump``: whether the format allows it. ``step``: how long a frame lasts, in seconds, where a
    packet does not say it. ``jumps``: seconds at which the clock was set, and by how much."""

    def __init__(self, *, may_jump: bool, step: Fraction) -> None:
        self._may_jump, self._step = may_jump, step
        self._offset = 0
        self._expected: Fraction | None = None
        self.jumps: list[tuple[float, float]] = []

    def set(self, packet: av.Packet) -> None:
        """Move the timestamps of a packet. Packets come in decoding order."""
        base = packet.time_base
        if not base or packet.dts is None:
            return
        now = (packet.dts + self._offset) * base
        if self._expected is not None and self._is_broken(now - self._expected):
            self.jumps.append((float(self._expected), float(now - self._expected)))
            self._offset += round((self._expected - now) / base)
            now = (packet.dts + self._offset) * base
        if self._offset:
            packet.dts += self._offset
            packet.pts = None if packet.pts is None else packet.pts + self._offset
        self._expected = now + (packet.duration * base if packet.duration else self._step)

    def _is_broken(self, difference: Fraction) -> bool:
        if self._may_jump:
            return difference < -_BACK or difference > _JUMP
        return abs(difference) > _FAULT
