"""Which spec to use for a user's own pictures, by measuring many of them.

Every picture is decoded once and goes once through each network, and what is kept of it are the
pooled vectors of every layer and pooling: at most CACHE_BYTES of them, in float32. Joined layers
are put together from these, and whitenings are fitted on them, so that all else is arithmetic.
Besides the cache one candidate at a time is held, a few times over.

Not everything is measured. All layers and poolings are; layers are joined only where one of the two
is among a network's best, and only the best of both are whitened.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from index.errors import EvaluationError
from index.evaluation import GroundTruth, Interval, bootstrap, evaluate
from index.evaluation.choosing import Choice, choose, front, groups_of, held_out
from index.evaluation.crossfitting import cross_fitted, fitted_on
from index.evaluation.groundtruth import Mask
from index.evaluation.intervals import Difference, Values, paired
from index.evaluation.measures import Indexes
from index.scanning import search_seconds
from models import Descriptors, DescriptorSpec, Extractor, Weights, whitening
from models.timing import Passed, depth_seconds
from service.evaluating import candidates
from service.evaluating.album import FolderAlbum
from service.evaluating.describing import Failure, Progress
from service.evaluating.report import COMPARED, EXEMPLARY
from service.evaluating.study import Sample, sample_folder

CACHE_BYTES = 2 * 2**30
BATCH = 8
"""Most pictures in a pass: the activations of all layers are there at once, 60 MB each of a VGG."""
BEST_LAYERS = 3
JOINED_POOLINGS = 2
WHITENED = 12
"""How much of a network is looked into: layers that are joined, by how many poolings, and how many
descriptors are whitened."""
BYTES_PER_NUMBER = 2
"""Of a stored descriptor: float16, what collections keep unless they are told otherwise."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A spec: the average precision of each query, (q,), and what it costs.

    `forward` and `search` are seconds of one query on this machine; decoding a picture is the same
    for all and is in neither.
    """

    spec: DescriptorSpec
    dim: int
    values: Values
    forward: float
    search: float

    @property
    def mean(self) -> float:
        """Its mAP."""
        return float(self.values.mean())

    @property
    def milliseconds(self) -> float:
        """Of a query: forward, pooling and search."""
        return 1000 * (self.forward + self.search)

    @property
    def bytes(self) -> int:
        """Of an item: its descriptor as it is stored."""
        return BYTES_PER_NUMBER * self.dim


@dataclass(frozen=True, eq=False)
class Advice:
    """What was measured, best first, and which of it to use; `choice` are rows of `measured`.

    `fitted_on` is how many pictures a whitening was fitted on while it was measured; `items` how
    large a collection the search is timed for.
    """

    truth: GroundTruth
    variant: str
    measured: Sequence[Measured]
    choice: Choice
    fitted_on: int
    items: int
    device: str
    weights: Mapping[str, Weights]
    failed: Sequence[Failure]

    @property
    def best(self) -> Measured:
        """The highest mAP."""
        return self.measured[self.choice.best]

    @property
    def chosen(self) -> Measured:
        """What to use: the cheapest that cannot be told from the best."""
        return self.measured[self.choice.chosen]

    @cached_property
    def difference(self) -> Difference:
        """How much better the best is than what is chosen."""
        return paired(self.chosen.values, self.best.values)

    @cached_property
    def held_out(self) -> Interval | None:
        """The mAP of choosing in this way, on queries without a part in it; None of one group."""
        groups = groups_of(self.truth, self.variant)
        if np.unique(groups).size < 2:
            return None
        return bootstrap(held_out(_values(self.measured), _costs(self.measured), groups))

    @cached_property
    def front(self) -> Mask:
        """Which of `measured` nothing beats in all of mAP, time and bytes."""
        costs = [[_two_digits(one.milliseconds), float(one.bytes)] for one in self.measured]
        return front(np.array([one.mean for one in self.measured]), np.array(costs))


def specs(networks: Sequence[str]) -> dict[str, str]:
    """What an extractor must describe for `advise`: every layer compared, by every pooling."""
    texts = [str(spec) for network in networks for spec in candidates.singles(network)]
    return {text: text for text in texts}


def advise(
    extractor: Extractor,
    album: FolderAlbum,
    truth: GroundTruth,
    *,
    items: int,
    threads: int,
    batch_size: int,
    exhaustive: bool = False,
    describing: Progress | None = None,
    comparing: Callable[[int], None] | None = None,
) -> Advice:
    """Compare what can be made of the `specs` of an extractor, and choose.

    `exhaustive` measures every candidate. `comparing` is told how many are measured.

    Raises EvaluationError: `evaluation-sample-too-large`, `truth-no-positives`, and those of
    `sample_folder`.
    """
    _check_size(extractor, truth)
    sample = sample_folder(
        extractor,
        album,
        truth,
        threads=threads,
        batch_size=min(batch_size, BATCH),
        progress=describing,
    )
    weights = {space.spec.network: space.weights for space in extractor.spaces.values()}
    variant = EXEMPLARY if EXEMPLARY in truth.variants else truth.variants[0]
    comparison = _Comparison(_asking(sample, variant), variant, _Costs(extractor, items), comparing)
    for network in weights:
        comparison.compare(network, exhaustive)
    measured = sorted(comparison.measured.values(), key=lambda one: -one.mean)
    return Advice(
        truth=comparison.sample.truth,
        variant=variant,
        measured=measured,
        choice=choose(_values(measured), _costs(measured)),
        fitted_on=comparison.fitted_on,
        items=items,
        device=str(extractor.device),
        weights=weights,
        failed=sample.failed,
    )


def _check_size(extractor: Extractor, truth: GroundTruth) -> None:
    asked = {(name, None) for name in truth.gallery} | {(q.name, q.region) for q in truth.queries}
    each = 4 * sum(space.dim for space in extractor.spaces.values())
    if len(asked) * each > CACHE_BYTES:
        raise EvaluationError(
            "evaluation-sample-too-large",
            f"{truth.name} has {len(asked)} pictures, and what is kept of each to compare takes "
            f"{each / 1e3:.0f} kB: give a sample of at most {CACHE_BYTES // each}, or fewer "
            "networks at once",
        )


def _asking(sample: Sample, variant: str) -> Sample:
    """The same with this variant alone, and without queries that have no positive."""
    judged = [query.judged[variant] for query in sample.truth.queries]
    asking = np.array([np.setdiff1d(one.positives, one.junk).size > 0 for one in judged])
    if not asking.any():
        raise EvaluationError(
            "truth-no-positives",
            f"{sample.truth.name}: none of {asking.size} queries has a positive in the gallery: "
            "are there at least two pictures of a label?",
        )
    left = sample.truth.restricted(np.ones(len(sample.truth.gallery), dtype=np.bool_), asking)
    queries = [replace(query, judged={variant: query.judged[variant]}) for query in left.queries]
    alone = replace(left, queries=queries, measures=(COMPARED,))
    return replace(sample, truth=alone, queries=sample.queries[asking])


def _values(measured: Sequence[Measured]) -> Values:
    return np.stack([one.values for one in measured])


def _costs(measured: Sequence[Measured]) -> Values:
    """Milliseconds × bytes: half the time is worth as much as half the bytes."""
    return np.array([one.milliseconds * one.bytes for one in measured])


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")


class _Costs:
    """What a spec costs here, each part of it timed once."""

    def __init__(self, extractor: Extractor, items: int) -> None:
        self._passes: dict[str, dict[tuple[str, str], Passed]] = {}
        self._extractor = extractor
        self.search = cache(lambda dim: search_seconds(items, dim))

    def forward(self, spec: DescriptorSpec) -> float:
        """To the deepest of its layers, and the pooling of all."""
        if spec.network not in self._passes:
            of_network = [
                space
                for space in self._extractor.spaces.values()
                if space.spec.network == spec.network
            ]
            layers: dict[str, list[str]] = {}
            for space in of_network:
                layers.setdefault(space.spec.layer, []).append(space.spec.pooling)
            weights = of_network[0].weights
            self._passes[spec.network] = depth_seconds(weights, layers, self._extractor.device)
        passes = [self._passes[spec.network][layer, spec.pooling] for layer in spec.layers]
        return max(one.forward for one in passes) + sum(one.pooling for one in passes)


class _Comparison:
    """What is measured so far, by spec."""

    def __init__(
        self,
        sample: Sample,
        variant: str,
        costs: _Costs,
        comparing: Callable[[int], None] | None,
    ) -> None:
        self.sample = sample
        self.fitted_on = fitted_on(sample.truth)
        self.measured: dict[DescriptorSpec, Measured] = {}
        self._variant = variant
        self._costs = costs
        self._comparing = comparing

    def compare(self, network: str, exhaustive: bool) -> None:
        """Measure a network's candidates, or those of them that are promising."""
        singles = candidates.singles(network)
        for spec in singles:
            self._plain(spec)
        joined = candidates.joined(network)
        if not exhaustive:
            joined = self._promising(joined, singles)
        for spec in joined:
            self._plain(spec)
        bases = sorted([*singles, *joined], key=lambda spec: -self.measured[spec].mean)
        for spec in bases if exhaustive else bases[:WHITENED]:
            self._whitened(spec)

    def _promising(
        self, joined: Sequence[DescriptorSpec], singles: Sequence[DescriptorSpec]
    ) -> list[DescriptorSpec]:
        """Joined layers of which one is among the best, by the poolings that suit it best."""
        ranked = sorted(singles, key=lambda spec: -self.measured[spec].mean)
        best = list(dict.fromkeys(spec.layer for spec in ranked))[:BEST_LAYERS]
        poolings = {
            layer: [spec.pooling for spec in ranked if spec.layer == layer][:JOINED_POOLINGS]
            for layer in best
        }
        return [
            spec
            for spec in joined
            if any(spec.pooling in poolings.get(layer, ()) for layer in spec.layers)
        ]

    def _plain(self, spec: DescriptorSpec) -> None:
        queries, gallery = self._vectors(spec)
        evaluated = evaluate(queries, gallery, self.sample.truth)[self._variant]
        self._add(spec, gallery.shape[1], evaluated.values[COMPARED])

    def _whitened(self, base: DescriptorSpec) -> None:
        queries, gallery = self._vectors(base)
        dims = candidates.dims(gallery.shape[1], self.fitted_on)
        if not dims:
            return
        found = cross_fitted(
            queries,
            gallery,
            self.sample.truth,
            lambda rows: whitening.fit(rows, dims[-1], str(base)).apply,
            dims,
            COMPARED,
            self._variant,
        )
        for dim, values in found.items():
            self._add(candidates.whitened(base, dim), dim, values)

    def _vectors(self, base: DescriptorSpec) -> tuple[Descriptors, Descriptors]:
        """Of the queries and of the gallery, from the cache."""
        parts = [self.sample.vectors[str(replace(base, layer=layer))] for layer in base.layers]
        return self._rows(parts, self.sample.queries), self._rows(parts, self.sample.gallery)

    @staticmethod
    def _rows(parts: Sequence[Descriptors], at: Indexes) -> Descriptors:
        """Joined: a layer that is dead in a picture takes no part in its norm."""
        rows = np.concatenate([part[at] for part in parts], axis=1)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        joined: Descriptors = rows / np.maximum(norms, 1e-12)
        return joined

    def _add(self, spec: DescriptorSpec, dim: int, values: Values) -> None:
        self.measured[spec] = Measured(
            spec, dim, values, self._costs.forward(spec), self._costs.search(dim)
        )
        if self._comparing:
            self._comparing(len(self.measured))
