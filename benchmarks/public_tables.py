"""Twelve public tables from scikit-learn, statsmodels, palmerpenguins and vega_datasets.

The defaults may be chosen by the tables in ``CHOICE``; those in ``JUDGED`` had no part in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

CHOICE = ("penguins", "diabetes", "wine", "fair", "grunfeld", "airports")
JUDGED = ("cars", "seattle-weather", "breast-cancer", "anes96", "randhie", "modechoice")


@dataclass(frozen=True)
class PublicTable:
    """A table, and the column that a model predicts from the others."""

    name: str
    frame: pd.DataFrame
    target: str

    def halves(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows to learn from and the held-out rows, shuffled by seed 0."""
        rows = self.frame.sample(frac=1, random_state=0).reset_index(drop=True)
        half = len(rows) // 2
        return rows[:half].copy(), rows[half : 2 * half].reset_index(drop=True)


def public_table(name: str) -> PublicTable:
    """Return a table by its name in `CHOICE` or `JUDGED`."""
    frame, target = _LOADERS[name]()
    return PublicTable(name, frame.reset_index(drop=True), target)


def _penguins() -> tuple[pd.DataFrame, str]:
    from palmerpenguins import load_penguins

    return load_penguins(), "species"


def _vega(name: str, target: str, without: tuple[str, ...] = ()) -> tuple[pd.DataFrame, str]:
    from vega_datasets import local_data

    return getattr(local_data, name)().drop(columns=list(without)), target


def _sklearn(name: str, **settings: object) -> tuple[pd.DataFrame, str]:
    from sklearn import datasets

    return getattr(datasets, f"load_{name}")(as_frame=True, **settings).frame, "target"


def _statsmodels(name: str, target: str, whole: tuple[str, ...] = ()) -> tuple[pd.DataFrame, str]:
    from statsmodels import datasets

    frame = getattr(datasets, name).load_pandas().data
    return frame.astype(dict.fromkeys(whole, "int64")), target


def _randhie() -> tuple[pd.DataFrame, str]:
    frame, target = _statsmodels("randhie", "mdvis")
    return frame.sample(4000, random_state=0), target


_LOADERS = {
    "penguins": _penguins,
    "diabetes": lambda: _sklearn("diabetes", scaled=False),
    "wine": lambda: _sklearn("wine"),
    "fair": lambda: _statsmodels("fair", "affairs"),
    "grunfeld": lambda: _statsmodels("grunfeld", "invest", ("year",)),
    "airports": lambda: _vega("airports", "state", ("iata", "name", "city")),
    "cars": lambda: _vega("cars", "Origin", ("Name",)),
    "seattle-weather": lambda: _vega("seattle_weather", "weather"),
    "breast-cancer": lambda: _sklearn("breast_cancer"),
    "anes96": lambda: _statsmodels("anes96", "vote"),
    "randhie": _randhie,
    "modechoice": lambda: _statsmodels("modechoice", "choice"),
}
