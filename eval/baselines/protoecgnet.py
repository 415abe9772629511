"""ProtoECGNet (arXiv 2504.08713): each statement is judged by how much a record is like segments of training records.

Three branches, each with a ResNet-18 over time of its own and prototypes for its group of statements: rhythm (5 for
each, of the whole record, pooled over time), morphology (18, of three places in a row of the 32 along a record) and
global (7, of the whole record, not pooled). A record's similarity to a prototype is the mean cosine over its segments.
Four stages: the branches on their own statements; the projection, after which every prototype is a segment of a real
training record; the classifier over the projected prototypes; the fusion of all 1,037 prototypes into all statements.

Left open by what we know of the paper, and our choice:

- One matrix (71 x 1,037) holds the classifiers of the branches and then the fusion, which so begins where they ended.
  Until then only the weights between a statement and the prototypes of its own branch count. It has a bias throughout.
- Its first weights, +1 for a statement's own prototypes and -.5 for others, are divided by their number. From the
  projection on it sees each similarity less its mean over the training records, divided by the standard deviation:
  cosines of real segments are all near one, and what tells them apart is small. The weights begin anew there.
- The branches are trained together, on the sum of their losses; the last epoch's weights are used. The classifier and
  the fusion take a quarter of the epochs each, at ten times the learning rate.
- A prototype is projected onto the segment with the highest cosine of a record with its statement, as in ProtoPNet
  (Chen et al. 2019), and those of one statement onto different records, as long as there are any.
- Diversity is the mean squared cosine between prototypes of one statement, divided, like the contrastive term, by the
  root of their number. A positive weighs as much as its negatives, 30 at most, but not in the fusion: its scores are to
  be probabilities. The high-pass runs forwards and backwards. ReLU lies between the 1 x 1 convolutions.
- Its ResNet is the one-dimensional equal of the published picture network, whose height is 1 after the first layer.

A place is 0.32 s wide, by the strides of the network; what a place sees beyond it fades to both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from eval.baselines.baseline import LEAD_COUNT, Stage, Standardise
from eval.baselines.cnn import AsImage, Residual, conv_layers
from render.errors import InputError
from render.record import LOW_RATE_HZ
from render.statements import task_classes

_CODES = task_classes("all")
_RHYTHM = (*task_classes("rhythm"), "1AVB", "2AVB", "3AVB", "IVCD")
_GLOBAL = ("NORM", "DIG", "EL")
_MORPHOLOGY = tuple(code for code in _CODES if code not in _RHYTHM + _GLOBAL)

STRIDE = 32
"""Samples at 100 Hz from one place to the next."""
_PLACES, _WIDTH = 32, 512
_CLUSTER, _SEPARATION, _DIVERSITY, _CONTRAST, _SPARSITY = 0.004, 0.0004, 250.0, 300.0, 1e-4
_MOST_WEIGHT = 30.0


class Branch(nn.Module):
    """Similarities of records to the prototypes of a group of statements.

    Attributes:
        prototypes: (P, D) where D is 512 times `length`, the places of a segment.
        statements: (P,) column of each prototype's statement among the 71.
        sources: (P, 2) row of the training record of which it is a segment, and the segment's first place; -1 before
            the projection.
        scale: of the cosines.
    """

    prototypes: Tensor
    statements: Tensor
    sources: Tensor

    def __init__(self, codes: Sequence[str], each: int, *, length: int, pooled: bool, scale: float) -> None:
        super().__init__()
        self.length, self.pooled, self.scale = length, pooled, scale
        self.features = nn.Sequential(AsImage(), *_resnet18())
        self.places = nn.Sequential(nn.Conv2d(_WIDTH, _WIDTH, 1), nn.ReLU(), nn.Conv2d(_WIDTH, _WIDTH, 1), nn.Sigmoid())
        count = len(codes) * each
        self.prototypes = nn.Parameter(torch.randn(count, _WIDTH * length))
        self.register_buffer("statements", torch.tensor([_CODES.index(code) for code in codes for _ in range(each)]))
        self.register_buffer("sources", torch.full((count, 2), -1))

    def segments(self, x: Tensor) -> Tensor:
        """Standardised signals (B, 12, 1000) -> all their segments (B, W, D), of length 1; W is 1 or 30."""
        features = self.features(x)  # (B, 512, 1, 32)
        if self.pooled:
            features = features.mean(dim=3, keepdim=True)
        windows = self.places(features).squeeze(2).unfold(2, self.length, 1)  # (B, 512, W, length)
        return F.normalize(windows.transpose(1, 2).flatten(2), dim=2)

    def cosines(self, x: Tensor) -> Tensor:
        """(B, W, P) of every segment with every prototype."""
        return self.segments(x) @ F.normalize(self.prototypes, dim=1).T

    def forward(self, x: Tensor) -> Tensor:
        """(B, P) similarities: the mean of the segments' cosines is a product with the mean of the segments."""
        unit = F.normalize(self.prototypes, dim=1)
        return self.scale * self.segments(x).mean(dim=1) @ unit.T

    def loss(self, similarities: Tensor, y: Tensor, together: Tensor) -> Tensor:
        """The four terms beside the cross-entropy, of (B, P) similarities and (B, 71) labels.

        together: (71, 71) Jaccard index of statements in the training records, 1 on the diagonal.
        """
        own = y[:, self.statements] > 0  # (B, P): prototypes of statements that the record carries
        nearest, nearest_other = (
            similarities.masked_fill(~where, -torch.inf).amax(dim=1)[where.any(dim=1)].sum() / len(y)
            for where in (own, ~own)
        )
        unit = F.normalize(self.prototypes, dim=1)
        cosines, root = unit @ unit.T, len(unit) ** 0.5
        same = (self.statements[:, None] == self.statements).float().fill_diagonal_(0)
        attract = together[self.statements][:, self.statements]
        contrast = (cosines * (attract / attract.sum() - (1 - attract) / (1 - attract).sum())).sum()
        diversity = (cosines.square() * same).sum() / same.sum()
        of_prototypes: Tensor = (_DIVERSITY * diversity - _CONTRAST * contrast) / root
        return _SEPARATION * nearest_other - _CLUSTER * nearest + of_prototypes


class ProtoEcgNet(nn.Module):
    """(B, 12, 1000) high-passed millivolts at 100 Hz -> (B, 71) logits.

    Attributes:
        joined: (71, 1037) 1 where a weight of the classifier counts.
        weights: (71,) of a positive. together: see `Branch.loss`.
    """

    joined: Tensor
    weights: Tensor
    together: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.signal = Standardise(1)
        self.branches = nn.ModuleList(
            [
                Branch(_RHYTHM, 5, length=1, pooled=True, scale=1.0),
                Branch(_MORPHOLOGY, 18, length=3, pooled=False, scale=13.0),
                Branch(_GLOBAL, 7, length=_PLACES, pooled=False, scale=4.0),
            ]
        )
        own = F.one_hot(self.statements, len(_CODES)).T.float()  # (71, 1037)
        numbers = [k for k, branch in enumerate(self._branches) for _ in range(len(branch.statements))]
        groups = F.one_hot(torch.tensor(numbers), 3).T.float()  # (3, 1037)
        self.register_buffer("joined", ((own @ groups.T) > 0).float() @ groups)
        self.register_buffer("weights", torch.ones(len(_CODES)))
        self.register_buffer("together", torch.eye(len(_CODES)))
        self.usual = Standardise(own.shape[1])
        self.classifier = nn.Linear(own.shape[1], len(_CODES))
        self.start_classifier()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def _branches(self) -> list[Branch]:
        return [branch for branch in self.branches if isinstance(branch, Branch)]

    @property
    def statements(self) -> Tensor:
        """(1037,) column of each prototype's statement."""
        return torch.cat([branch.statements for branch in self._branches])

    @property
    def sources(self) -> Tensor:
        """(1037, 2) as in `Branch`."""
        return torch.cat([branch.sources for branch in self._branches])

    @property
    def lengths(self) -> list[int]:
        """Places of each prototype's segment; of all 32 where it is the whole record."""
        return [_PLACES if b.pooled else b.length for b in self._branches for _ in b.statements]

    def start_classifier(self) -> None:
        """Weights +1 / -.5 for a statement's own prototypes and for the others of its branch, over their numbers."""
        own = F.one_hot(self.statements, len(_CODES)).T.to(self.joined)
        others = self.joined * (1 - own)
        with torch.no_grad():
            own, others = own / own.sum(dim=1, keepdim=True), others / others.sum(dim=1, keepdim=True)
            self.classifier.weight.copy_(own - 0.5 * others)
            self.classifier.bias.zero_()

    def similarities(self, x: Tensor) -> Tensor:
        """(B, 1037)."""
        x = self.signal(x)
        return torch.cat([branch(x) for branch in self.branches], dim=1)

    def cosines(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1037) highest cosine of a segment of each record with each prototype, and the first place of it."""
        x = self.signal(x)
        best = [branch.cosines(x).max(dim=1) for branch in self._branches]
        return torch.cat([each.values for each in best], dim=1), torch.cat([each.indices for each in best], dim=1)

    def logits(self, similarities: Tensor) -> Tensor:
        """(B, 71)."""
        return F.linear(self.usual(similarities), self.joined * self.classifier.weight, self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.similarities(x))


def protoecgnet(classes: int) -> ProtoEcgNet:
    """Raises InputError for another number of classes than 71: its branches are groups of statements."""
    if classes != len(_CODES):
        raise InputError(f"protoecgnet has branches for the {len(_CODES)} statements, not for {classes} classes")
    return ProtoEcgNet()


def inputs(signals: NDArray[np.float32]) -> Tensor:
    """(n, 12, 1000) millivolts through a Butterworth high-pass of .5 Hz, order 1, without a shift in time."""
    from scipy.signal import butter, filtfilt

    numerator, denominator = butter(1, 0.5, "highpass", fs=LOW_RATE_HZ)
    parts = (signals[start : start + 256] for start in range(0, len(signals), 256))  # to save memory: in float64
    return torch.from_numpy(
        np.concatenate([filtfilt(numerator, denominator, part, axis=2).astype(np.float32) for part in parts])
    )


# --- the stages


def _count_labels(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """What the losses need of all labels: weights of positives, and which statements come together."""
    assert isinstance(network, ProtoEcgNet)
    positives = y.sum(dim=0)
    both = y.T @ y
    either = positives[:, None] + positives - both
    network.weights.copy_(((len(y) - positives) / positives.clamp(min=1)).clamp(max=_MOST_WEIGHT))
    network.together.copy_((both / either.clamp(min=1)).fill_diagonal_(1))


def _weighted_cross_entropy(network: ProtoEcgNet, logits: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, y, pos_weight=network.weights)


def _joint_loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    assert isinstance(network, ProtoEcgNet)
    similarities = network.similarities(x)
    loss = _weighted_cross_entropy(network, network.logits(similarities), y)
    parts = torch.split(similarities, [len(branch.statements) for branch in network._branches], dim=1)
    for branch, part in zip(network._branches, parts, strict=True):
        loss = loss + branch.loss(part, y, network.together)
    return loss


def _project(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """Replace every prototype by the segment of a training record that is nearest to it, and fit what comes after."""
    assert isinstance(network, ProtoEcgNet)
    with torch.no_grad():
        best = [network.cosines(part) for part in torch.split(x, 64)]
        cosines, places = (torch.cat([each[k] for each in best]) for k in (0, 1))  # (n, 1037)
        rows = _nearest_records(cosines, y > 0, network.statements)
        first = 0
        for branch in network._branches:
            columns = torch.arange(first, first + len(branch.statements))
            first += len(columns)
            branch.sources.copy_(torch.stack([rows[columns], places[rows[columns], columns]], dim=1))
            for k, (row, place) in enumerate(branch.sources.tolist()):
                branch.prototypes[k] = branch.segments(network.signal(x[row : row + 1]))[0, place]
        network.usual.fit(torch.cat([network.similarities(part) for part in torch.split(x, 64)]))
    network.start_classifier()


def _nearest_records(cosines: Tensor, carries: Tensor, statements: Tensor) -> Tensor:
    """(P,) training row for each prototype: the nearest that carries its statement and that no other prototype of the
    statement has; where all have one, the nearest that carries it; where no record carries it, the nearest of all."""
    rows = torch.empty(len(statements), dtype=torch.long)
    free = carries.clone()
    for k, statement in enumerate(statements.tolist()):
        for choice in (free, carries, torch.ones_like(carries)):
            if choice[:, statement].any():
                rows[k] = cosines[:, k].masked_fill(~choice[:, statement], -torch.inf).argmax()
                break
        free[rows[k], statement] = False
    return rows


def _classifier_loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    assert isinstance(network, ProtoEcgNet)
    return _weighted_cross_entropy(network, network(x), y) + _SPARSITY * network.classifier.weight.abs().sum()


def _join(network: nn.Module, x: Tensor, y: Tensor) -> None:
    assert isinstance(network, ProtoEcgNet)
    network.joined.fill_(1)


BRANCH_STAGES = (
    Stage(loss=_joint_loss, begin=_count_labels),
    Stage(epochs=0.25, loss=_classifier_loss, lr=10, trains="classifier", begin=_project),
    Stage(epochs=0.25, lr=10, trains="classifier", begin=_join),
)


# --- what a record was judged by


class Explanation(NamedTuple):
    """Why one record has its logits.

    Attributes:
        logits: (71,).
        bias: (71,) logits of a record with the usual similarities.
        contributions: (71, 1037); with `bias` they add up to `logits`.
        similarities: (1037,) as the classifier sees them: standard deviations above the training records' mean.
        cosines: (1037,) of the segment of this record that is nearest to each prototype.
        places: (1037,) first place of that segment.
    """

    logits: NDArray[np.float64]
    bias: NDArray[np.float64]
    contributions: NDArray[np.float64]
    similarities: NDArray[np.float64]
    cosines: NDArray[np.float64]
    places: NDArray[np.int64]


def explain(network: ProtoEcgNet, x: Tensor) -> Explanation:
    """Explain a record (1, 12, 1000), as `inputs` gives it."""
    with torch.inference_mode():
        similarities = network.similarities(x)
        usual = network.usual(similarities)[0].double()
        weights = (network.joined * network.classifier.weight).double()
        cosines, places = network.cosines(x)
        return Explanation(
            network.logits(similarities)[0].double().numpy(),
            network.classifier.bias.double().numpy(),
            (weights * usual).numpy(),
            usual.numpy(),
            cosines[0].double().numpy(),
            places[0].numpy(),
        )


def _resnet18() -> list[nn.Module]:
    """ResNet-18 (He et al. 2016) over time: (B, 12, 1, 1000) -> (B, 512, 1, 32)."""
    inputs = _WIDTH // 8
    layers = [*conv_layers(LEAD_COUNT, inputs, 7, 2), nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1))]
    for width, stride in ((_WIDTH // 8, 1), (_WIDTH // 4, 2), (_WIDTH // 2, 2), (_WIDTH, 2)):
        for block_stride in (stride, 1):
            change = inputs != width
            layers.append(
                Residual(
                    [*conv_layers(inputs, width, 3, block_stride), *conv_layers(width, width, 3, relu=False)],
                    shortcut=conv_layers(inputs, width, 1, block_stride, relu=False) if change else [],
                )
            )
            inputs = width
    return layers
