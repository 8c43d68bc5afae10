# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Cross-fitted ridge regression: how well features predict a set of rows, each by a fit on other rows.

Notable: nothing is as large as the number of rows squared, or as rows times sets: only the members of a set are
visited. The width of the null distribution depends on a set's size, so it is simulated: random sets of that size, and
an exponential tail fitted to the largest of them (Knijnenburg et al. 2009). With many rows, sums are made once for all
folds, and the random sets of one size are parts of those of the next, which is several times faster and rounds
differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import sparse


NUM_FOLDS = 5
TAIL = 0.02  # share of the random sets that the tail is fitted to
CHUNK = 1000  # sets at a time
LARGEST_SET = 2000  # rows of a random set: the upper quantiles of larger ones are the same
MANY_ROWS = 4000  # with more, the faster variants are used


class _Fold(NamedTuple):
    """What is computed once per fold: its rows, mean and inverse of the others, sums over its rows less that mean."""

    inside: np.ndarray
    outside: np.ndarray
    mean: np.ndarray
    inverse: np.ndarray
    total: np.ndarray
    gram: np.ndarray


class CrossFit:
    """
    Cross-fitted ridge regression on some features.

    Args:
        features (`np.ndarray` of shape `(R, D)`, float32):
            Features of the rows, of about unit variance.
        strength (`float`):
            Of the regularisation, in rows.
        seed (`int`):
            Chooses the folds and the random sets.
        num_sets (`int`, *optional*, defaults to `2000`):
            Random sets of each size.
    """

    def __init__(self, features: np.ndarray, strength: float, seed: int, num_sets: int = 2000) -> None:
        self.features = features.astype(np.float32, copy=False)
        self.seed, self.num_sets = seed, num_sets
        rng = np.random.Generator(np.random.PCG64(seed))
        self.folds = rng.permutation(len(features)) % NUM_FOLDS
        self._solved: list[_Fold] = []
        for fold in range(NUM_FOLDS):
            inside, outside = np.flatnonzero(self.folds == fold), np.flatnonzero(self.folds != fold)
            mean = self.features[outside].mean(0)
            centred = self.features[outside] - mean
            inverse = np.linalg.inv(centred.T @ centred + strength * np.eye(centred.shape[1], dtype=np.float32))
            held_out = self.features[inside] - mean
            self._solved.append(_Fold(inside, outside, mean, inverse, held_out.sum(0), held_out.T @ held_out))
        self._null: dict[int, np.ndarray] = {}

    def predict(self, targets: np.ndarray) -> np.ndarray:
        """
        Predictions out of fold.

        Args:
            targets (`np.ndarray` of shape `(R, K)`):
                Centred targets.

        Returns:
            `np.ndarray` of shape `(R, K)`
        """
        result = np.zeros(targets.shape, dtype=np.float32)
        for fold in self._solved:
            result[fold.inside] = (self.features[fold.inside] - fold.mean) @ self._weights(fold, targets)
        return result

    def predict_others(self, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """
        Predictions for rows outside the fit, each by the fit of one fold, so that they spread like those out of fold.

        Args:
            features (`np.ndarray` of shape `(N, D)`):
                Features of other rows.
            targets (`np.ndarray` of shape `(R, K)`):
                Centred targets of the rows that were fitted on.

        Returns:
            `np.ndarray` of shape `(N, K)`
        """
        result = np.zeros((len(features), targets.shape[1]), dtype=np.float32)
        for number, fold in enumerate(self._solved):
            result[number::NUM_FOLDS] = (features[number::NUM_FOLDS] - fold.mean) @ self._weights(fold, targets)
        return result

    def _weights(self, fold: _Fold, targets: np.ndarray) -> np.ndarray:
        outside = targets.astype(np.float32, copy=False)[fold.outside]
        weights: np.ndarray = fold.inverse @ ((self.features[fold.outside] - fold.mean).T @ outside)
        return weights

    def correlation(self, members: sparse.csr_array) -> np.ndarray:
        """
        Correlation of sets with what is predicted of them, about 0 where features say nothing.

        Args:
            members (`scipy.sparse.csr_array` of shape `(K, R)`):
                1 for the members of each set.

        Returns:
            `np.ndarray` of shape `(K,)`: what [`correlation`] gives for the predictions of centred columns.
        """
        parts = [self._correlation(members[start : start + CHUNK]) for start in range(0, members.shape[0], CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _correlation(self, members: sparse.csr_array) -> np.ndarray:
        if members.shape[1] > MANY_ROWS:
            return self._of_fold_sums(*self._fold_sums(members))
        sums = (
            (self._sums(members, fold.outside, fold.mean), self._sums(members, fold.inside, fold.mean))
            for fold in self._solved
        )
        return self._of_sums(sums, members.sum(1) / members.shape[1])

    def _of_sums(self, sums: Iterator[tuple[np.ndarray, np.ndarray]], shares: np.ndarray) -> np.ndarray:
        """Correlations, given for each fold the sums of the sets outside and inside of it, and the sets' sizes."""
        products, squares = np.zeros(len(shares)), np.zeros(len(shares))
        for fold, (outside, inside) in zip(self._solved, sums, strict=True):
            weights = outside @ fold.inverse
            products += (inside * weights).sum(1)
            products -= shares * (weights @ fold.total)
            squares += ((weights @ fold.gram) * weights).sum(1)
        norms = np.sqrt(squares.clip(0) * len(self.features) * shares * (1 - shares))
        return np.divide(products, norms, out=np.zeros(norms.shape), where=norms > 0)

    def _fold_sums(self, members: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
        """For each set the sum of its members' features in each fold, `(K, F, D)`, and their number, `(K, F)`."""
        number = members.shape[0]
        lines = NUM_FOLDS * np.repeat(np.arange(number), np.diff(members.indptr)) + self.folds[members.indices]
        shape = (number * NUM_FOLDS, members.shape[1])
        by_fold = sparse.csr_array(sparse.coo_array((members.data, (lines, members.indices)), shape=shape))
        sums = np.asarray(by_fold @ self.features).reshape(number, NUM_FOLDS, -1)
        return sums, by_fold.sum(1).reshape(number, NUM_FOLDS)

    def _of_fold_sums(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return self._of_sums(self._of_folds(sums, counts), counts.sum(1) / len(self.features))

    def _of_folds(self, sums: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each fold what [`_fold_sums`] gives, less the mean, outside and inside of it."""
        total, size = sums.sum(1), counts.sum(1)
        for place, fold in enumerate(self._solved):
            yield (
                total - sums[:, place] - np.outer(size - counts[:, place], fold.mean),
                sums[:, place] - np.outer(counts[:, place], fold.mean),
            )

    def _sums(self, members: sparse.csr_array, rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """For each set the sum of its members' features less the mean, over some rows. Shape `(K, D)`."""
        there = members[:, rows]
        return np.asarray(there @ self.features[rows]) - np.outer(there.sum(1), mean)

    def separation(self, members: sparse.csr_array) -> np.ndarray:
        """
        How far the rows of each set lie above the mean in the prediction of every set.

        Args:
            members (`scipy.sparse.csr_array` of shape `(K, R)`):
                1 for the members of each set.

        Returns:
            `np.ndarray` of shape `(K, K)`: for the predicted set of the line and the rows of the column, the mean
            prediction less that of all rows, in standard deviations of the prediction.
        """
        sums, counts = self._fold_sums(members)
        number, num_rows = len(sums), len(self.features)
        products, squares, totals = np.zeros((number, number)), np.zeros(number), np.zeros(number)
        for fold, (outside, inside) in zip(self._solved, self._of_folds(sums, counts), strict=True):
            weights = outside @ fold.inverse
            products += weights @ inside.T
            squares += ((weights @ fold.gram) * weights).sum(1)
            totals += weights @ fold.total
        means = totals / num_rows
        deviations = np.sqrt((squares / num_rows - means**2).clip(1e-12))
        return (products / counts.sum(1).clip(1) - means[:, None]) / deviations[:, None]

    def p_value(self, size: int, value: float) -> float:
        """Probability that a random set of `size` rows is predicted with a correlation of `value` or more."""
        null = self._null_of(_round_size(size, len(self.features)))
        above = len(null) - np.searchsorted(null, value)
        if above >= TAIL * len(null) / 2:
            return float((1 + above) / (1 + len(null)))
        start = null[int((1 - TAIL) * len(null))]
        mean_excess = max(float((null[null > start] - start).mean()), 1e-6)
        return float(TAIL * np.exp(-(value - start) / mean_excess))

    def _null_of(self, size: int) -> np.ndarray:
        number = len(self.features)
        if number > MANY_ROWS and not self._null:
            self._null = self._nested_nulls()
        if size not in self._null:
            rng = np.random.Generator(np.random.PCG64([self.seed, size]))
            drawn = [rng.choice(number, size, replace=False) for _ in range(self.num_sets)]
            self._null[size] = np.sort(self.correlation(sets_of(drawn, number)))
        return self._null[size]

    def _nested_nulls(self) -> dict[int, np.ndarray]:
        """The nulls of all sizes: each set of a size is the first rows of one of the largest."""
        number = len(self.features)
        rng = np.random.Generator(np.random.PCG64(self.seed))
        drawn = np.stack([rng.choice(number, LARGEST_SET, replace=False) for _ in range(self.num_sets)])
        sizes = sorted({_round_size(size, number) for size in range(1, 2 * LARGEST_SET)})
        nulls: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
        for chunk in np.split(drawn, range(CHUNK, len(drawn), CHUNK)):
            sums, counts, before = np.zeros(0), np.zeros(0), 0
            for size in sizes:
                added = self._fold_sums(sets_of(list(chunk[:, before:size]), number))
                sums, counts = (sums + added[0], counts + added[1]) if before else added
                nulls[size].append(self._of_fold_sums(sums, counts))
                before = size
        return {size: np.sort(np.concatenate(parts)) for size, parts in nulls.items()}


def sets_of(members: list[np.ndarray], num_rows: int) -> sparse.csr_array:
    """Sets of rows as the lines of a sparse matrix. Shape `(K, num_rows)`, float32."""
    ends = np.cumsum([0, *map(len, members)])
    columns = np.concatenate([np.zeros(0, dtype=np.int64), *members])
    return sparse.csr_array((np.ones(ends[-1], np.float32), columns, ends), shape=(len(members), num_rows))


def centred(is_member: np.ndarray) -> np.ndarray:
    """Members of a set `(R,)`, bool or 0 and 1, as a target. Shape `(R, 1)`, float32."""
    values = is_member.astype(np.float32)
    return (values - values.mean())[:, None]


def correlation(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cosine of two sets of centred columns; 0 where one is zero. Shape `(K,)`."""
    norms = np.sqrt((predictions**2).sum(0) * (targets**2).sum(0))
    return np.divide((predictions * targets).sum(0), norms, out=np.zeros(norms.shape), where=norms > 0)


def partial_correlation(prediction: np.ndarray, target: np.ndarray, given: np.ndarray) -> float:
    """Correlation of a prediction and a target with a third variable regressed out of both, all of shape `(R, 1)`."""
    prediction, target, given = (values - values.mean() for values in (prediction, target, given))
    scale = max(float((given**2).sum()), 1e-9)
    rest = [values - given * float((given * values).sum()) / scale for values in (prediction, target)]
    return float(correlation(*rest)[0])


class Whitening:
    """
    The leading principal components of some values, at unit variance.

    Args:
        values (`np.ndarray` of shape `(R, D)`):
            Values to find them in.
        components (`int`):
            How many, or as many as there are.
        is_scaled (`bool`, *optional*, defaults to `False`):
            Whether each value is scaled to unit variance first.
    """

    def __init__(self, values: np.ndarray, components: int, is_scaled: bool = False) -> None:
        self.mean = values.mean(0, dtype=np.float64)
        self.scale = np.ones(values.shape[1])
        if is_scaled:
            spread = values.std(0, dtype=np.float64)
            # A value that hardly varies tells rounding errors apart
            self.scale = np.where(spread > 1e-4, spread, np.inf)
        centred = self._centred(values)
        variances, directions = np.linalg.eigh(centred.T @ centred / max(len(centred), 1))
        # Rounding noise of constant features is left out: it would be blown up
        order = [place for place in np.argsort(-variances)[:components] if variances[place] > 1e-9 * variances.max()]
        self.directions, self.deviations = directions[:, order], np.sqrt(variances[order])

    def of(self, values: np.ndarray) -> np.ndarray:
        """The components of these or other values `(N, D)`, float32 of shape `(N, C)`; a 0 each if there are none."""
        if not len(self.deviations):
            return np.zeros((len(values), 1), dtype=np.float32)
        return (self._centred(values) @ self.directions / self.deviations).astype(np.float32)

    def _centred(self, values: np.ndarray) -> np.ndarray:
        result: np.ndarray = (values.astype(np.float64) - self.mean) / self.scale
        return result


def whiten(values: np.ndarray, components: int) -> np.ndarray:
    """The leading principal components of values `(R, D)` at unit variance; see [`Whitening`]."""
    return Whitening(values, components).of(values)


def benjamini_hochberg(p_values: np.ndarray, rate: float) -> np.ndarray:
    """Which hypotheses to reject at this false discovery rate (Benjamini and Hochberg 1995). Bool, same shape."""
    order = np.argsort(p_values)
    passes = np.flatnonzero(p_values[order] <= rate * np.arange(1, len(order) + 1) / max(len(order), 1))
    result = np.zeros(len(p_values), dtype=bool)
    if len(passes):
        result[order[: passes[-1] + 1]] = True
    return result


def adjusted_p_values(p_values: np.ndarray) -> np.ndarray:
    """The rates at which [`benjamini_hochberg`] begins to reject each hypothesis, at most 1; same shape."""
    order = np.argsort(p_values)
    rates = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    result = np.empty(len(order))
    result[order] = np.minimum.accumulate(rates[::-1])[::-1].clip(max=1)
    return result


def _round_size(size: int, num_rows: int) -> int:
    """Round a size to steps of a quarter, or of a half, up to the largest, so that few nulls have to be simulated."""
    rounded, step = 3.0, 1.25 if num_rows <= MANY_ROWS else 1.5
    while rounded * round(step**0.5, 3) < size:
        rounded *= step
    return int(min(round(rounded), LARGEST_SET, max(1, num_rows // 2)))
