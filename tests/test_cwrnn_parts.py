"""Parts of the recurrent encoder by themselves: the float twin and the machine, refined motion, gradients through the
states, and weights as changes of a start."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nvcodec.core.fixedpoint import exact_inference
from nvcodec.core.parallel import thread_limit
from nvcodec.decoder import FrameHash, output_planes
from nvcodec.encoder.representation import CodedSegment
from nvcodec.encoder.segment_analysis import USUAL_IMPORTANCE, SegmentSource
from nvcodec.entropy.symbols import SymbolReader, SymbolWriter
from nvcodec.entropy.tables import TABLE_BOUND
from nvcodec.exact.layer import calibrate
from nvcodec.exact.machine import Machine
from nvcodec.exact.operation import Sizes
from nvcodec.exact.outputs import Store
from nvcodec.exact.simulation import Simulation
from nvcodec.exact.tracing import TracedProgram, place
from nvcodec.grid.contexts import appearance_context
from nvcodec.grid.levels import Quantiser
from nvcodec.implicit.encoder.exact_synthesis import ExactSynthesis
from nvcodec.implicit.encoder.overfit import Overfit, rate_at, record_part
from nvcodec.implicit.encoder.recurrent_final import FinalCoding, FinalState
from nvcodec.implicit.encoder.recurrent_fit import PassEffort, RecurrentFit, TwinSynthesis
from nvcodec.implicit.encoder.start import (
    Start,
    choose_steps,
    load_start,
    write_trained,
    zero_start,
)
from nvcodec.implicit.encoder.synthesis import States, UnitRecord, inputs_of, moved_inputs, refined_inputs
from nvcodec.implicit.encoder.weight_fit import WeightFit
from nvcodec.implicit.models.cwrnn import CWRNN, Widths
from nvcodec.implicit.payload import ImplicitDecoder, ImplicitHeader
from nvcodec.implicit.starts import code_changes, read_start, write_start
from nvcodec.implicit.unit import motion_weights
from nvcodec.motion.compensation import Compensated, blended
from nvcodec.motion.levels import FrameGeometry
from nvcodec.motion.warp import Reference, pack_luma

GEOMETRY = FrameGeometry(64, 48)
FRAMES, BITS, LAMBDA = 3, 12, 20.0
SIZES = Sizes(GEOMETRY.half, GEOMETRY.blocks, FRAMES)
CPU = torch.device("cpu")
EFFORT = PassEffort(1, (1, 1))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Pictures are small."""
    with thread_limit(1):
        yield


def moving() -> Tensor:
    """(3, 6, h, w): a smooth picture that moves three luma samples to the right a frame, noise on it."""
    generator = torch.Generator().manual_seed(1)
    height, width = GEOMETRY.height, GEOMETRY.width
    coarse = torch.rand(1, 3, 6, 10, generator=generator) * 1023
    wide = torch.nn.functional.interpolate(coarse, size=(height, width + 24), mode="bicubic")[0]
    frames = []
    for n in range(FRAMES):
        picture = wide[..., 12 - 3 * n : 12 - 3 * n + width]
        frames.append(torch.cat([pack_luma(picture[0]), torch.nn.functional.avg_pool2d(picture[1:], 2)]))
    samples = torch.stack(frames)
    return (samples + 8 * torch.randn(samples.shape, generator=generator)).clamp(0, 1023).round()


def network() -> CWRNN:
    """Drawn; its layers know the sizes."""
    torch.manual_seed(3)
    module = CWRNN(SIZES, 3000)
    place(module, SIZES)
    return module


def fitted(module: CWRNN) -> RecurrentFit:
    """A key frame, a P frame and a B frame between them, behind a pass by the float twin."""
    fit = RecurrentFit(SegmentSource(moving(), GEOMETRY, 2), appearance_context())
    fit.start_pass()
    fit.continue_pass(TwinSynthesis(module), LAMBDA * USUAL_IMPORTANCE, EFFORT)
    return fit


@pytest.fixture(scope="module")
def pass_of() -> tuple[CWRNN, RecurrentFit]:
    module = network()
    return module, fitted(module)


@pytest.fixture
def module(pass_of: tuple[CWRNN, RecurrentFit]) -> CWRNN:
    return deepcopy(pass_of[0])


@pytest.fixture
def records(pass_of: tuple[CWRNN, RecurrentFit]) -> list[UnitRecord]:
    return [replace(record) for record in pass_of[1].all_records()]


def quantised(module: CWRNN, records: list[UnitRecord]) -> tuple[WeightFit, TracedProgram]:
    """The weights as changes from zeros, none of them pruned, which the module takes over."""
    Overfit(module, records, Simulation(observe=True)).refresh()
    calibrate(module, BITS)
    choose_steps(module)
    start, traced = zero_start(module, SIZES, BITS)
    weights = WeightFit(traced.program, SIZES, start)
    weights.choose({name: torch.full_like(value, 1e6) for name, value in weights.values.items()}, 0.0)
    weights.adopt()
    return weights, traced


def machine_of(weights: WeightFit, traced: TracedProgram) -> Machine:
    return Machine(traced.program, {n: found.tensors() for n, found in weights.symbols().items()}, SIZES, CPU)


# The model


def test_widths_follow_the_parameters() -> None:
    found = [Widths.of(parameters) for parameters in (3e3, 16.5e3, 1e5)]
    for widths, parameters in zip(found, (3e3, 16.5e3, 1e5), strict=True):
        assert 0.8 * parameters < widths.weights <= parameters
        assert Widths.of(widths.weights) == widths
        assert Widths.of(widths.weights - 1).half < widths.half or parameters == 3e3
    assert [w.half for w in found] == sorted({w.half for w in found})
    assert Widths.of(1) == Widths.of(1000)
    assert CWRNN(SIZES, 3e3).widths == found[0]


# Between the passes


def test_a_segment_goes_on_from_what_it_kept(module: CWRNN) -> None:
    fit = RecurrentFit(SegmentSource(moving(), GEOMETRY, 2), appearance_context())
    fit.look_ahead(motion_weights(), LAMBDA * USUAL_IMPORTANCE, lambda report: None)
    fit.filter_sources(LAMBDA * USUAL_IMPORTANCE)
    fit.weigh(LAMBDA * USUAL_IMPORTANCE)
    fit.quantiser = Quantiser((3, 0, 9, 20, 1, 60))
    assert any(level.any() for levels in fit.motion for level in levels)
    resumed = RecurrentFit(fit.source, appearance_context())
    resumed.take_up(deepcopy(fit.kept()))
    assert resumed.quantiser == fit.quantiser
    for one, other in zip(fit.motion, resumed.motion, strict=True):
        assert all(map(torch.equal, one, other))
    reports = []
    for part in (fit, resumed):
        part.start_pass()
        part.continue_pass(TwinSynthesis(module), LAMBDA * USUAL_IMPORTANCE, EFFORT)
        reports.append([(r.motion_bits, r.appearance_bits, r.errors.tolist()) for r in part.reports if r])
    assert reports[0] == reports[1]
    assert len(reports[0]) == 3


def test_attempts_at_the_size_go_on_from_what_was_kept() -> None:
    best = CodedSegment(b"abc", b"d" * 16, 31.5)
    for state in (FinalState([1.0, 2.0], [3.0, 4.0], 0.7, 2, best, 12.5), FinalState()):
        assert FinalState.restored(deepcopy(state.state())) == state


# The float twin and the machine


def test_the_machine_does_what_the_twin_does(module: CWRNN, records: list[UnitRecord]) -> None:
    """With weights as they are quantised and activations of 12 bits, each on its own states, up to the last unit."""
    weights, traced = quantised(module, records)
    twin, exact = TwinSynthesis(module, Simulation(bits=BITS)), ExactSynthesis(machine_of(weights, traced))
    fractions = {layer.index: layer.fraction for layer in module.modules() if isinstance(layer, Store)}
    kept: tuple[dict[int, States], dict[int, States]] = ({}, {})
    with exact_inference():
        for record in records:
            refined = [synthesis.refined(record, states) for synthesis, states in zip((twin, exact), kept, strict=True)]
            for one, other in zip(*refined, strict=True):
                assert float((one - other).abs().max()) <= 1
            (samples, states), (expected, integers) = (
                synthesis.run(record, known) for synthesis, known in zip((twin, exact), kept, strict=True)
            )
            assert float((samples - expected).abs().max()) <= 4
            assert float((samples - expected).abs().mean()) < 0.5
            assert float((expected - record.target).abs().mean()) < 40  # a picture
            for index, state in states.items():
                difference = (state * 2.0 ** fractions[index] - integers[index]).abs()
                assert float(difference.mean()) < 2
                assert float(integers[index].abs().mean()) > 50
            for b, frame in enumerate(record.unit.frames):
                for store, made in zip(kept, (states, integers), strict=True):
                    store[frame.display] = {n: s[b : b + 1] for n, s in made.items()}


def shifted(module: CWRNN, steps: tuple[float, float], second: float = 1.0) -> None:
    """Corrections of so many quarter samples, ``second`` times as many towards the second reference."""
    with torch.no_grad():
        module.motion.leave.weight.zero_()
        module.motion.leave.bias.copy_(torch.tensor([*steps, *(second * x for x in steps)]) / 4)


def test_refined_motion_is_that_of_the_decoder(module: CWRNN, records: list[UnitRecord]) -> None:
    """Forced to a quarter sample more, in the twin's passes and in the file."""
    shifted(module, (1.0, -1.0))
    fit = fitted(module)
    for record in fit.all_records():
        for known, final in zip(record.vectors, record.final_vectors, strict=True):
            assert (final - known).flatten(2).unique(dim=2).flatten().tolist() == [1, -1] * len(final)
    assert fit.all_records()[-1].unit.reference_count == 2
    weights, traced = quantised(module, fit.all_records())
    coding = FinalCoding(
        fit, traced, weights, ImplicitHeader(0, 2), None, LAMBDA * USUAL_IMPORTANCE, EFFORT, FinalState()
    )
    coded = coding.run(1, lambda report: None, lambda: None)  # compares encoder and writer, too
    decoder = ImplicitDecoder(coded.payload, [traced.program], GEOMETRY, FRAMES, CPU)
    made: dict[int, Tensor] = {}
    with exact_inference():
        for frames in decoder.decode():
            made |= frames
            for number, record in fit.records.items():
                for b, frame in enumerate(record.unit.frames):
                    if frame.display in frames and frame.display in decoder.segment.states and number:
                        fields = decoder.segment.states[frame.display].frame.motion.fields
                        assert all(torch.equal(f, v[b]) for f, v in zip(fields, record.final_vectors, strict=True))
    digest = FrameHash()
    for display in sorted(made):
        digest.add(output_planes(made[display], GEOMETRY.width, GEOMETRY.height))
    assert digest.digest() == coded.frame_hash


def seen(
    record: UnitRecord, pictures: dict[int, Tensor], vectors: tuple[Tensor, ...], blend: Tensor | None
) -> Compensated:
    """What the references of a unit of one frame come to, warped by ``vectors``."""
    (frame,) = record.unit.frames
    warped = [Reference(pictures[d]).warp(vectors[k][0]) for k, d in enumerate(frame.references)]
    return blended(warped, blend[0] if blend is not None else torch.zeros(0))


@pytest.fixture(params=[1, 2])
def referring(request: pytest.FixtureRequest, records: list[UnitRecord]) -> tuple[UnitRecord, dict[int, Tensor]]:
    """A P frame, or a B frame whose blocks take their two references as was drawn; the pictures of all frames."""
    pictures = {r.unit.frames[0].display: r.made[0] for r in records if r.made is not None}
    record = records[request.param]
    assert record.unit.reference_count == request.param
    if request.param == 2:
        blend = torch.randint(-1, 2, (1, 1, *GEOMETRY.blocks), generator=torch.Generator().manual_seed(1)).float()
        found = seen(record, pictures, record.final_vectors, blend)
        record = replace(record, blend=blend, prediction=found.prediction[None], difference=found.difference[None])
    return record, pictures


@pytest.mark.parametrize("steps", [(0.0, 3.0), (-2.0, 0.0)])
def test_what_is_refined_looks_like_what_is_warped_again(
    module: CWRNN, records: list[UnitRecord], referring: tuple[UnitRecord, dict[int, Tensor]],
    steps: tuple[float, float],
) -> None:  # fmt: skip
    """The prediction moves along its gradient to where the references would be warped to."""
    record, pictures = referring
    states = overfit(module, records).states
    shifted(module, steps, -1.0)
    given = inputs_of(record, states)
    looked = refined_inputs(module, record, given)
    vectors = tuple(v + (1 - 2 * k) * torch.tensor(steps).view(2, 1, 1) for k, v in enumerate(record.vectors))
    assert all(map(torch.equal, looked.final_vectors, vectors))
    moved = (looked.prediction - given.prediction)[0].detach() * 1024
    real = seen(record, pictures, vectors, record.blend).prediction
    real = real - seen(record, pictures, record.vectors, record.blend).prediction
    assert float((moved - real).square().mean()) < 0.3 * float(real.square().mean())


def test_references_that_look_otherwise_are_seen_so(
    module: CWRNN, records: list[UnitRecord], referring: tuple[UnitRecord, dict[int, Tensor]]
) -> None:
    """About as if they were warped and blended again; gradients reach what has changed."""
    record, pictures = referring
    generator = torch.Generator().manual_seed(4)
    changes, changed = {}, {}
    for display in record.unit.frames[0].references:
        coarse = torch.randn(1, 3, 5, 6, generator=generator) * 40
        plane = torch.nn.functional.interpolate(coarse, size=(48, 64), mode="bicubic")[0]
        change = torch.cat([pack_luma(plane[0]), torch.nn.functional.avg_pool2d(plane[1:], 2)])
        changed[display] = (pictures[display] + change).round().clamp(0, 1023)
        changes[display] = (changed[display] - pictures[display])[None].requires_grad_()
    expected = seen(record, changed, record.final_vectors, record.blend)
    given = inputs_of(record, overfit(module, records).states)
    moved = moved_inputs(record, given, changes)
    for now, before, real in (
        (moved.prediction, given.prediction, expected.prediction / 1024 - 0.5),
        (moved.difference, given.difference, expected.difference / 1024),
    ):
        error, moved_by = ((x.detach()[0] - real).square().mean() for x in (now, before))
        assert float(error) <= 0.1 * float(moved_by)
    moved.prediction.square().sum().backward()
    assert all(change.grad is not None and bool(change.grad.any()) for change in changes.values())
    still = moved_inputs(record, given, {display: 0 * change for display, change in changes.items()})
    assert torch.equal(still.prediction, given.prediction)


def test_nothing_is_refined_where_nothing_moves(module: CWRNN, records: list[UnitRecord]) -> None:
    inputs = inputs_of(records[0], {})
    assert refined_inputs(module, records[0], inputs) is inputs


# Gradients


def overfit(module: CWRNN, records: list[UnitRecord], *, joint: bool = True) -> Overfit:
    fit = Overfit(module, records, Simulation(), joint=joint)
    fit.refresh()
    return fit


def gradients(module: CWRNN, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("number", [1, 2])
def test_gradients_reach_the_corrections(module: CWRNN, records: list[UnitRecord], number: int) -> None:
    found = gradients(module, overfit(module, records, joint=False).loss(number))
    assert found["motion.leave.bias"].abs().min() > 0 or number == 1
    assert found["motion.leave.bias"][:2].abs().min() > 0
    assert found["motion.enter.weight"].abs().sum() > 0


def test_corrections_learn_to_follow_the_motion(module: CWRNN, records: list[UnitRecord]) -> None:
    """The vectors of a frame are made wrong by half a sample: gradients point back."""
    shifted(module, (0.0, 0.0))
    for sign in (1, -1):
        wrong = torch.tensor([0.0, 2.0 * sign]).view(2, 1, 1)
        record = replace(records[1], vectors=(records[1].vectors[0] + wrong,))
        record.final_vectors = record.vectors
        picture = TwinSynthesis(module).run(records[0], {})[0][0]
        record.prediction = Reference(picture).warp(record.vectors[0][0])[None]
        record.residual = {level: 0 * x for level, x in record.residual.items()}
        fit = overfit(module, [records[0], record, records[2]], joint=False)
        assert sign * float(gradients(module, fit.loss(1))["motion.leave.bias"][1]) > 0


def test_states_are_fitted_to_be_of_use_to_later_frames(module: CWRNN, records: list[UnitRecord]) -> None:
    """Gradients go from a frame to what its references keep; not where they stay within the frame."""
    layers = ("keep_half.weight", "keep_half.bias")
    joint = gradients(module, overfit(module, records).loss(1))
    alone = gradients(module, overfit(module, records, joint=False).loss(1))
    assert all(joint[name].abs().sum() > 0 for name in layers)
    assert all(name not in alone or not alone[name].any() for name in layers)
    assert alone["enter_samples.weight"].abs().sum() > 0
    assert "keep_half.weight" not in gradients(module, overfit(module, records).loss(0))  # nothing is referred to


def test_a_step_through_the_states_helps_the_frame_that_refers(module: CWRNN, records: list[UnitRecord]) -> None:
    """Moving what the key frame keeps against the gradient lowers the loss of the frame behind it."""
    fit = overfit(module, records)
    slope = gradients(module, fit.loss(1))["keep_half.weight"]
    before = float(fit.loss(1).detach())
    with torch.no_grad():
        module.keep_half.weight -= 1e-3 * slope / slope.norm()
    assert float(fit.loss(1).detach()) < before


@pytest.mark.parametrize("name", ["correct.bias", "keep_half.bias", "enter_quarter.bias", "enter_samples.bias"])
def test_gradients_are_those_of_the_loss(module: CWRNN, records: list[UnitRecord], name: str) -> None:
    """By differences: through the frame's own samples, and through states and picture of what it refers to."""
    shifted(module, (0.0, 0.0))  # their rounding has a gradient that differences do not have
    fit, value = overfit(module, records), module.get_parameter(name)
    found = gradients(module, fit.loss(1))[name]
    direction = found / found.norm()
    known = dict(fit.states), dict(fit.changes)
    losses = []
    for step in (1e-3, -1e-3):
        fit.states, fit.changes = dict(known[0]), dict(known[1])
        with torch.no_grad():
            value += step * direction
            losses.append(float(fit.loss(1)))
            value -= step * direction
    assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(float(found.norm()), rel=0.05)


def test_steps_lower_the_loss(module: CWRNN, records: list[UnitRecord]) -> None:
    fit = Overfit(module, records, Simulation())
    before = fit.refresh()
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
    for at in [0, 1, 2] * 8:
        assert fit.step(optimiser, at) > 0
    after = fit.refresh()
    assert after < 0.98 * before
    again = Overfit(module, records, Simulation())
    assert again.refresh() == pytest.approx(after)  # nothing but the weights has a part in it


def test_a_part_of_a_unit_is_what_the_unit_makes_of_it(module: CWRNN) -> None:
    samples = torch.cat([moving(), moving()[1:]])
    fit = RecurrentFit(SegmentSource(samples, GEOMETRY, 4), appearance_context())
    fit.start_pass()
    fit.continue_pass(TwinSynthesis(module), LAMBDA * USUAL_IMPORTANCE, EFFORT)
    records = fit.all_records()
    (number,) = [n for n, record in enumerate(records) if len(record.unit.frames) == 2]
    both = Overfit(module, records, Simulation())
    both.refresh()
    with torch.no_grad():
        whole, states = both.run(number)
        for b in range(2):
            part, kept = both._run(record_part(records[number], b), both.states, both.changes)
            assert torch.allclose(part[0], whole[b], atol=1e-2)
            assert all(torch.allclose(kept[n][0], states[n][b], atol=1e-4) for n in states)


def test_a_change_of_a_picture_reaches_later_frames_in_part(module: CWRNN, records: list[UnitRecord]) -> None:
    fit = overfit(module, records)
    with torch.no_grad():
        module.correct.bias.add_(0.02)
        fit.refresh()
        made = fit.run(0)[0]
    rows, columns = records[0].target.shape[2:]
    assert records[0].made is not None
    whole = made[..., :rows, :columns] - records[0].made
    assert float(whole.abs().mean()) > 10
    assert torch.allclose(fit.changes[records[0].unit.frames[0].display], 0.7 * whole, atol=1e-3)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [rate_at(k / 100, 2.0) for k in range(100)]
    assert max(rates) == rates[5] == pytest.approx(2.0)
    assert rates[:6] == sorted(rates[:6])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[0] == pytest.approx(0.2)
    assert rates[-1] < 0.06


# Weights


@pytest.fixture
def from_start(module: CWRNN, records: list[UnitRecord], tmp_path: Path) -> tuple[Start, TracedProgram]:
    """The module with the weights of a start that was made of it, and has three directions."""
    Overfit(module, records, Simulation(observe=True)).refresh()
    calibrate(module, BITS)
    choose_steps(module)
    traced = write_trained(tmp_path, "start", module, SIZES, BITS)
    plain = read_start((tmp_path / "start.bin").read_bytes(), convolutions(traced)).convolutions.values()
    draw = np.random.default_rng(4)
    rows = [[draw.integers(-40, 41, part.size) for c in plain for part in (c.bias, c.weight)] for _ in range(3)]
    data = write_start(list(plain), rows, 6)
    fractions = {name: layer.fraction for name, layer in module.named_modules() if hasattr(layer, "fraction")}
    return load_start(module, SIZES, BITS, data, fractions), traced


def convolutions(traced: TracedProgram) -> list[tuple[int, tuple[int, int, int, int]]]:
    return traced.program.convolutions(traced.shapes)


def moved_weights(weights: WeightFit, deviation: float) -> dict[str, Tensor]:
    """Noise of so many integer steps on every weight; sensitivities, large for one weight and small for another."""
    torch.manual_seed(11)
    with torch.no_grad():
        for name, value in weights.values.items():
            value += torch.randn_like(value) * weights.units[name] * deviation
    return {name: torch.rand_like(value) ** 4 for name, value in weights.values.items()}


def test_what_is_chosen_is_what_the_decoder_reads(from_start: tuple[Start, TracedProgram]) -> None:
    start, traced = from_start
    weights = WeightFit(traced.program, SIZES, start)
    with torch.no_grad():
        weights.code += torch.tensor([7.3, 0.0, -30.8])
    weights.follow_code()
    weights.round_code()
    assert weights.coded.tolist() == [7, 0, -31]
    weights.choose(moved_weights(weights, 6.0))
    assert 0 < len(weights.changes) <= len(weights.specs)
    weights.adopt()
    writer = SymbolWriter()
    written = code_changes(writer, convolutions(traced), start.tensors, weights.coded, weights.changes)
    assert weights.change_bits() == pytest.approx(writer.bits)
    assert weights.figures()["weight_bits"] == pytest.approx(writer.bits)
    reader = SymbolReader(writer.finish())
    read = code_changes(reader, convolutions(traced), start.tensors, None, None)
    reader.finish()
    expected = weights.symbols()
    assert any(not np.array_equal(expected[n].weight, found.weight) for n, found in start.tensors.convolutions.items())
    for number, layer in start.layers.items():
        for one in (written[number], read[number]):
            assert np.array_equal(one.weight, expected[number].weight)
            assert np.array_equal(one.bias, expected[number].bias)
            assert np.array_equal(one.exponent, start.tensors.convolutions[number].exponent)
        fraction_in = traced.convolutions[number][1]
        tensors = layer.tensors(fraction_in)  # of the module, as it stands
        assert torch.equal(tensors.weight, torch.from_numpy(expected[number].weight).float())
        assert torch.equal(tensors.bias, torch.from_numpy(expected[number].bias << expected[number].bias_shift).float())


def test_the_code_has_the_gradient_of_the_loss(
    module: CWRNN, records: list[UnitRecord], from_start: tuple[Start, TracedProgram]
) -> None:
    start, traced = from_start
    weights = WeightFit(traced.program, SIZES, start)
    fit = overfit(module, records, joint=False)
    fit.refresh()
    fit.loss(2).backward()
    weights.code_gradient()
    assert weights.code.grad is not None
    steepest = int(weights.code.grad.abs().argmax())
    losses = []
    for far in (0.02, -0.04):
        with torch.no_grad():
            weights.code[steepest] += far
        weights.follow_code()
        losses.append(float(fit.loss(2).detach()))
    assert (losses[0] - losses[1]) / 0.04 == pytest.approx(float(weights.code.grad[steepest]), rel=0.05)


def test_weights_follow_their_code(from_start: tuple[Start, TracedProgram]) -> None:
    """Wherever it goes, what was learned beside it stays; rounded, it leads to what a decoder has."""
    start, traced = from_start
    weights = WeightFit(traced.program, SIZES, start)
    moved_weights(weights, 2.0)
    beside = {name: value.detach() - weights.anchor[name] for name, value in weights.values.items()}
    with torch.no_grad():
        weights.code += torch.tensor([0.4, -20.0, 200.0])
    weights.follow_code()
    for name, value in weights.values.items():
        assert torch.allclose(value.detach() - weights.anchor[name], beside[name], atol=1e-4)
    anchor = dict(weights.anchor)
    weights.set_code(weights.code.detach().clone())
    assert all(torch.allclose(weights.anchor[name], found, atol=1e-4) for name, found in anchor.items())
    weights.round_code()
    assert weights.coded.tolist() == [0, -20, 127]
    weights.reset()
    for number, expected in start.tensors.moved(weights.coded).items():
        fraction_in = traced.convolutions[number][1]
        tensors = start.layers[number].tensors(fraction_in)
        assert torch.equal(tensors.weight, torch.from_numpy(expected.weight).float())
        assert torch.equal(tensors.bias, torch.from_numpy(expected.bias << expected.bias_shift).float())


def test_weights_go_back_to_the_start_where_changes_do_not_pay(from_start: tuple[Start, TracedProgram]) -> None:
    start, traced = from_start
    weights = WeightFit(traced.program, SIZES, start)
    moved_weights(weights, 3.0)
    sensitive = {name: torch.full_like(value, 100.0) for name, value in weights.values.items()}
    weights.choose(sensitive)
    most = weights.figures()
    weights.choose({name: 1e-6 * value for name, value in sensitive.items()})
    assert weights.changes == {}
    weights.adopt()
    assert all(torch.equal(value, weights.anchor[name]) for name, value in weights.values.items())
    assert most["sparsity"] < 0.3
    assert weights.figures()["sparsity"] == 1
    assert weights.figures()["weight_bits"] == pytest.approx(
        len(weights.specs) + 6, abs=0.2
    )  # flags, and the code's scale
    moved_weights(weights, 3.0)
    weights.choose(sensitive, 0.0)
    assert weights.figures()["sparsity"] <= most["sparsity"]
    weights.reset()
    assert all(torch.equal(value, weights.anchor[name]) for name, value in weights.values.items())


def test_tuning_moves_what_has_changed_and_nothing_else(
    module: CWRNN, records: list[UnitRecord], from_start: tuple[Start, TracedProgram]
) -> None:
    start, traced = from_start
    weights = WeightFit(traced.program, SIZES, start)
    weights.choose(moved_weights(weights, 6.0))
    weights.adopt()
    fit = Overfit(module, [replace(r, lmbda=r.lmbda / 1000) for r in records], Simulation(bits=BITS))
    kept = {name: change.symbols.copy() for name, change in weights.changes.items()}
    before = weights.cost(fit)
    weights.tune(fit, 10, lambda done: 2e-3, 0.0)
    assert weights.cost(fit) < before
    moved = 0
    for name, change in weights.changes.items():
        assert not change.symbols[kept[name] == 0].any()
        assert np.abs(change.symbols).max() <= TABLE_BOUND
        moved += int((change.symbols != kept[name]).sum())
    assert moved > 10
    for name, value in weights.values.items():
        assert torch.equal(value, weights.quantised(name))


def test_tuning_keeps_its_best_epoch(
    module: CWRNN, records: list[UnitRecord], from_start: tuple[Start, TracedProgram]
) -> None:
    """Steps that are much too large make every epoch worse than what it began with."""
    start, traced = from_start
    weights = WeightFit(traced.program, SIZES, start)
    weights.choose(moved_weights(weights, 6.0))
    weights.adopt()
    fit = Overfit(module, [replace(r, lmbda=r.lmbda / 1000) for r in records], Simulation(bits=BITS))
    weights.tune(fit, 10, lambda done: 2e-3, 0.0)
    kept, before = dict(weights.changes), weights.cost(fit)
    assert kept  # better than none
    assert all(cost > before for cost, _, _ in weights._tuned(fit, 2, lambda done: 0.3, 0.0, math.inf))
    weights.go_to(weights.code.detach().clone(), kept)
    weights.tune(fit, 2, lambda done: 0.3, 0.0)
    assert weights.changes.keys() == kept.keys()
    assert all(np.array_equal(change.symbols, kept[name].symbols) for name, change in weights.changes.items())
    assert weights.cost(fit) == before


def test_the_code_is_tuned(module: CWRNN, records: list[UnitRecord], from_start: tuple[Start, TracedProgram]) -> None:
    """From far away it comes back to where errors are few; what a decoder makes of it is what was measured."""
    start, traced = from_start
    weights = WeightFit(traced.program, SIZES, start)
    fit = Overfit(module, [replace(r, lmbda=r.lmbda / 1000) for r in records], Simulation(bits=BITS))
    weights.go_to(torch.tensor([20.0, 0.0, -20.0]), {})
    before = weights.cost(fit)
    torch.manual_seed(3)
    weights.tune(fit, 4, lambda done: 2e-3, 500.0)
    assert weights.cost(fit) < before
    found, tuned = weights.cost(fit), weights.coded
    torch.manual_seed(3)
    weights.go_to(torch.tensor([20.0, 0.0, -20.0]), {})
    assert found == min(cost for cost, _, _ in weights._tuned(fit, 4, lambda done: 2e-3, 500.0, math.inf))
    assert weights.changes == {}
    weights.go_to(torch.from_numpy(tuned), {})
    assert tuned.tolist() != [20, 0, -20]
    for name, value in weights.values.items():
        assert torch.equal(value, weights.quantised(name))


def test_a_code_that_costs_more_than_it_brings_goes(
    module: CWRNN, records: list[UnitRecord], from_start: tuple[Start, TracedProgram]
) -> None:
    start, traced = from_start
    weights = WeightFit(traced.program, SIZES, start)
    fit = Overfit(module, records, Simulation(bits=BITS))
    for scale, most, kept in ((1e-6, math.inf, True), (1e-6, 9.0, False), (1e6, math.inf, False)):
        fit.records = [replace(r, lmbda=r.lmbda * scale) for r in records]
        costs = {}
        for far in (3.0, -3.0):
            weights.go_to(torch.tensor([far, 0.0, 0.0]), {})
            costs[fit.refresh()] = far
        weights.go_to(torch.tensor([costs[min(costs)], 0.0, 0.0]), {})
        beside = {name: value.detach().clone() for name, value in weights.values.items()}
        weights.choose_code(fit, most)
        assert bool(weights.coded.any()) == kept
        anchor = weights._real(start.tensors.moved(weights.coded))
        assert all(torch.equal(anchor[name], found) for name, found in weights.anchor.items())
        assert all(torch.equal(value, beside[name]) for name, value in weights.values.items())


def test_changes_that_cost_more_than_they_bring_go(
    module: CWRNN, records: list[UnitRecord], from_start: tuple[Start, TracedProgram]
) -> None:
    start, traced = from_start
    weights = WeightFit(traced.program, SIZES, start)
    weights.choose(moved_weights(weights, 6.0))
    weights.adopt()
    fit = Overfit(module, [replace(r, lmbda=r.lmbda * 1000) for r in records], Simulation(bits=BITS))
    weights.tune(fit, 1, lambda done: 2e-3, 0.0)
    assert weights.changes == {}
    assert all(torch.equal(value, weights.anchor[name]) for name, value in weights.values.items())


def test_sensitivity_is_that_of_the_errors(module: CWRNN, records: list[UnitRecord]) -> None:
    """Of the biases of the last layer, which move all samples of a channel alike."""
    _, traced = quantised(module, records)
    weights = WeightFit(traced.program, SIZES, zero_start(module, SIZES, BITS)[0])
    fit = overfit(module, records)
    torch.manual_seed(0)
    (number,) = [n for n, layer in weights.start.layers.items() if layer is module.correct]
    found = torch.stack([weights.sensitivity(fit)[f"{number}.bias"] for _ in range(40)]).mean(0)
    unit = float(weights.units[f"{number}.bias"]) * 1024 / 4
    expected = sum(unit**2 * r.weights.sum((0, 2, 3)) / r.lmbda for r in records)
    assert torch.allclose(found, expected, rtol=0.6)
    assert float(found.mean()) == pytest.approx(float(expected.mean()), rel=0.3)
