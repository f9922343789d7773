"""Synthetic tables: scorefield beside a Gaussian copula, random forests, CTGAN and TVAE.

    python benchmarks/tables.py                              all twelve tables and methods
    python benchmarks/tables.py --only wine --methods ours,copula
    python benchmarks/tables.py --only cars --methods ours --rows 60 --steps 400   few rows

One seed takes about one to two CPU minutes for each table and trained method, about two hours in
all. Each method learns from one half of a table's rows, and generates as many rows. The other half
is held out.

- *AUC*: of a forest that separates generated rows from held-out ones, by 5-fold cross-validation;
  0.5 is best.
- *Wasserstein*: mean over columns, numbers in deviations of the held-out column; total variation
  for categories.
- *correlation*: mean absolute difference of rank correlations, with categories as indicators.
- *downstream*: accuracy (or R2 for numbers) on held-out rows of a forest trained on generated rows.
- *closest*: mean distance of generated rows to their closest training row, divided by that of
  held-out rows; near 0 for copies.
- *seconds*: CPU seconds of training and generation, on one thread.

*floor* returns the training rows, and *bootstrap* adds normal noise of a tenth of a deviation to
rows drawn with replacement. Synthesizers of sdv and arfpy have their default settings. arfpy
rejects missing values, which are filled for it by medians, and a column called value, so columns
are renamed for it. Results go to results/tables.json beside this file, after each method.

Peers: pip install sdv arfpy palmerpenguins vega_datasets statsmodels scikit-learn
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from machine import facts
from public_tables import CHOICE, JUDGED, public_table
from scipy.stats import wasserstein_distance
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

RESULTS = Path(__file__).parent / "results" / "tables.json"


# --- numbers of a frame --------------------------------------------------------------------------


def numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


class Features:
    """Floats of a frame: numbers and days since the first, categories as one column each."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.levels = {
            c: sorted(frame[c].dropna().astype(str).unique())
            for c in frame
            if not numeric(frame[c]) and not pd.api.types.is_datetime64_any_dtype(frame[c])
        }
        self.columns = list(frame.columns)
        self.median = {
            c: float(np.nanmedian(self.number(frame[c]))) for c in frame if c not in self.levels
        }

    def number(self, column: pd.Series) -> np.ndarray:
        if pd.api.types.is_datetime64_any_dtype(column):
            days = (column - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
            return days.to_numpy(dtype=float)
        return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)

    def __call__(self, frame: pd.DataFrame, *, one_hot: bool = False) -> np.ndarray:
        parts = []
        for c in self.columns:
            if c not in self.levels:
                value = self.number(frame[c])
                gap = np.isnan(value)
                parts += [np.where(gap, self.median[c], value)[:, None], gap[:, None]]
                continue
            text = frame[c].astype(str).where(frame[c].notna(), "")
            if one_hot:
                parts.append(np.stack([text == level for level in self.levels[c]], 1))
            else:
                order = {level: i for i, level in enumerate(self.levels[c])}
                parts.append(text.map(lambda t, o=order: o.get(t, -1)).to_numpy()[:, None])
        return np.concatenate(parts, 1).astype(float)


# --- figures -------------------------------------------------------------------------------------


def auc(real: pd.DataFrame, made: pd.DataFrame) -> float:
    features = Features(real)
    x = np.concatenate([features(real), features(made)])
    y = np.r_[np.ones(len(real)), np.zeros(len(made))]
    forest = RandomForestClassifier(200, min_samples_leaf=3, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    chance = cross_val_predict(forest, x, y, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(y, chance))


def distance(real: pd.DataFrame, made: pd.DataFrame) -> float:
    features, found = Features(real), []
    for c in real:
        if c in features.levels:
            p, q = (f[c].astype(str).value_counts(normalize=True) for f in (real, made))
            found.append(0.5 * float(p.sub(q, fill_value=0).abs().sum()))
        else:
            a, b = (features.number(f[c]) for f in (real, made))
            a, b = a[~np.isnan(a)], b[~np.isnan(b)]
            found.append(wasserstein_distance(a, b) / (a.std() or 1) if len(b) else 1.0)
    return float(np.mean(found))


def correlation(real: pd.DataFrame, made: pd.DataFrame) -> float:
    features = Features(real)

    def ranks(frame: pd.DataFrame) -> np.ndarray:
        table = pd.DataFrame(features(frame, one_hot=True)).rank()
        return np.nan_to_num(np.corrcoef(table.to_numpy().T))

    with np.errstate(all="ignore"):
        a, b = ranks(real), ranks(made)
    return float(np.abs(a - b)[np.triu_indices(len(a), 1)].mean())


def downstream(
    made: pd.DataFrame, held_out: pd.DataFrame, train: pd.DataFrame, target: str
) -> float:
    features = Features(train.drop(columns=target))
    x, z = features(made), features(held_out)
    goal = train[target]
    if numeric(goal) and goal.nunique() > 10:
        ok, good = made[target].notna(), held_out[target].notna()
        forest = RandomForestRegressor(200, min_samples_leaf=3, random_state=0)
        forest.fit(x[ok], made[target][ok].astype(float))
        return float(r2_score(held_out[target][good].astype(float), forest.predict(z[good])))
    forest = RandomForestClassifier(200, min_samples_leaf=3, random_state=0)
    label = (
        (lambda s: s.astype(float).round(6).astype(str))
        if numeric(goal)
        else (lambda s: s.astype(str).where(s.notna(), ""))
    )
    forest.fit(x, label(made[target]))
    return float((forest.predict(z) == label(held_out[target])).mean())


def closest(made: pd.DataFrame, held_out: pd.DataFrame, train: pd.DataFrame) -> float:
    features = Features(train)
    base = features(train, one_hot=True)
    scale = base.std(0)
    scale[scale == 0] = 1
    near = NearestNeighbors(n_neighbors=1).fit(base / scale)
    d = [near.kneighbors(features(f, one_hot=True) / scale)[0][:, 0] for f in (made, held_out)]
    return float(d[0].mean() / max(d[1].mean(), 1e-12))


# --- methods -------------------------------------------------------------------------------------


SETTINGS: dict[str, int] = {}  # of training


def ours(train: pd.DataFrame, seed: int) -> pd.DataFrame:
    import scorefield as sf

    run = sf.train(train, seed=seed, **SETTINGS)
    return run.sample_table(len(train), seed=seed).to_pandas()


def sdv(kind: str) -> Callable[[pd.DataFrame, int], pd.DataFrame]:
    def make(train: pd.DataFrame, seed: int) -> pd.DataFrame:
        from sdv import single_table
        from sdv.metadata import Metadata

        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        metadata = Metadata.detect_from_dataframes({"table": train})
        model = getattr(single_table, kind)(metadata)
        model.fit({"table": train})
        return model.sample(len(train))["table"]

    return make


def forests(train: pd.DataFrame, seed: int) -> pd.DataFrame:
    from arfpy import arf

    np.random.seed(seed)  # noqa: NPY002
    np.in1d = np.isin  # noqa: NPY201, which arfpy 0.1.1 calls, and numpy 2.4 lacks
    filled = train.copy()
    for c in filled:  # arfpy takes no missing values and no dates
        if pd.api.types.is_datetime64_any_dtype(filled[c]):
            filled[c] = (filled[c] - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
        if numeric(filled[c]):
            filled[c] = filled[c].astype(float).fillna(filled[c].median())
        else:
            filled[c] = filled[c].astype(str).astype("category")
    # arfpy has columns of its own that are called value and variable
    filled.columns = [f"column {k}" for k in range(filled.shape[1])]
    model = arf.arf(x=filled, random_state=seed, verbose=False)
    model.forde()
    made = model.forge(n=len(train))[list(filled.columns)].set_axis(list(train.columns), axis=1)
    for c in train:
        if pd.api.types.is_datetime64_any_dtype(train[c]):
            made[c] = pd.Timestamp("1970-01-01") + pd.to_timedelta(made[c], unit="D")
    return made


def bootstrap(train: pd.DataFrame, seed: int) -> pd.DataFrame:
    made = train.sample(len(train), replace=True, random_state=seed).reset_index(drop=True)
    generator = np.random.default_rng(seed)
    for c in made:
        if numeric(made[c]) and made[c].nunique() > 10:
            made[c] = made[c] + 0.1 * train[c].std() * generator.normal(size=len(made))
    return made


METHODS: dict[str, Callable[[pd.DataFrame, int], pd.DataFrame]] = {
    "floor": lambda train, seed: train,
    "bootstrap": bootstrap,
    "ours": ours,
    "copula": sdv("GaussianCopulaSynthesizer"),
    "ctgan": sdv("CTGANSynthesizer"),
    "tvae": sdv("TVAESynthesizer"),
    "arf": forests,
}


def measure(name: str, method: str, seed: int, rows: int | None) -> dict[str, float]:
    table = public_table(name)
    train, held_out = table.halves()
    train = train[:rows]
    start = time.process_time()
    made = METHODS[method](train, seed)[list(train.columns)]
    seconds = time.process_time() - start
    return {
        "auc": auc(held_out, made),
        "wasserstein": distance(held_out, made),
        "correlation": correlation(held_out, made),
        "downstream": downstream(made, held_out, train, table.target),
        "closest": closest(made, held_out, train),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default=",".join(CHOICE + JUDGED))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, help="rows to learn from, at most")
    parser.add_argument("--steps", type=int, help="of ours")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if options.steps:
        SETTINGS["steps"] = options.steps
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.only.split(","):
        for method in options.methods.split(","):
            try:
                row = measure(name, method, options.seed, options.rows)
            except Exception as error:  # a peer that cannot take the table is a result
                print(f"{name:16} {method:10} {type(error).__name__}: {error}"[:160], flush=True)
                continue
            found.setdefault(name, {})[method] = row
            print(f"{name:16} {method:10}", *(f"{k} {v:.3f}" for k, v in row.items()), flush=True)
            found["machine"] = facts()
            options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
