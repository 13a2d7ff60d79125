"""A segment between the passes of the encoder."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from draw_blocks import draw_blocks

from nvcodec.core.parallel import thread_limit
from nvcodec.encoder.lookahead import estimated_bits
from nvcodec.encoder.rate_control import Target
from nvcodec.encoder.segment_analysis import USUAL_IMPORTANCE, SegmentSource
from nvcodec.entropy.symbols import SymbolWriter
from nvcodec.hybrid.base import starting_tensors
from nvcodec.hybrid.blocks.layout import BlockLayout
from nvcodec.hybrid.blocks.picture import BinModels, exchange_picture
from nvcodec.hybrid.encoder.segment_fit import PassEffort, PassSettings, SegmentFit
from nvcodec.hybrid.encoder.stages import EFFORTS, encode_segment, gain_shift, smallest_payload
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.network import NetworkShape
from nvcodec.hybrid.payload import HybridHeader, HybridWriter
from nvcodec.hybrid.unit import UnitSymbols
from nvcodec.motion.levels import FrameGeometry

GEOMETRY = FrameGeometry(64, 48)
SETTINGS = PassSettings(20.0, PassEffort(3, 3, searches=2), train=False)


def segment() -> SegmentFit:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(3, 6, 6, 8, generator=generator) * 1023
    samples = torch.nn.functional.interpolate(coarse, size=GEOMETRY.half, mode="bicubic").clamp(0, 1023)
    return SegmentFit(SegmentSource(samples, GEOMETRY, 2))


def twin() -> Twin:
    made = Twin(NetworkShape(8), starting_tensors(8))
    made.shift_gains(16)
    return made


def test_blocks_of_a_pass_start_anew() -> None:
    """What they were before has no part in it, nor what the probabilities were."""
    results = []
    for is_first in (True, False):
        fit = segment()
        if not is_first:
            random = Random(1)
            for unit, found in zip(fit.units, fit.symbols, strict=True):
                refers = unit.reference_count > 0
                layout = BlockLayout(*GEOMETRY.half)
                found.blocks = [draw_blocks(random, layout, refers, 0.5, 9, 3) for _ in unit.frames]
            fit.models.at(0)[:, :2] = 40000
        torch.manual_seed(2)
        fit.run_pass(twin(), SETTINGS)
        results.append([array for found in fit.symbols for symbols in found.blocks for array in symbols])
    assert any(array.any() for array in results[0])
    assert all(map(np.array_equal, *results))


def test_a_pass_says_what_its_blocks_cost() -> None:
    """The probabilities go on from unit to unit, as in the file."""
    fit = segment()
    reports = fit.run_pass(twin(), SETTINGS)
    models, writer = BinModels(), SymbolWriter()
    for unit, found, report in zip(fit.units, fit.symbols, reports, strict=True):
        before = writer.bits
        for symbols in found.blocks:
            exchange_picture(writer, models, unit.depth, BlockLayout(*GEOMETRY.half), unit.reference_count > 0, symbols)
        assert report is not None
        assert report.appearance_bits == pytest.approx(writer.bits - before, rel=1e-4)
    assert all(map(np.array_equal, models.arrays, fit.models.arrays))


def test_lambda_by_looking_ahead_falls_with_the_bits_there_are() -> None:
    fit = segment()
    fit.look_ahead(twin().context_weights(), SETTINGS.highest_lmbda, lambda report: None)
    few, many = (fit.estimated_highest_lmbda(SETTINGS.highest_lmbda, bits) for bits in (3e3, 3e4))
    assert few > 3 * many
    again = fit.estimated_highest_lmbda(500.0 * USUAL_IMPORTANCE, 3e3)
    assert abs(again / few - 1) < 0.05


def test_blocks_that_last_get_lower_lambda_and_finer_steps() -> None:
    """One picture for all frames: the key frame matters for all of them, the B frame for none."""
    source = segment().source
    still = SegmentFit(SegmentSource(source.samples[:1].repeat(33, 1, 1, 1), GEOMETRY, 2))
    still.look_ahead(twin().context_weights(), SETTINGS.highest_lmbda, lambda report: None)
    still.weigh(SETTINGS.highest_lmbda)
    key, last = still.units[0], still.units[-1]
    assert still.unit_importance(key)[0] > 15
    assert abs(still.unit_importance(last)[0] - 1) < 0.01
    assert still.importance_of_depths()[0] > 1.2


def test_a_picture_that_nothing_refers_to_gets_coarser_steps() -> None:
    """Steps follow the root of lambda, four to its octave, but for frames of half the usual importance or so."""
    fit = SegmentFit(SegmentSource(segment().source.samples[:1], GEOMETRY, 2))
    fit.look_ahead(twin().context_weights(), SETTINGS.highest_lmbda, lambda report: None)
    fit.weigh(SETTINGS.highest_lmbda)
    assert gain_shift(fit.importance_of_depths()[0]) == 14
    assert [gain_shift(ratio) for ratio in (0.125, 0.5, 0.8, 1, 2, 4)] == [12, 0, 0, 0, -4, -8]


def test_gains_are_limited_once() -> None:
    """Steps back and forth across the limit: they are where the sum of all steps leaves them."""
    there, both = twin(), twin()
    low = -int(there.values["block.gain"].min()) - 16
    there.shift_gains(low + 6)
    both.shift_gains(low - 4, torch.full_like(both.gain_shifts, 10))
    assert (there.values["block.gain"] == 0).any()
    assert (there.values["block.gain"] > 0).any()
    assert torch.equal(both.values["block.gain"], there.values["block.gain"])
    assert not torch.equal(both.start["block.gain"], there.start["block.gain"])


def test_the_smallest_payload_is_that_of_empty_units() -> None:
    writer = HybridWriter(HybridHeader(8, 4, 0), {}, GEOMETRY, 6, torch.device("cpu"))
    for unit in writer.units:
        writer.code(UnitSymbols.empty(unit, GEOMETRY))
    assert smallest_payload(6, GEOMETRY, 4, 8) == len(writer.finish())


def test_the_motion_of_a_search_is_what_the_writer_would_make_of_its_symbols() -> None:
    """Handed on or not, bytes and states are the same."""
    fit = segment()
    writers = [HybridWriter(HybridHeader(8, 2, 16), {}, GEOMETRY, 3, torch.device("cpu")) for _ in range(2)]
    prices = Twin.frozen(writers[0].network).context_weights()
    is_moved = False
    for number, unit in enumerate(fit.units):
        states, gain = fit.references_of(number, writers[0].states), writers[0].network.gain(unit.depth)
        found = fit.search_unit(number, prices, gain, states, writers[0].models.copy(), SETTINGS)
        symbols = UnitSymbols(found.motion.levels, found.fit.blocks)
        is_moved |= any(bool(level.any()) for level in symbols.motion)
        handed_on, alone = writers[0].code(symbols, found.motion), writers[1].code(symbols)
        for display, state in alone.items():
            assert torch.equal(handed_on[display].appearance.packed, state.appearance.packed)
            for one, other in zip(handed_on[display].motion.fields, state.motion.fields, strict=True):
                assert torch.equal(one, other)
    assert is_moved
    assert writers[0].finish() == writers[1].finish()


def test_a_flash_is_within_reach_of_the_smallest_gains() -> None:
    """Dark frames but for a bright one, in the finest steps: what the look ahead met keeps the gains large enough."""
    geometry = FrameGeometry(16, 12)
    samples = torch.rand(5, 6, *geometry.half, generator=torch.Generator().manual_seed(2)) * 200
    samples[2] += 800
    encoded = encode_segment(SegmentSource(samples, geometry, 4), 8, Target(lmbda=0.05), EFFORTS["fast"])
    assert encoded.psnr > 44


def test_b_frames_that_are_passed_over_are_believed_to_be_as_those_that_are_not() -> None:
    """GOPs of two frames, every second one with its B frame: the missing bits are scaled by those that are known."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(9, 6, 6, 8, generator=generator) * 1023
    samples = torch.nn.functional.interpolate(coarse, size=GEOMETRY.half, mode="bicubic").clamp(0, 1023)
    fit = SegmentFit(SegmentSource(samples, GEOMETRY, 2))
    fit.look_ahead(twin().context_weights(), SETTINGS.highest_lmbda, lambda report: None)
    fit.weigh(SETTINGS.highest_lmbda)
    short = replace(SETTINGS, effort=PassEffort(1, 1, searches=2))
    whole = [report.bits for report in fit.run_pass(twin(), short) if report]
    assert fit.believed_bits(short.highest_lmbda) == whole

    some = replace(short, effort=PassEffort(1, 1, searches=2, stride=2))
    reports = fit.run_pass(twin(), some)
    assert [n for n, report in enumerate(reports) if report is None] == [4, 8]
    assert fit.units[4].depth == fit.units[8].depth == 2
    believed = fit.believed_bits(some.highest_lmbda)
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
    assert resumed.believed_bits(some.highest_lmbda) == believed


def test_as_many_threads_as_there_are_find_the_same() -> None:
    """Units side by side go by what those before them left, however many are under way."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(9, 6, 6, 8, generator=generator) * 1023
    samples = torch.nn.functional.interpolate(coarse, size=GEOMETRY.half, mode="bicubic").clamp(0, 1023).round()
    payloads = []
    for threads in (1, 2, 3):  # with more of them PyTorch has two, which may sum in another order
        torch.manual_seed(0)
        with thread_limit(threads):
            source = SegmentSource(samples, GEOMETRY, 4)
            payloads.append(encode_segment(source, 8, Target(total_bytes=2500), EFFORTS["medium"]).payload)
    assert payloads[0] == payloads[1] == payloads[2]


@pytest.mark.parametrize(("lmbda", "learns"), [(20.0, True), (200.0, False)])
def test_frames_with_references_learn_nothing_where_what_they_add_would_add_up(lmbda: float, learns: bool) -> None:
    taught, fit = twin(), segment()
    fit.run_pass(taught, replace(SETTINGS, lmbda=lmbda, train=True))
    for kind, is_moved in (("key", True), ("inter", learns)):
        names = taught.synthesis_names(kind)
        assert any(not torch.equal(taught.values[n], taught.start[n]) for n in names) == is_moved
