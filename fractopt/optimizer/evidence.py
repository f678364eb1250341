"""What a model-based optimizer knows: outcomes, points under way, and the last fit.

Changes by `apply` only. The posterior is computed when first asked for, always by the same steps: one
factorisation of what was known when the fit was recorded, then one extension for each later outcome in
its order. So a resumed search computes the very same bits as one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fractopt.optimizer.base import Lengthy
from fractopt.space import FloatArray, IntArray, Space
from fractopt.surrogate.features import Features
from fractopt.surrogate.gp import Hyperparameters
from fractopt.surrogate.kernel import KERNELS
from fractopt.surrogate.model import Choice, Model, choose, constants, from_constants
from fractopt.surrogate.transform import WARPS
from fractopt.trial import Asked, Event, Fitted, Kind, Observed, Recorded, Told

# Up to here one posterior of everything; beyond, posteriors of what is near (see `near`).
MOST_EXACT, NEAREST = 1000, 256
# A fit after every n / REFIT more outcomes; warp and kernel are chosen anew at RECHOOSE times as many.
REFIT, RECHOOSE = 20, 1.25


class Evidence:
    """Outcomes `unit` (n, d), `loss` (n,) with +inf for none, `stderr` (n,); pending points by id."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.features = Features(space)
        self.pending: dict[int, FloatArray] = {}
        self.choice: Choice | None = None
        self._rows = np.empty((64, space.dimension + 2))
        self._n = 0
        self._keys: set[tuple[int, ...]] = set()
        self._fitted = 0  # outcomes that the last fit was made of
        self._factored = 0  # outcomes known when it was recorded
        self._chosen = 0  # outcomes known when warp and kernel were last chosen
        self._model: Model | None = None
        self._conditioned = 0  # outcomes that `_model` is given

    def __len__(self) -> int:
        return self._n

    @property
    def unit(self) -> FloatArray:
        return self._rows[: self._n, :-2]

    @property
    def loss(self) -> FloatArray:
        return self._rows[: self._n, -2]

    @property
    def stderr(self) -> FloatArray:
        return self._rows[: self._n, -1]

    @property
    def has_value(self) -> bool:
        """Whether any outcome has a value at all."""
        return bool(np.isfinite(self.loss).any())

    def pending_points(self) -> FloatArray:
        """The points under way (k, d), in the order they were asked."""
        return np.array([*self.pending.values()]).reshape(-1, self.space.dimension)

    @property
    def known(self) -> int:
        """How many different points were asked or observed."""
        return len(self._keys)

    def is_known(self, key: tuple[int, ...]) -> bool:
        """Whether the point of that key (`Space.key`) was asked or observed already."""
        return key in self._keys

    # --- fitting

    @property
    def fit_is_due(self) -> bool:
        """Whether the hyperparameters are older than n / 20 outcomes, there are none, or they have no use.

        A model of logarithms has none where a loss came that is not positive.
        """
        if not self.has_value:
            return False
        if self.choice is None or self._n - self._fitted >= max(1, self._n // REFIT):
            return True
        return self._has_no_logarithm

    @property
    def _has_no_logarithm(self) -> bool:
        chosen = self.choice is not None and self.choice.transform.warp == "log"
        return chosen and float(self.loss.min()) <= 0.0

    @property
    def has_model(self) -> bool:
        """Whether there was a fit, and its model can take all outcomes: logarithms are of positive ones."""
        return self.choice is not None and not self._has_no_logarithm

    def fitted_before(self, decide: Callable[[], Recorded]) -> Recorded | Lengthy:
        """What `decide` decides from the model; or the fit that comes before, where one is due."""
        if not self.has_model:
            return self.fit()
        return Lengthy(self.fitting(), decide) if self.fit_is_due else decide()

    def fit(self) -> Fitted:
        """The event of a fit to all outcomes; changes nothing."""
        return self.fitting()()

    def fitting(self) -> Callable[[], Fitted]:
        """The same fit, made when and where this is called: later outcomes are not in it."""
        previous, count, features = self.choice, self._n, self.features
        unit, loss, stderr = self.unit, self.loss, self.stderr  # rows are added, never changed
        again = previous is None or count >= RECHOOSE * self._chosen or self._has_no_logarithm
        warps: tuple[str, ...] = WARPS
        kernels = tuple(KERNELS)
        if previous is not None and not again:
            warps, kernels = (previous.transform.warp,), (previous.parameters.kernel,)

        def fit() -> Fitted:
            choice = choose(features, unit, loss, stderr, previous=previous, warps=warps, kernels=kernels)
            parameters = choice.parameters
            return Fitted(
                count=count,
                lengthscale=parameters.lengthscale,
                signal=parameters.signal,
                noise=parameters.noise,
                mean=parameters.mean,
                kernel=parameters.kernel,
                warp=choice.transform.warp,
                constants=constants(choice.transform),
                rechosen=again,
            )

        return fit

    def model(self) -> Model:
        """The posterior of all outcomes. Raises RuntimeError before the first fit."""
        if self.choice is None:
            raise RuntimeError("no model was fitted yet")
        if self._model is None:
            known = slice(0, self._factored)
            self._model = Model.given(
                self.features, self.choice, self.unit[known], self.loss[known], self.stderr[known]
            )
            self._conditioned = self._factored
        while self._conditioned < self._n:
            new = slice(self._conditioned, self._conditioned + 1)
            self._model = self._model.and_given(self.unit[new], self.loss[new], self.stderr[new])
            self._conditioned += 1
        return self._model

    def near(self, point: FloatArray) -> tuple[Model, IntArray]:
        """The posterior of the outcomes nearest to `point` (d,) in length scales, and which those are.

        With the shared hyperparameters: exact in all but what the far outcomes, whose correlation with
        the point is small, would have added.
        """
        if self.choice is None:
            raise RuntimeError("no model was fitted yet")
        scale = self.choice.parameters.lengthscale[self.features.owner]
        x = self.features(self.unit) / scale
        difference = x - self.features(point[np.newaxis, :])[0] / scale
        distance = np.einsum("ij,ij->i", difference, difference)
        count = min(NEAREST, self._n)
        nearest = np.sort(np.argpartition(distance, count - 1)[:count])
        model = Model.given(
            self.features, self.choice, self.unit[nearest], self.loss[nearest], self.stderr[nearest]
        )
        return model, nearest

    # --- the only change

    def apply(self, event: Event) -> None:
        if isinstance(event, Asked):
            for number, point, of in zip(event.ids.tolist(), event.unit, event.of.tolist(), strict=True):
                if event.kind is not Kind.SEARCH:
                    continue
                # A repeat is answered from what is known. What it repeats may be a trial under way that
                # this search did not ask for (the default), whose key is not known here yet.
                self._keys.add(self.space.key(point))
                if of < 0:
                    self.pending[number] = point
        elif isinstance(event, Told):
            errors = [o.stderr for o in event.outcomes] or [None] * len(event.ids)
            for number, loss, error in zip(event.ids.tolist(), event.loss.tolist(), errors, strict=True):
                if number in self.pending:
                    self._add(self.pending.pop(number), loss, 0.0 if error is None else error)
        elif isinstance(event, Observed):
            rows = zip(event.unit, event.loss.tolist(), event.stderr.tolist(), strict=True)
            for point, loss, error in rows:
                self._keys.add(self.space.key(point))
                self._add(point, loss, error)
        elif isinstance(event, Fitted):
            parameters = Hyperparameters(
                event.lengthscale, event.signal, event.noise, event.mean, event.kernel
            )
            self.choice = Choice(from_constants(event.warp, event.constants), parameters)
            self._fitted, self._factored = event.count, self._n
            self._chosen = event.count if event.rechosen else self._chosen
            self._model = None

    def _add(self, point: FloatArray, loss: float, stderr: float) -> None:
        if self._n == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self._n, :-2] = point
        self._rows[self._n, -2] = loss
        self._rows[self._n, -1] = stderr if math.isfinite(stderr) else 0.0
        self._n += 1
