"""Some hundred hostile inputs for each reader; tests/durability/fuzz.py tries a hundred thousand."""

import pytest
from attack import attack
from targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_is_taken_or_refused_in_words(name: str) -> None:
    found = attack(name, 200)
    assert found.tried == 200
    assert found.broken == 0, found.breaches
    assert 0 < found.accepted < 200  # the inputs are neither all harmless nor all nonsense
