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
        default=20,
        help="how often test_damage.py kills a training, and how often it asks one to stop",
    )
    parser.addoption(
        "--every-pipeline",
        action="store_true",
        help="test_pipelines.py runs every solver in every pipeline, not in a quarter of them each",
    )


def pytest_configure(config):
    # torch warns of itself when forward-mode autodiff or its compiler is used for the first time
    config.addinivalue_line(
        "filterwarnings", "ignore:.torch.jit.script(_method)?. is deprecated:DeprecationWarning"
    )
