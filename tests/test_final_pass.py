"""The last pass of a hybrid segment: when it ends, and what it does about a cell that harms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from nvcodec.encoder.rate_control import AIM
from nvcodec.encoder.representation import CodedSegment
from nvcodec.entropy.weights import TensorChange
from nvcodec.hybrid.encoder.final_pass import FinalPass
from nvcodec.hybrid.encoder.segment_fit import PassEffort, PassSettings
from nvcodec.hybrid.encoder.stages import EFFORTS
from nvcodec.hybrid.payload import HybridHeader

WANTED = 8000.0


class Attempts:
    """Stands for the coding of a segment: ``found`` are bytes, gains of the cell, and lambdas of each attempt."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, found: Sequence[tuple[int, Sequence[float], Sequence[float]]]
    ) -> None:
        self.silenced: list[int] = []
        self.done = 0
        self.changes: list[Any] = []

        def code_once(state: FinalPass, *_: object) -> tuple[CodedSegment, list[float], list[float]]:
            size, gains, lambdas = found[self.done]
            self.done += 1
            self.changes.append(state.changes)
            state.cell_gains = list(gains)
            return CodedSegment(bytes(size), b"", float(self.done)), [4.0 * size] * 2, list(lambdas)

        monkeypatch.setattr(FinalPass, "_code_once", code_once)
        monkeypatch.setattr(FinalPass, "_begin_attempt", lambda *_: None)

    def run(self, wanted: float | None = WANTED, attempts: int = 5, met: int = 1) -> CodedSegment:
        settings = PassSettings(50.0, PassEffort(0, 0, 1))
        header = HybridHeader(8, 4, 0)
        state = FinalPass(header, {}, settings, wanted, [4000.0] * 2, [50.0] * 2, gain_lmbda=50.0)
        effort = replace(EFFORTS["fast"], attempts=attempts, met=met)
        return state.run(cast(Any, None), effort, lambda report: None, self.without_cell)

    def without_cell(self, depth: int) -> dict[str, TensorChange]:
        self.silenced.append(depth)
        return cast(Any, {f"silent {depth}": None})


HELPS, EVEN, HARMS = [1.0] * 4, [50.0, 51.0], -100.0


def test_it_ends_where_the_target_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, [(1500, HELPS, EVEN), (1000, HELPS, EVEN)])
    assert (len(attempts.run().payload), attempts.done, attempts.silenced) == (1000, 2, [])


def test_a_harmful_cell_is_silenced_and_the_segment_coded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the size was right; what it came to with the cell is no choice any more."""
    attempts = Attempts(
        monkeypatch, [(1000, [1, HARMS, 2, HARMS], EVEN), (1900, [1, 0, 2, 0], EVEN), (990, HELPS, EVEN)]
    )
    assert (len(attempts.run().payload), attempts.silenced) == (990, [1, 3])
    assert attempts.changes == [{}, *[{"silent 3": None}] * 2]


def test_also_where_no_size_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, [(1000, [-60, 0, HARMS, 0], EVEN), (900, [0] * 4, EVEN)])
    assert (len(attempts.run(None).payload), attempts.silenced) == (900, [2])


def test_what_the_last_attempt_comes_to_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    harmed = (1000, [HARMS] * 4, EVEN)
    attempts = Attempts(monkeypatch, [harmed] * 2)
    assert (len(attempts.run(attempts=2).payload), attempts.silenced) == (1000, [0, 1, 2, 3])


def test_far_from_the_target_nothing_is_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    """At another quality a cell may help."""
    far = (3000, [HARMS] * 4, EVEN)
    attempts = Attempts(monkeypatch, [far, (1000, HELPS, EVEN)])
    assert (len(attempts.run().payload), attempts.silenced) == (1000, [])


def test_an_attempt_that_met_the_target_is_kept_though_its_cell_harmed(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, [(1000, [HARMS] * 4, EVEN), (1900, HELPS, EVEN), (300, HELPS, EVEN)])
    assert (len(attempts.run(attempts=3).payload), attempts.done) == (1000, 3)


@pytest.mark.parametrize(("lambdas", "done"), [([50.0, 85.0], 1), ([50.0, 90.0], 4)])
def test_another_attempt_where_lambda_moved_far(
    monkeypatch: pytest.MonkeyPatch, lambdas: list[float], done: int
) -> None:
    """Early frames had what later ones lacked, or the other way round. There is an end to that."""
    attempts = Attempts(monkeypatch, [(1000 + n, HELPS, lambdas) for n in range(5)])
    attempts.run()
    assert attempts.done == done


def test_of_several_that_meet_the_target_the_best_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later the better is their picture here, by 1 dB each; one is larger by 4 %, that weighs 0.2 dB."""
    found = [(1000, HELPS, EVEN), (1500, HELPS, EVEN), (975, HELPS, EVEN), (1015, HELPS, EVEN), (1000, HELPS, EVEN)]
    attempts = Attempts(monkeypatch, found)
    assert (len(attempts.run(met=3).payload), attempts.done) == (1015, 4)


def test_the_nearest_is_taken_where_none_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    aim = int(WANTED / AIM / 8)
    attempts = Attempts(monkeypatch, [(aim + 100, HELPS, EVEN), (aim - 150, HELPS, EVEN), (aim + 90, HELPS, EVEN)])
    assert len(attempts.run(attempts=3).payload) == aim - 150
