"""What a student is to learn from a batch of views: to imitate teachers, or to tell pictures apart.

An objective takes the student's activations, a list of B×C×H×W from its first convolution to its
last, and the batch's targets, and gives named losses; training minimises their sum.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.pooling import gem, spoc

TEMPERATURE = 4.0
_FEATURES, _RELATIONS = 4.0, 1.0
_DEEPEST = 2
"""How many of the last convolutions learn relations; the choice of a layer is among these."""


class Distillation(nn.Module):
    """Imitate teachers in logits, in features, and in how alike they find the pictures of a batch.

    - `logits`: KL divergence at temperature 4, times its square (Hinton et al. 2015).
    - `features`: 1 - cosine between a linear map of the pooled last activation and the teacher's
      features less their mean.
    - `relations`: every picture's similarities to the others of the batch as a distribution, after
      the teacher's (Koohpayegani et al. 2020, CompRess, eq. 3): it acts on the very descriptors
      that are searched with, SPoC and GeM of the last layers.
    """

    def __init__(self, channels: Sequence[int], targets: Mapping[str, Tensor]) -> None:
        """`channels` of the student's layers; `targets` of a sample of views, N×D each."""
        super().__init__()
        width = channels[-1]
        self.heads = nn.ModuleDict(
            {_key(name): nn.Linear(width, value.shape[1]) for name, value in targets.items()}
        )
        self.means = nn.ParameterDict(
            {
                _key(name): nn.Parameter(value.float().mean(dim=0), requires_grad=False)
                for name, value in targets.items()
            }
        )
        self.sharpness = nn.Parameter(torch.full((2 * _DEEPEST,), 2.0))

    def forward(
        self, activations: Sequence[Tensor], targets: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The three losses, summed over the teachers; `targets` are B×D float16 or float32."""
        pooled = spoc(activations[-1].float())
        zero = pooled.new_zeros(())
        losses = {"logits": zero, "features": zero, "relations": zero}
        alike = []
        for name, target in targets.items():
            given = self.heads[_key(name)](pooled)
            if name.endswith("/logits"):
                losses["logits"] = losses["logits"] + _divergence(given, target.float())
            else:
                centred = F.normalize(target.float() - self.means[_key(name)], dim=1)
                away = 1 - F.cosine_similarity(given, centred, dim=1).mean()
                losses["features"] = losses["features"] + _FEATURES * away
                alike.append(centred @ centred.T)
        if alike:
            losses["relations"] = _RELATIONS * self._relations(
                activations, torch.stack(alike).mean(dim=0)
            )
        return losses

    def _relations(self, activations: Sequence[Tensor], alike: Tensor) -> Tensor:
        itself = torch.eye(len(alike), dtype=torch.bool, device=alike.device)
        wanted = F.softmax((alike / 0.1).masked_fill(itself, -1e4), dim=1)
        losses = []
        for at, (pool, activation) in enumerate(
            (pool, x.float()) for x in activations[-_DEEPEST:] for pool in (spoc, gem)
        ):
            unit = F.normalize(pool(activation), dim=1)
            found = (unit @ unit.T * self.sharpness[at].exp()).masked_fill(itself, -1e4)
            losses.append(F.kl_div(F.log_softmax(found, dim=1), wanted, reduction="batchmean"))
        return torch.stack(losses).mean()


def _divergence(given: Tensor, wanted: Tensor) -> Tensor:
    divergence = F.kl_div(
        F.log_softmax(given / TEMPERATURE, dim=1),
        F.softmax(wanted / TEMPERATURE, dim=1),
        reduction="batchmean",
    )
    return divergence * TEMPERATURE**2 / 4


class Contrast(nn.Module):
    """Find a view's twin among the batch: InfoNCE (van den Oord et al. 2018, eq. 4).

    Views 2m and 2m + 1 of a batch show one picture. A projection of two layers stands between
    descriptor and loss and is thrown away afterwards (Chen et al. 2020).
    """

    def __init__(self, channels: Sequence[int], temperature: float = 0.1) -> None:
        super().__init__()
        width = channels[-1]
        self.temperature = temperature
        self.projection = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, 128)
        )

    def forward(
        self, activations: Sequence[Tensor], _targets: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The loss, from an even number of views."""
        unit = F.normalize(self.projection(spoc(activations[-1].float())), dim=1)
        scores = unit @ unit.T / self.temperature
        scores.fill_diagonal_(float("-inf"))
        twins = torch.arange(len(unit), device=unit.device) ^ 1
        return {"contrast": F.cross_entropy(scores, twins)}


def _key(name: str) -> str:
    return name.replace("/", "_")
