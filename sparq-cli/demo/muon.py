"""Muon: momentum with orthogonalised updates, for the weight matrices of the layers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def orthogonalise(matrices: Tensor) -> Tensor:
    """Brings the singular values of each [rows, columns] matrix, rows <= columns, close to one.

    Five Newton-Schulz steps with the coefficients of https://kellerjordan.github.io/posts/muon/.
    """
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.float()


class Muon:
    """Updates the matrices of one shape together, which keeps the GPU busy.

    An update is scaled to the size that AdamW's have (https://arxiv.org/abs/2502.16982), so both
    optimisers go by the same learning rate.
    """

    def __init__(self, matrices: list[nn.Parameter], compiler: Callable) -> None:
        shapes = sorted({matrix.shape for matrix in matrices})
        self.groups = [[m for m in matrices if m.shape == shape] for shape in shapes]
        self.momenta = [torch.zeros_like(torch.stack(group)) for group in self.groups]
        self.orthogonalise = compiler(orthogonalise)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for group, momentum in zip(self.groups, self.momenta):
            gradient = torch.stack([matrix.grad for matrix in group])
            momentum.lerp_(gradient, 0.05)
            update = gradient.lerp(momentum, 0.95)
            tall = update.shape[1] > update.shape[2]
            update = self.orthogonalise(update.mT if tall else update)
            update = update.mT if tall else update
            size = 0.2 * max(update.shape[1:]) ** 0.5
            for matrix, change in zip(group, update):
                matrix.mul_(1 - 0.1 * rate).add_(change, alpha=-size * rate)
