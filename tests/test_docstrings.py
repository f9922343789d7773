"""The examples in docstrings run as they are written."""

import inspect
import re
import textwrap

import pytest
import torch

import scorefield as sf

EXAMPLES = [sf.LinearOperator, sf.Metric, sf.networks]


@pytest.mark.parametrize("thing", EXAMPLES, ids=lambda t: t.__name__)
def test_an_example_runs(thing):
    text = inspect.getdoc(thing)
    code = re.search(r"::\n\n((?:[ ]{4,}.*\n?|\n)+)", text + "\n").group(1)
    exec(textwrap.dedent(code), {"sf": sf, "torch": torch})
