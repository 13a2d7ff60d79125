"""A segment between the passes of the encoder."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from nvcodec.encoder.lookahead import estimated_bits
from nvcodec.encoder.rate_control import Target
from nvcodec.encoder.segment import PassSettings, SegmentFit, SegmentSource
from nvcodec.encoder.segment_encoder import EFFORTS, encode_segment, gain_shift, smallest_payload
from nvcodec.encoder.twin import Twin
from nvcodec.model.base import starting_tensors
from nvcodec.model.grid import SYMBOL_BOUND, FrameGeometry
from nvcodec.model.network import NetworkShape
from nvcodec.model.unit import Grid
from nvcodec.segment import SegmentHeader, SegmentWriter

GEOMETRY = FrameGeometry(64, 48)
SETTINGS = PassSettings(20.0, 3, 3, train=False)


def segment() -> SegmentFit:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(3, 6, 6, 8, generator=generator) * 1023
    samples = torch.nn.functional.interpolate(coarse, size=GEOMETRY.half, mode="bicubic").clamp(0, 1023)
    return SegmentFit(SegmentSource(samples, GEOMETRY, 2))


def twin() -> Twin:
    made = Twin(NetworkShape(8), starting_tensors(8))
    made.shift_gains(16)
    return made


def test_residual_of_a_pass_starts_anew() -> None:
    """What the symbols were before has no part in it."""
    results = []
    for old in (0, 5):
        fit = segment()
        for grid in fit.grids:
            for level in grid.appearance:
                level += old
        torch.manual_seed(2)
        fit.run_pass(twin(), SETTINGS)
        results.append([level for grid in fit.grids for level in grid.appearance])
    assert any(bool(level.any()) for level in results[0])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_lambda_by_looking_ahead_falls_with_the_bits_there_are() -> None:
    fit = segment()
    fit.look_ahead(twin(), SETTINGS, lambda report: None)
    few, many = (fit.estimated_lmbda(SETTINGS, bits) for bits in (3e3, 3e4))
    assert few > 3 * many
    again = fit.estimated_lmbda(PassSettings(500.0, 3, 3), 3e3)
    assert abs(again / few - 1) < 0.05


def test_blocks_that_last_get_lower_lambda_and_finer_steps() -> None:
    """One picture for all frames: the key frame matters for all of them, the B frame for none."""
    source = segment().source
    still = SegmentFit(SegmentSource(source.samples[:1].repeat(33, 1, 1, 1), GEOMETRY, 2))
    still.look_ahead(twin(), SETTINGS, lambda report: None)
    still.weigh(SETTINGS)
    key, last = still.units[0], still.units[-1]
    assert still.unit_importance(key)[0] > 15
    assert abs(still.unit_importance(last)[0] - 1) < 0.01
    assert still.importance_of_depths()[0] > 1.2


def test_a_picture_that_nothing_refers_to_gets_coarser_steps() -> None:
    """Steps follow the root of lambda, four to its octave, but for frames of half the usual importance or so."""
    fit = SegmentFit(SegmentSource(segment().source.samples[:1], GEOMETRY, 2))
    fit.look_ahead(twin(), SETTINGS, lambda report: None)
    fit.weigh(SETTINGS)
    assert gain_shift(fit.importance_of_depths()[0]) == 14
    assert [gain_shift(ratio) for ratio in (0.125, 0.5, 0.8, 1, 2, 4)] == [12, 0, 0, 0, -4, -8]


def test_gains_are_limited_once() -> None:
    """Steps back and forth across the limits of the coarse levels: these are where the sum of all steps leaves them."""
    there, both = twin(), twin()
    there.shift_gains(-6)
    both.shift_gains(-16, torch.full_like(both.gain_shifts, 10))
    assert torch.equal(both.values["grid.gain"], there.values["grid.gain"])
    assert not torch.equal(both.start["grid.gain"], there.start["grid.gain"])


def test_the_smallest_payload_is_that_of_empty_grids() -> None:
    source = SegmentSource(torch.zeros(6, 6, *GEOMETRY.half), GEOMETRY, 4)
    writer = SegmentWriter(SegmentHeader(8, 4, 0), {}, GEOMETRY, 6, torch.device("cpu"))
    for unit in writer.units:
        writer.code(Grid.zeros(unit, GEOMETRY, torch.device("cpu")))
    assert smallest_payload(source, 8) == len(writer.finish())


def test_a_flash_is_within_reach_of_the_smallest_gains() -> None:
    """Dark frames but for a bright one, in the finest steps: what the look ahead met keeps the gains large enough."""
    geometry = FrameGeometry(16, 12)
    samples = torch.rand(5, 6, *geometry.half, generator=torch.Generator().manual_seed(2)) * 200
    samples[2] += 800
    encoded = encode_segment(SegmentSource(samples, geometry, 4), 8, Target(lmbda=0.05), EFFORTS["fast"])
    assert encoded.psnr > 44


def test_symbols_stay_within_the_alphabet() -> None:
    """Black and white stripes at the smallest steps ask for symbols that cannot be coded."""
    samples = torch.zeros(1, 6, *GEOMETRY.half)
    samples[:, :4, :, ::2] = 1023
    fit = SegmentFit(SegmentSource(samples, GEOMETRY, 1))
    finest = twin()
    finest.shift_gains(-100)
    fit.run_pass(finest, PassSettings(1.0, 1, 1, train=False))
    assert max(float(level.abs().max()) for level in fit.grids[0].appearance) == SYMBOL_BOUND


def test_b_frames_that_are_passed_over_are_believed_to_be_as_those_that_are_not() -> None:
    """GOPs of two frames, every second one with its B frame: the missing bits are scaled by those that are known."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(9, 6, 6, 8, generator=generator) * 1023
    samples = torch.nn.functional.interpolate(coarse, size=GEOMETRY.half, mode="bicubic").clamp(0, 1023)
    fit = SegmentFit(SegmentSource(samples, GEOMETRY, 2))
    fit.look_ahead(twin(), SETTINGS, lambda report: None)
    fit.weigh(SETTINGS)
    short = replace(SETTINGS, iterations=1, key_iterations=1)
    whole = [report.bits for report in fit.run_pass(twin(), short) if report]
    assert fit.believed_bits(short) == whole

    some = replace(short, stride=2)
    reports = fit.run_pass(twin(), some)
    assert [n for n, report in enumerate(reports) if report is None] == [4, 8]
    assert fit.units[4].depth == fit.units[8].depth == 2
    believed = fit.believed_bits(some)
    assert [b for b, report in zip(believed, reports, strict=True) if report] == [r.bits for r in reports if r]
    guesses = [
        estimated_bits([f], {k: x.double().numpy() for k, x in fit.importance.items()}, some.highest_lmbda)
        for f in fit.forecasts
        if f.frame.depth == 2
    ]
    known, missing = (2, 6), (4, 8)
    ratio = sum(believed[n] for n in known) / (guesses[0] + guesses[2])
    for n, guess in zip(missing, (guesses[1], guesses[3]), strict=True):
        assert math.isclose(believed[n], ratio * guess)

    resumed = SegmentFit(fit.source)
    resumed.restore(fit.state())
    assert resumed.believed_bits(some) == believed
