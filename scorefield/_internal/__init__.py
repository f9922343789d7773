"""Helpers that are not part of the public API."""

from scorefield._internal import errors as errors
