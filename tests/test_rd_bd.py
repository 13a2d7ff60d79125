"""BD figures against what they must be, and against the package used directly."""

from __future__ import annotations

import bjontegaard
import pytest

from nvcodec.core.errors import InputError
from nvcodec.rd.bd import Curve, bd_quality, bd_rate
from nvcodec.rd.quality import METRICS
from nvcodec.rd.results import bd_figures

POINTS = [(0.05, 31.0), (0.1, 33.6), (0.2, 36.1), (0.4, 38.3)]
OTHER = [(0.06, 30.2), (0.11, 33.0), (0.23, 35.9), (0.35, 37.6), (0.5, 39.4)]


def test_a_curve_against_itself_is_zero() -> None:
    curve = Curve(POINTS)
    rate, quality = bd_rate(curve, curve), bd_quality(curve, curve)
    assert (rate.value, quality.value) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert (rate.low, rate.high, rate.overlap, rate.overlap_of_test, rate.note) == (31.0, 38.3, 1.0, 1.0, "")
    assert (quality.low, quality.high) == (pytest.approx(0.05), pytest.approx(0.4))


def test_ten_per_cent_fewer_bits_are_minus_ten_per_cent() -> None:
    cheaper = Curve((0.9 * rate, quality) for rate, quality in POINTS)
    assert bd_rate(Curve(POINTS), cheaper).value == pytest.approx(-10, abs=1e-9)
    assert bd_rate(cheaper, Curve(POINTS)).value == pytest.approx(100 / 9, abs=1e-9)


def test_one_decibel_better_is_plus_one() -> None:
    better = Curve((rate, quality + 1) for rate, quality in POINTS)
    found = bd_quality(Curve(POINTS), better)
    assert found.value == pytest.approx(1, abs=1e-9)
    assert bd_quality(better, Curve(POINTS)).value == pytest.approx(-1, abs=1e-9)


def test_the_package_says_the_same() -> None:
    (r1, q1), (r2, q2) = zip(*POINTS, strict=True), zip(*OTHER, strict=True)
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    a, b = Curve(reversed(POINTS)), Curve(OTHER[::-1])
    rate, quality = bd_rate(a, b), bd_quality(a, b)
    assert rate.value == pytest.approx(float(bjontegaard.bd_rate(r1, q1, r2, q2, **options)), abs=1e-9)
    assert quality.value == pytest.approx(float(bjontegaard.bd_psnr(r1, q1, r2, q2, **options)), abs=1e-9)
    assert abs(rate.value) > 1
    assert abs(quality.value) > 0.05


def test_the_overlap_is_stated() -> None:
    found = bd_rate(Curve(POINTS), Curve(OTHER))
    assert (found.low, found.high) == (31.0, 38.3)
    assert found.overlap == pytest.approx((38.3 - 31.0) / (39.4 - 30.2))
    assert found.overlap_of_test == pytest.approx((38.3 - 31.0) / (39.4 - 30.2))
    inside = Curve([(0.1, 33), (0.15, 34), (0.2, 35), (0.3, 36)])
    assert bd_rate(Curve(POINTS), inside).overlap_of_test == 1
    assert bd_rate(Curve(POINTS), inside).overlap == pytest.approx(3 / 7.3)


def test_no_overlap_no_number() -> None:
    far = Curve((100 * rate, quality + 20) for rate, quality in POINTS)
    for found, word in ((bd_rate(Curve(POINTS), far), "quality"), (bd_quality(Curve(POINTS), far), "rate")):
        assert (found.value, found.low, found.high, found.overlap) == (None, None, None, 0)
        assert word in found.note


def test_quality_that_falls_with_the_rate_has_no_bd_rate() -> None:
    broken = Curve([(0.05, 31.0), (0.1, 33.6), (0.2, 33.5), (0.4, 38.3)])
    assert bd_rate(Curve(POINTS), broken).value is None
    assert "tested curve does not rise" in bd_rate(Curve(POINTS), broken).note
    assert "anchor does not rise" in bd_rate(broken, Curve(POINTS)).note
    assert bd_quality(Curve(POINTS), broken).value is not None


def test_the_front_of_a_curve() -> None:
    broken = Curve([(0.05, 31.0), (0.1, 33.6), (0.2, 33.5), (0.3, 33.6), (0.4, 38.3)])
    assert broken.front().points == ((0.05, 31.0), (0.1, 33.6), (0.4, 38.3))
    assert Curve(POINTS).front() == Curve(POINTS)
    with pytest.raises(InputError, match="1 points"):
        Curve([(1, 33), (2, 32), (3, 31)]).front()


def test_beaten_points_of_an_anchor_are_left_out_and_told() -> None:
    def points(pairs: list[tuple[float, float]]) -> list[dict[str, float | None]]:
        none = dict.fromkeys(metric.key for metric in METRICS)
        return [none | {"bpp": rate, "psnr_y": quality} for rate, quality in pairs]

    broken = [*POINTS, (0.25, 34.0)]
    found = bd_figures(points(broken), points(OTHER))
    assert set(found) == {"psnr_y"}
    assert found["psnr_y"]["rate"]["value"] == bd_rate(Curve(POINTS), Curve(OTHER)).value
    assert found["psnr_y"]["rate"]["note"] == "1 of the anchor's points left out"
    found = bd_figures(points(POINTS), points(broken))["psnr_y"]["rate"]
    assert (found["value"], found["note"]) == (None, "quality of the tested curve does not rise with its rate")
    found = bd_figures(points([(1, 33), (2, 32), (3, 31)]), points(OTHER))["psnr_y"]
    assert (found["rate"]["value"], found["quality"]["value"]) == (None, None)
    assert "no BD figure" in found["quality"]["note"]


def test_three_points_are_told_and_two_refused() -> None:
    assert bd_rate(Curve(POINTS), Curve(POINTS[:3])).note == "from 3 points"
    with pytest.raises(InputError, match="2 points has no BD figure"):
        Curve(POINTS[:2])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(0, 30), (1, 31), (2, 32)], "positive"),
        ([(1, float("nan")), (2, 31), (3, 32)], "finite"),
        ([(1, 30), (1, 31), (2, 32)], "same rate"),
    ],
)
def test_bad_curves(points: list[tuple[float, float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Curve(points)


def test_no_figure_from_less_than_half_an_octave() -> None:
    """Three files of nearly the same size say nothing of a curve, whatever the anchor has."""
    near = Curve([(0.61, 42.9), (0.67, 43.0), (0.68, 43.1)])
    wide = Curve([(0.3, 40.0), (0.6, 42.9), (1.2, 45.8), (2.4, 48.0)])
    for delta in (bd_rate(wide, near), bd_rate(near, wide), bd_quality(wide, near), bd_quality(near, wide)):
        assert delta.value is None
        assert delta.note == "less than half an octave of bits in common"
    enough = Curve([(0.6, 42.0), (0.7, 42.6), (0.86, 43.5)])
    assert bd_rate(wide, enough).value is not None
    assert bd_quality(wide, enough).value is not None
