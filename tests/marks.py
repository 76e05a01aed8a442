"""A mark for values in a list of parameters."""

import pytest


def slow(*values, **keywords):
    """These values are for the long run; others prove the same in the quick one."""
    return pytest.param(*values, marks=pytest.mark.slow, **keywords)
