"""The properties of a .cwrv file, and where every byte of it went."""

from __future__ import annotations

from typing import Any

from nvcodec.core.frame import video_seconds
from nvcodec.decoder import Decoder

__all__ = ["describe"]


def describe(decoder: Decoder, name: str) -> dict[str, Any]:
    """Everything about a file as JSON can hold it: properties, ``Decoder.account``, and bytes by purpose.

    The numbers in ``bytes_by_purpose`` add up to ``file_bytes``. Entropy-coded parts share bytes, so theirs are
    fractions. ``bpp`` and ``bitrate`` are those of the file without its sound.
    """
    account = decoder.account()
    p, header = decoder.properties, decoder.header
    seconds = float(video_seconds(p, decoder.container.pts[0], decoder.container.pts[-1]))
    return {
        "file": name,
        "version": f"{decoder.container.major}.{decoder.container.minor}",
        "level": header.level,
        "width": p.width,
        "height": p.height,
        "pix_fmt": p.pix_fmt,
        "bit_depth": p.bit_depth,
        "frame_count": header.frame_count,
        "frame_rate": str(p.frame_rate),
        "time_base": str(p.time_base),
        "seconds": seconds,
        "sample_aspect_ratio": str(p.sample_aspect_ratio),
        "color_range": p.color_range,
        "color_primaries": p.color_primaries,
        "color_trc": p.color_trc,
        "colorspace": p.colorspace,
        "chroma_location": p.chroma_location,
        "metadata": decoder.container.metadata,
        "bitrate": 8 * (account["file_bytes"] - account["sound_bytes"]) / seconds,
        "bytes_by_purpose": _purposes(account),
        **account,
    }


def _purposes(account: dict[str, Any]) -> dict[str, float]:
    """Bytes of the file by purpose; ``coder_end`` is what ending the entropy coder took."""
    segments = account["segments"]
    parts: dict[str, float] = {
        "weights": sum(s["weight_bits"] for s in segments) / 8,
        "motion": sum(s["motion_bits"] for s in segments) / 8,
        "blocks": sum(s.get("block_bits", 0.0) for s in segments) / 8,
        "grid": sum(sum(s.get("grid_bits", {}).values()) for s in segments) / 8,
        "latents": sum(sum(s.get("latent_bits", {}).values()) for s in segments) / 8,
        "segment_headers": sum(s["header_bytes"] for s in segments),
    }
    parts["coder_end"] = account["container"]["payload"] - sum(parts.values())
    return parts | {purpose: n for purpose, n in account["container"].items() if purpose != "payload"}
