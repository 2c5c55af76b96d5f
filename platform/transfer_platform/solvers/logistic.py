"""Logistic regression for several penalties and weightings of the images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer_platform.solvers.linear_path import LinearPath
from transfer_platform.solvers.logistic_problems import CenteredRows, Problems
from transfer_platform.solvers.newton import Preconditioning, minimize


def logistic_path(features: Tensor, targets: Tensor, weights: Tensor, values: Sequence[float]) -> LinearPath:
    """Returns a logistic regression for each value of C and each weighting.

    Minimizes `|W|^2 / 2 + C * sum(weights * cross_entropy)` with unpenalized biases, like scikit-learn's
    `LogisticRegression`. For two classes, scikit-learn's W is a single vector; here, the two rows -W / 2 and W / 2 are
    returned. The solver starts from the solution for the next smaller C. For many values, `out_of_fold_path` is faster.

    Args:
        features: Features (N, F).
        targets: Class probabilities (N, C).
        weights: Weights (K, N) of the images; one row for each fold.
        values: V positive values of C.

    Raises:
        ArithmeticError: The solver did not converge.
    """
    rows = CenteredRows.of(features, weights.double().sum(dim=0))
    penalties = torch.as_tensor(values, dtype=torch.float64)
    solution = torch.zeros(targets.shape[1] - 1, len(weights), rows.exact.shape[1], dtype=torch.float64)
    preconditioning = Preconditioning(len(weights) if targets.shape[1] == 2 else 1)
    solutions: dict[int, tuple[Tensor, Tensor]] = {}
    for index in penalties.argsort().tolist():
        problems = Problems(rows, targets.double().T, weights.double() * penalties[index])
        solution = minimize(problems, solution, preconditioning)
        solutions[index] = rows.linear(solution)
    weight, bias = zip(*(solutions[index] for index in range(len(values))), strict=True)
    return LinearPath(torch.stack(weight), torch.stack(bias))
