"""The models that Tenon was asked for first, at toy sizes: their training steps in the simulator are the CPU's."""

from __future__ import annotations

import pytest
from cuda_programs import MODELS, check_seed


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_seeds_training_is_the_cpus(name):
    check_seed(name)
