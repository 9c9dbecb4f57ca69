"""The optimiser: Muon for matrices, Adam for everything else, and the course of the learning rate."""

import torch


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised by a Newton-Schulz iteration; matrices of one shape are done together."""

    def __init__(self, matrices, lr, momentum=0.95, weight_decay=0.02):
        shapes = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        super().__init__([{"params": group} for group in shapes.values()], dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            parameters = group["params"]
            gradient = torch.stack([p.grad for p in parameters])
            state = self.state[parameters[0]]
            buffer = state.setdefault("momentum", torch.zeros_like(gradient))
            buffer.lerp_(gradient, 1 - group["momentum"])
            update = orthogonal(gradient.lerp(buffer, group["momentum"]))
            rows, columns = update.shape[-2:]
            update *= max(1.0, rows / columns) ** 0.5
            for parameter, change in zip(parameters, update):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(change, alpha=group["lr"])


def orthogonal(x, steps=5):
    """The nearest matrix (of a stack) whose singular values are about one."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).float()


def optimisers(layers, rest, matrix_lr, vector_lr):
    """Muon for the matrices inside ``layers``, Adam for their vectors and for the ``rest``."""
    matrices = [p for p in layers if p.ndim == 2]
    vectors = [p for p in layers if p.ndim != 2] + list(rest)
    return [Muon(matrices, matrix_lr), torch.optim.AdamW(vectors, lr=vector_lr, betas=(0.9, 0.98), weight_decay=0.0)]


def learning_rate(progress):
    """Short warm-up, a plateau, then a straight line to zero."""
    return min(1.0, progress / 0.02, (1.0 - progress) / 0.65)


def set_rates(parts, share):
    """Give every group its own rate times ``share``."""
    for part in parts:
        for group in part.param_groups:
            group.setdefault("base", group["lr"])
            group["lr"] = group["base"] * share
