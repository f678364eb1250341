"""The peers on BoTorch: its own qLogEI and qLogNEI, and TuRBO-1."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from botorch.acquisition.logei import qLogExpectedImprovement, qLogNoisyExpectedImprovement
from botorch.exceptions.warnings import BotorchWarning
from botorch.fit import fit_gpytorch_mll
from botorch.generation import MaxPosteriorSampling
from botorch.models import MixedSingleTaskGP, SingleTaskGP
from botorch.models.transforms.outcome import Standardize
from botorch.optim import optimize_acqf, optimize_acqf_mixed_alternating
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.transforms import standardize
from gpytorch.constraints import Interval
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch.quasirandom import SobolEngine

from bench.comparison.problems import Problem
from fractopt.space import Categorical, Float, FloatArray, Space

torch.set_num_threads(1)
warnings.simplefilter("ignore", BotorchWarning)
MC_SAMPLES, RESTARTS, RAW_SAMPLES = 128, 10, 512


class _Sequential:
    """Points in the order of asking; discrete coordinates are put into the middle of their cells."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.space = problem.space
        self.dimension = problem.space.dimension
        self.seed = seed
        self.points: list[FloatArray] = []
        self.running: dict[int, FloatArray] = {}
        self.x: list[FloatArray] = []
        self.y: list[float] = []

    def ask(self, n: int) -> list[tuple[int, FloatArray]]:
        number = len(self.points)
        torch.manual_seed((self.seed + 7919 * number) % 2**31)
        point = _snap(self.space, np.clip(self.propose(), 0.0, 1.0))
        self.points.append(point)
        self.running[number] = point
        return [(number, point)]

    def propose(self) -> FloatArray:
        raise NotImplementedError

    def tell(self, number: int, value: float) -> None:
        self.x.append(self.running.pop(number))
        self.y.append(value)


class BoTorch(_Sequential):
    """SingleTaskGP (its default kernel and priors, Standardize) with qLogEI, or qLogNEI where there is noise.

    One point at a time as workers come free, with the running points as X_pending; 2 d scrambled Sobol'
    points first, and more of them until d + 1 results are there. 128 quasi-random samples, 10 restarts of
    512 raw samples. In the mixed space MixedSingleTaskGP and optimize_acqf_mixed_alternating on the values
    of the discrete parameters. It recommends the evaluated point with the least posterior mean.
    """

    def __init__(self, problem: Problem, workers: int, budget: int, seed: int) -> None:
        super().__init__(problem, seed)
        self.noisy = problem.noise > 0.0
        self.sobol = SobolEngine(self.dimension, scramble=True, seed=seed)
        self.categories = [i for i, p in enumerate(self.space.parameters) if isinstance(p, Categorical)]

    def model(self) -> tuple[Any, Any, Any]:
        x = torch.tensor(np.array(self.x), dtype=torch.double)
        y = -torch.tensor(self.y, dtype=torch.double).unsqueeze(-1)
        if self.categories:
            model: Any = MixedSingleTaskGP(x, y, self.categories, outcome_transform=Standardize(m=1))
        else:
            model = SingleTaskGP(x, y, outcome_transform=Standardize(m=1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        return model, x, y

    def propose(self) -> FloatArray:
        if len(self.points) < 2 * self.dimension or len(self.y) < self.dimension + 1:
            drawn: FloatArray = self.sobol.draw(1, dtype=torch.double).numpy()[0]
            return drawn
        model, x, y = self.model()
        pending = None
        if self.running:
            pending = torch.tensor(np.array(list(self.running.values())), dtype=torch.double)
        sampler = SobolQMCNormalSampler(torch.Size([MC_SAMPLES]), seed=self.seed + len(self.points))
        if self.noisy:
            acquisition: Any = qLogNoisyExpectedImprovement(model, x, sampler, X_pending=pending)
        else:
            acquisition = qLogExpectedImprovement(model, y.max(), sampler, X_pending=pending)
        bounds = torch.stack([torch.zeros(self.dimension), torch.ones(self.dimension)]).double()
        if all(isinstance(p, Float) for p in self.space.parameters):
            found, _ = optimize_acqf(acquisition, bounds, 1, RESTARTS, RAW_SAMPLES)
        else:
            cells: dict[bool, dict[int, list[float]]] = {False: {}, True: {}}  # categorical or not -> axis
            for i, p in enumerate(self.space.parameters):
                if not isinstance(p, Float):
                    middles = 0.5 * (p.edges[:-1] + p.edges[1:])
                    cells[isinstance(p, Categorical)][i] = middles.tolist()
                    bounds[:, i] = torch.tensor([middles[0], middles[-1]])
            found, _ = optimize_acqf_mixed_alternating(
                acquisition,
                bounds,
                discrete_dims=cells[False],
                cat_dims=cells[True],
                raw_samples=RAW_SAMPLES,
                num_restarts=RESTARTS,
            )
        best: FloatArray = found.detach().numpy()[0]
        return best

    def recommend(self) -> FloatArray | None:
        if len(self.y) < self.dimension + 1:
            return None
        model, x, _ = self.model()
        with torch.no_grad():
            return self.x[int(model.posterior(x).mean.argmax())]


class TuRBO(_Sequential):
    """TuRBO-1 (Eriksson et al. 2019), after BoTorch's tutorial, with asynchronous workers.

    Constants of the authors' code: a side of 0.8 first and 1.6 at most, doubled after 3 successes in a
    row, halved after ceil(max(4/q, d/q)) failures, a restart below 0.5^7; 2 d Sobol' points a restart;
    min(5000, max(2000, 200 d)) candidates, each coordinate perturbed with probability min(20/d, 1);
    Thompson sampling from a Matérn-5/2 GP with the authors' bounds of its hyperparameters. Departure: each
    free worker gets a new Thompson draw at once, and every q results that come in count as a batch; those
    that were asked for before a restart are not used after it. Discrete parameters are searched as
    their cells.
    """

    def __init__(self, problem: Problem, workers: int, budget: int, seed: int) -> None:
        super().__init__(problem, seed)
        self.workers = workers
        self._restart()

    def _restart(self) -> None:
        self.first = len(self.points)  # number of the first point of this trust region
        self.x, self.y = [], []
        self.side, self.successes, self.failures = 0.8, 0, 0
        self.judged = 0  # results that were counted as successes or failures
        self.sobol = SobolEngine(self.dimension, scramble=True, seed=(self.seed + self.first) % 2**31)

    def tell(self, number: int, value: float) -> None:
        point = self.running.pop(number)
        if number < self.first:
            return
        self.x.append(point)
        self.y.append(value)
        news = len(self.y) - max(2 * self.dimension, self.judged)
        if news < self.workers:
            return
        best = min(self.y[:-news])
        self.judged = len(self.y)
        if min(self.y[-news:]) < best - 1e-3 * abs(best):
            self.successes, self.failures = self.successes + 1, 0
        else:
            self.successes, self.failures = 0, self.failures + 1
        if self.successes == 3:
            self.side, self.successes = min(2.0 * self.side, 1.6), 0
        elif self.failures == math.ceil(max(4.0, self.dimension) / self.workers):
            self.side, self.failures = 0.5 * self.side, 0
        if self.side < 0.5**7:
            self._restart()

    def propose(self) -> FloatArray:
        d = self.dimension
        if len(self.points) - self.first < 2 * d or len(self.y) < d + 1:
            drawn: FloatArray = self.sobol.draw(1, dtype=torch.double).numpy()[0]
            return drawn
        x = torch.tensor(np.array(self.x), dtype=torch.double)
        y = standardize(-torch.tensor(self.y, dtype=torch.double).unsqueeze(-1))
        kernel = ScaleKernel(
            MaternKernel(2.5, ard_num_dims=d, lengthscale_constraint=Interval(0.005, 2.0)),
            outputscale_constraint=Interval(0.05, 20.0),
        )
        likelihood = GaussianLikelihood(noise_constraint=Interval(5e-4, 0.2))
        model = SingleTaskGP(x, y, likelihood=likelihood, covar_module=kernel, outcome_transform=None)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        centre = x[y.argmax()]
        weights = kernel.base_kernel.lengthscale.squeeze().detach()
        weights = weights / weights.log().mean().exp()
        lower = (centre - 0.5 * self.side * weights).clamp(0.0, 1.0)
        upper = (centre + 0.5 * self.side * weights).clamp(0.0, 1.0)
        n = min(5000, max(2000, 200 * d))
        candidates = lower + (upper - lower) * self.sobol.draw(n, dtype=torch.double)
        perturbed = torch.rand(n, d) <= min(20.0 / d, 1.0)
        rows = torch.where(~perturbed.any(dim=1))[0]
        perturbed[rows, torch.randint(0, d, (len(rows),))] = True
        candidates = torch.where(perturbed, candidates, centre)
        with torch.no_grad():
            best: FloatArray = MaxPosteriorSampling(model, replacement=False)(candidates, 1).numpy()[0]
        return best

    def recommend(self) -> FloatArray | None:
        return None


def _snap(space: Space, unit: FloatArray) -> FloatArray:
    return np.array(
        [
            u if isinstance(p, Float) else 0.5 * (p.edges[p.cell(u)] + p.edges[p.cell(u) + 1])
            for p, u in zip(space.parameters, unit.tolist(), strict=True)
        ]
    )
