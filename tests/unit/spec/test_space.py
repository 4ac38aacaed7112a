from __future__ import annotations

import pytest

from tunery.spec import Choice, IntUniform, LogUniform, Range, Uniform

RANGES: list[tuple[Range, list[object], list[object]]] = [
    (Choice(choice=(4, 8)), [4, 8], [5, "4", True, None]),
    (Choice(choice=(True, "a", None)), [True, "a", None], [1, "b", False]),
    (Choice(choice=(1,)), [1], [True]),
    (Uniform(uniform=(0.0, 0.5)), [0, 0.0, 0.25, 0.5], [-0.1, 0.6, "0.2", False, None]),
    (LogUniform(log_uniform=(1e-5, 1e-3)), [1e-5, 1e-4, 1e-3], [0, 1e-6, 1.0]),
    (IntUniform(int_uniform=(1, 3)), [1, 2, 3], [0, 4, 1.5, True]),
]


@pytest.mark.parametrize(("given", "inside", "outside"), RANGES)
def test_a_range_knows_what_it_can_draw(given: Range, inside: list[object], outside: list[object]) -> None:
    assert all(given.contains(value) for value in inside)
    assert not any(given.contains(value) for value in outside)
    assert all(given.contains(end) for end in given.ends())
    assert given.describe()


def test_a_range_of_listed_values_lists_them() -> None:
    assert Choice(choice=(4, "a")).listed() == (4, "a")
    assert list(IntUniform(int_uniform=(1, 3)).listed() or ()) == [1, 2, 3]
    assert Uniform(uniform=(0, 1)).listed() is None
    assert LogUniform(log_uniform=(1, 2)).listed() is None


def test_one_and_true_are_different_choices() -> None:
    assert Choice(choice=(1, True, 1.0)).choice == (1, True, 1.0)
    with pytest.raises(ValueError, match="distinct"):
        Choice(choice=(1, 2, 1))
