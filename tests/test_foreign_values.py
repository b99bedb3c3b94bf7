"""What a tensor says to NumPy's functions, to other frameworks' tensors, and to PyTorch's names that it lacks."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest

import tenon as tn
from frontend import absent
from tenon import F, nn

ARRAY = np.array([1.5, -2.0, 4.0], np.float32)


class Foreign:
    """A tensor of another framework, as far as NumPy knows it."""

    def __array__(self, dtype=None, copy=None):
        return np.asarray(ARRAY, dtype)


def in_both(function):
    """``function`` of a known tensor, and of a symbolic one."""
    return [np.asarray(function(tn.tensor(ARRAY))), tn.compile(function, tn.spec(3), target="reference")(ARRAY)]


def assert_refuses(function, error, *words):
    for run in (lambda: function(tn.tensor(ARRAY)), lambda: tn.compile(function, tn.spec(3), target="reference")):
        with pytest.raises(error) as caught:
            run()
        assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lt", "eq", "ge"])
def test_arrays_on_either_side_of_an_operator(name):
    apply = getattr(operator, name)
    other = np.array([2.0, 3.0, 0.5], np.float32)
    for found in in_both(lambda x: apply(x, other)):
        np.testing.assert_allclose(found, apply(ARRAY, other), rtol=1e-6)
    for found in in_both(lambda x: apply(np.abs(ARRAY), x)):
        np.testing.assert_allclose(found, apply(np.abs(ARRAY), ARRAY), rtol=1e-6)


def test_a_numpy_number_on_the_left():
    for found in in_both(lambda x: np.float32(2) * x - np.float32(1)):
        np.testing.assert_array_equal(found, 2 * ARRAY - 1)


def test_numpys_functions_say_what_to_use():
    assert_refuses(lambda x: np.exp(x), tn.UnsupportedError, "np.exp takes NumPy arrays", "tn.exp")
    assert_refuses(lambda x: np.maximum(x, 0), tn.UnsupportedError, "tn.maximum")
    assert_refuses(lambda x: np.add.reduce(x), tn.UnsupportedError, "np.add")
    assert_refuses(lambda x: np.sum(x), tn.UnsupportedError, "x.sum()")
    assert_refuses(lambda x: np.mean(x, axis=0), tn.UnsupportedError, "tn.mean(x)")


def test_a_foreign_tensor_is_named():
    assert_refuses(lambda x: x + Foreign(), tn.DTypeError, "Foreign", "tn.tensor(x)")
    assert_refuses(lambda x: Foreign() * x, TypeError)
    assert_refuses(lambda x: tn.exp(Foreign()), tn.DTypeError, "Foreign", "tn.tensor(x)")
    assert_refuses(lambda x: F.relu([1.0, 2.0]), tn.DTypeError, "not list", "tn.tensor(x)")
    np.testing.assert_array_equal(np.asarray(tn.tensor(Foreign())), ARRAY)


def test_operands_that_are_nothing_numeric():
    assert_refuses(lambda x: x + "a", TypeError, "unsupported operand")
    assert_refuses(lambda x: x * None, TypeError, "unsupported operand")


@pytest.mark.parametrize("name", ["add_", "mul_", "clamp_", "relu_", "squeeze_"])
def test_methods_in_place(name):
    assert_refuses(lambda x: getattr(x, name)(1), tn.UnsupportedError, f"no {name}()", f"x = x.{name[:-1]}(")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(tn.tensor(ARRAY), n) for n in absent.METHODS] + [(tn, n) for n in absent.FUNCTIONS],
    ids=[f"x.{n}" for n in absent.METHODS] + [f"tn.{n}" for n in absent.FUNCTIONS],
)
def test_what_is_absent_is_explained_where_it_is_asked_for(owner, name):
    assert not hasattr(owner, name)
    with pytest.raises(tn.UnsupportedError, match=f"there is no {name}"):
        getattr(owner, name)


def test_other_attributes_are_just_missing():
    x = tn.tensor(ARRAY)
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = x.colour
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = tn.colour
    with pytest.raises(ImportError, match="no_grad"):
        from tenon import no_grad  # noqa: F401


def test_tensors_and_parameters_are_copied_and_pickled():
    x = tn.tensor(ARRAY)
    for twin in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        np.testing.assert_array_equal(twin.numpy(), ARRAY)
    weight = nn.Parameter(ARRAY)
    for twin in (copy.deepcopy(weight), pickle.loads(pickle.dumps(weight))):
        np.testing.assert_array_equal(twin.numpy(), ARRAY)


def test_a_dtype_equals_its_names():
    x = tn.tensor(ARRAY)
    assert x.dtype == np.float32 == x.dtype and x.dtype == "float32" and x.dtype == "f32" and x.dtype == tn.float32
    assert x.dtype == np.dtype("f4") and x.dtype == float
    assert x.dtype != np.float64 and x.dtype != "text" and x.dtype != 4 and x.dtype is not None
    assert x.dtype in (np.float16, np.float32) and {x.dtype: 1}[tn.f32] == 1
