"""Vectors as rows of a binary COPY: half floats are the nearest, as numpy's."""

import numpy as np
import pytest

from db.copy import halves

LEAST_NORMAL = 2.0**-14


def test_every_half_and_what_lies_between_two_of_them() -> None:
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    between = (every[:-1] + every[1:]) // 2  # a tie, of which the even one is taken
    floats = np.concatenate([every, between - 1, between, between + 1]).view(np.float32)
    floats = np.concatenate([floats, -floats]).reshape(2, -1)
    found, numpys = halves(floats), floats.astype(np.float16).view(np.uint16)
    differ = found != numpys
    assert np.all(np.abs(floats[differ]) < LEAST_NORMAL)
    errors = np.abs(found.view(np.float16).astype(np.float64) - floats)
    assert np.all(errors[differ] <= 2.0**-25 * 1.001)  # half of the step between two subnormal ones


@pytest.mark.parametrize("odd", [65_519.9, 65_520.0, -65_520.0, 7e4, -7e4, 1e30, np.inf, -np.inf, np.nan, 1e-45])
def test_numbers_beyond_a_half(odd: float) -> None:
    floats = np.array([[0.5, odd, -0.25]], dtype=np.float32)
    with np.errstate(over="ignore"):
        assert np.array_equal(halves(floats), floats.astype(np.float16).view(np.uint16))


def test_no_vectors_have_no_halves() -> None:
    assert halves(np.zeros((0, 384), dtype=np.float32)).shape == (0, 384)
