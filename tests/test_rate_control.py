"""Rate control: lambda moves the right way, and the budget spends what is wanted where the law holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.core.errors import EncodeError
from nvcodec.encoder.rate_control import (
    AIM,
    LAMBDA_RANGE,
    SLOPE,
    TOLERANCE,
    Target,
    UnitBudget,
    between,
    first_lambda,
    lambda_for_quality,
    measured_slope,
    next_lambda,
)

lambdas = st.floats(1, 1e5)
amounts = st.floats(10, 1e8)


def test_tolerance_lies_within_the_promise() -> None:
    """95 % to 102 % of the target is what users are told."""
    assert 0.95 < TOLERANCE[0] < AIM < TOLERANCE[1] < 1.02


@settings(deadline=None)
@given(lambdas, amounts, amounts)
def test_lambda_rises_when_too_much_was_spent(lmbda: float, bits: float, wanted: float) -> None:
    moved = next_lambda(lmbda, bits, wanted)
    assert LAMBDA_RANGE[0] <= moved <= LAMBDA_RANGE[1]
    if bits > 1.01 * wanted:
        assert moved > lmbda
    if bits < 0.99 * wanted:
        assert moved < lmbda


@settings(deadline=None)
@given(st.floats(10, 1e4), amounts, st.floats(0.4, 2.5))
def test_next_lambda_obeys_the_law(lmbda: float, wanted: float, ratio: float) -> None:
    moved = next_lambda(lmbda, wanted * ratio, wanted)
    assert wanted * ratio * (moved / lmbda) ** -SLOPE == pytest.approx(wanted)


def test_next_lambda_stays_when_the_target_is_met() -> None:
    assert next_lambda(100, 5000, 5000) == 100


def test_next_lambda_takes_bounded_steps() -> None:
    assert next_lambda(100, 1e9, 1) == pytest.approx(625)
    assert next_lambda(100, 1, 1e9) == pytest.approx(16)
    assert next_lambda(100, 0, 0) == 100
    assert next_lambda(LAMBDA_RANGE[1], 1e9, 1) == LAMBDA_RANGE[1]
    assert next_lambda(LAMBDA_RANGE[0], 1, 1e9) == LAMBDA_RANGE[0]


@settings(deadline=None)
@given(st.floats(1e-6, 100), st.floats(1.01, 100))
def test_first_lambda_falls_with_the_bits_there_are(bpp: float, factor: float) -> None:
    low, high = first_lambda(bpp, 30), first_lambda(bpp * factor, 30)
    assert LAMBDA_RANGE[0] <= high <= low <= LAMBDA_RANGE[1]
    assert high < low or low == LAMBDA_RANGE[0] or high == LAMBDA_RANGE[1]


def test_quality_is_a_quantiser_scale() -> None:
    assert lambda_for_quality(12) == 0.85
    assert lambda_for_quality(15) == pytest.approx(1.7)
    assert lambda_for_quality(30) == pytest.approx(54.4)


@pytest.mark.parametrize(("size", "lmbda"), [(None, None), (100.0, 5.0)])
def test_target_is_one_thing(size: float | None, lmbda: float | None) -> None:
    with pytest.raises(EncodeError, match="either a size or a fixed lambda"):
        Target(size, lmbda)


# The budget


def spend_all(budget: UnitBudget, complexity: list[float], slope: float) -> list[float]:
    """A video whose units take ``complexity * lambda ** -slope`` bits."""
    spent = []
    for number, bits in enumerate(complexity):
        spent.append(bits * budget.lmbda(number, number) ** -slope)
        budget.spend(spent[-1])
    return spent


@settings(deadline=None)
@given(st.lists(st.floats(1e3, 1e6), min_size=1, max_size=20), st.floats(0.5, 2), st.floats(30, 3000))
def test_budget_spends_what_is_wanted_under_the_law(complexity: list[float], ratio: float, lmbda: float) -> None:
    before = [c * lmbda**-SLOPE for c in complexity]
    wanted = ratio * sum(before)
    spent = spend_all(UnitBudget(wanted, before, [lmbda] * len(before)), complexity, SLOPE)
    assert sum(spent) == pytest.approx(wanted)


def test_budget_has_one_lambda_for_all_units() -> None:
    """Whatever lambda they had in the pass before: bits are worth the same in all of them."""
    used, complexity = [100.0, 150.0, 300.0], [20000.0, 18000.0, 11000.0]
    before = [c * u**-SLOPE for c, u in zip(complexity, used, strict=True)]
    budget = UnitBudget(1000.0, before, used)
    found = [budget.start]
    for number, bits in enumerate(complexity):
        found.append(budget.lmbda(number, number))
        budget.spend(bits * found[-1] ** -SLOPE)
    assert found == pytest.approx([(sum(complexity) / 1000.0) ** (1 / SLOPE)] * 4)


def test_budget_that_keeps_the_proportions_between_units() -> None:
    used = [100.0, 150.0, 300.0]
    budget = UnitBudget(1000.0, [1000.0, 600.0, 400.0], used, even=False)
    found = []
    for number, bits in enumerate((500.0, 300.0, 200.0)):
        found.append(budget.lmbda(number, number))
        budget.spend(bits)
    factor = 2 ** (1 / SLOPE)
    assert found == pytest.approx([factor * u for u in used])


def test_between_attempts() -> None:
    assert between([], 100.0) is None
    assert between([(10.0, 200.0), (20.0, 150.0)], 100.0) is None
    assert between([(10.0, 400.0), (40.0, 25.0)], 100.0) == pytest.approx(20.0)
    # the law may be off: never right beside one of them
    assert between([(10.0, 101.0), (1000.0, 1.0)], 100.0) == pytest.approx(10 * 100**0.15)
    # what is nearer in lambda counts, and a larger lambda that took more bits after all
    assert between([(1.0, 900.0), (10.0, 400.0), (40.0, 25.0), (500.0, 20.0)], 100.0) == pytest.approx(20.0)
    assert between([(5.0, 90.0), (10.0, 400.0), (40.0, 25.0)], 100.0) == pytest.approx(20.0)
    assert between([(40.0, 400.0), (10.0, 25.0)], 100.0) is None


def test_budget_corrects_what_went_wrong() -> None:
    """The first unit takes half as much again as it should: the others must give it back, and the reverse."""
    for first, direction in ((1500.0, 1), (500.0, -1)):
        budget = UnitBudget(4000.0, [1000.0] * 4, [100.0] * 4)
        assert budget.lmbda(0, 0) == pytest.approx(100)
        budget.spend(first)
        assert (budget.lmbda(1, 1) - 100) * direction > 5


def test_budget_goes_by_as_many_units_as_it_is_said() -> None:
    """The bits of a unit that may still be under way have no part, known or not."""
    bits = [1500.0, 700.0, 1200.0, 900.0]
    found = []
    for early in (0, 1):
        budget = UnitBudget(4000.0, [1000.0] * 4, [100.0] * 4)
        told = 0
        lambdas = []
        for number in range(4):
            while told < max(number - 1 + early, 0):
                budget.spend(bits[told])
                told += 1
            lambdas.append(budget.lmbda(number, max(number - 1, 0)))
        found.append(lambdas)
    assert found[0] == found[1]
    assert len(set(found[0])) == 3


@pytest.mark.parametrize("slope", [0.5, 1.0])
def test_budget_closes_in_where_the_law_is_another(slope: float) -> None:
    """Units of equal cost, twice what is wanted: within 5 %, though the exponent is not the assumed one."""
    complexity = [1e5] * 16
    before = [c * 100.0**-slope for c in complexity]
    spent = spend_all(UnitBudget(sum(before) / 2, before, [100.0] * 16), complexity, slope)
    assert sum(spent) == pytest.approx(sum(before) / 2, rel=0.05)
    known = spend_all(UnitBudget(sum(before) / 2, before, [100.0] * 16, slope), complexity, slope)
    assert sum(known) == pytest.approx(sum(before) / 2)


def test_budget_that_is_used_up_stays_finite() -> None:
    budget = UnitBudget(100.0, [50.0, 50.0, 50.0], [100.0] * 3)
    budget.spend(1e6)
    first = budget.lmbda(1, 1)
    assert 100 < first < budget.lmbda(2, 1) <= LAMBDA_RANGE[1]


def test_budget_without_a_past() -> None:
    """Nothing was spent before: no division by zero, and a lambda within the range."""
    budget = UnitBudget(100.0, [0.0, 0.0], [100.0, 100.0])
    assert LAMBDA_RANGE[0] <= budget.lmbda(0, 0) <= LAMBDA_RANGE[1]


# The slope


@settings(deadline=None)
@given(st.floats(0.4, 1.3), amounts, lambdas, st.floats(1.2, 10))
def test_slope_is_measured(slope: float, bits: float, lmbda: float, factor: float) -> None:
    pair = (bits, bits * factor**-slope)
    assert measured_slope(pair, (lmbda, lmbda * factor)) == pytest.approx(slope)
    assert measured_slope(pair[::-1], (lmbda * factor, lmbda)) == pytest.approx(slope)


def test_slope_is_kept_within_reason() -> None:
    assert measured_slope((100, 99), (10, 100)) == 0.35
    assert measured_slope((100, 200), (10, 100)) == 0.35  # more bits for a higher price: noise
    assert measured_slope((100, 1), (10, 12)) == 1.4
    assert measured_slope((100, 50), (10, 10.01)) == SLOPE
    assert measured_slope((0, 50), (10, 100)) == SLOPE
