"""Settings shared by every test."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """Start every test from the same random numbers, whichever tests its process ran before."""
    torch.manual_seed(0)


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz",
        type=int,
        default=2000,
        help="how many configurations test_finite.py tries, a multiple of 100",
    )
    parser.addoption(
        "--kills",
        type=int,
        default=10,
        help="how often test_damage.py kills a training, and how often it asks one to stop",
    )
    parser.addoption(
        "--all", action="store_true", help="also run the tests that are marked as exhaustive"
    )


def pytest_collection_modifyitems(config, items):
    """Leave out exhaustive tests, but for those that are given by name."""
    if not config.getoption("--all"):
        named = any("::" in word for word in config.args)
        left = {item for item in items if item.get_closest_marker("exhaustive") and not named}
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def pytest_configure(config):
    # torch warns of itself when forward-mode autodiff or its compiler is used for the first time
    config.addinivalue_line(
        "filterwarnings", "ignore:.torch.jit.script(_method)?. is deprecated:DeprecationWarning"
    )
