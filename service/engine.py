"""The engine under HTTP and CLI alike: the catalog, its collections' networks, the batcher."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import structlog
import torch

from index import Catalog, Collection, CollectionError, Space
from index.grids import MOST_ACTIVATIONS
from index.snapshot import Snapshot
from index.space import Dtype
from models import (
    DescriptorSpace,
    Extractor,
    Limits,
    SpecError,
    Weights,
    WeightsFolder,
    WhiteningFolder,
    parse,
    resolve,
)
from models.device import choose_device
from models.download import Progress
from models.runtime import RuntimeChoice
from models.spec import find_layer, layer_of_grid
from service import gauges, threads
from service.admission import Admission
from service.batcher import Batcher
from service.compacting import Compactor
from service.decoding.pool import Decoders
from service.fetch import Fetcher
from service.lanes import LANES, Lane
from service.metrics import Metrics
from service.networks import LoadedNetworks
from service.settings import Settings
from service.stages import Stages
from service.watchdog import Stage, Watchdog

logger = structlog.get_logger(__name__)

DEFAULT = "default"

WHITENINGS = "whitenings"
"""Folder, in the data folder, of the whitenings fitted here: written once, never changed."""

MOST_KEPT = 8
"""Layers whose activations a collection keeps of every picture."""


class Engine:
    """Everything that lives as long as the service; safe to use from many threads."""

    def __init__(
        self,
        settings: Settings,
        downloading: Progress | None = None,
        decoders: Decoders | None = None,
    ) -> None:
        """Open the catalog under `settings.data`, making what is not there.

        `downloading` is told (bytes done, total or None) whenever weights are fetched.
        `decoders` may be those of another engine, which closes them.
        """
        self.settings = settings
        self.metrics = Metrics()
        self.device = choose_device(settings.device)
        self.plan = plan = threads.plan(settings)
        self.stages = Stages(
            {
                "read": plan.read,
                "decode": plan.decode,
                "store": plan.read,
                "forward": 1,
                "commit": 1,
            }
        )
        self.catalog = Catalog.open(settings.data, settings.recall_share)
        self.weights = weights_folder(settings, downloading)
        self.fetcher = Fetcher(
            allow_private=settings.url_private,
            allowed_hosts=settings.url_hosts or None,
            max_bytes=settings.max_picture_bytes,
            offline=settings.offline,
        )
        self.whitenings = WhiteningFolder(settings.data / WHITENINGS)
        self.limits = Limits(settings.max_picture_bytes, settings.max_pixels, settings.max_frames)
        self._how: dict[str, Any] = {
            "folder": self.weights,
            "whitenings": self.whitenings,
            "device": str(self.device),
            "runtime": RuntimeChoice(
                settings.runtime, settings.precision, plan.forward, settings.cache_dir
            ),
            "limits": self.limits,
        }
        self.batcher = Batcher(
            settings.batch_size,
            settings.queue_size,
            self.metrics.observe_batch,
            settings.stuck_s,
            self.stages,
        )
        self._own_decoders = decoders is None
        self.decoders = decoders or Decoders(
            plan.decode, self.limits, settings.decode_timeout_s, self._decoder_lost
        )
        self.readers: dict[Lane, ThreadPoolExecutor] = {
            lane: ThreadPoolExecutor(plan.read, thread_name_prefix=f"read-{lane}")
            for lane in LANES[1:]
        }
        self.examples = ThreadPoolExecutor(plan.examples, thread_name_prefix="examples")
        self.queries = Admission(
            "searches", plan.queries, settings.queue_size, settings.request_timeout_s
        )
        self.uploads = Admission(
            "uploads", plan.uploads, settings.queue_size, settings.request_timeout_s
        )
        self._networks = LoadedNetworks(settings.loaded_networks)
        self.compactor = Compactor()
        self.watchdog = Watchdog(
            [
                Stage("forward", self.batcher.failing, self.batcher.restart),
                Stage("decode", self.decoders.failing, self.decoders.restart),
                Stage("searches", self.queries.failing, self.queries.restart),
                Stage("uploads", self.uploads.failing, self.uploads.restart),
                Stage("compaction", self.compactor.failing, self.compactor.restart),
            ],
            self._restarted,
        )
        self.watchdog.start()
        gauges.install(self)

    def close(self) -> None:
        """Stop the threads and close the catalog. What was acknowledged is on disk already."""
        self.watchdog.stop()
        self.compactor.stop()
        for stopping in (self.queries, self.uploads):
            stopping.close()
        for reading in self.readers.values():
            reading.shutdown(wait=False, cancel_futures=True)
        self.examples.shutdown(wait=False, cancel_futures=True)
        self.batcher.close()
        if self._own_decoders:
            self.decoders.close()
        for reading in (*self.readers.values(), self.examples):
            reading.shutdown(wait=True)
        self.compactor.close()
        self.catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ensure_default(self) -> Collection:
        """The collection `default`, made on the first start."""
        try:
            return self.catalog.collection(DEFAULT)
        except CollectionError:
            weights = {self.settings.network: self.settings.weights}
            return self.create_collection(DEFAULT, None, weights)

    def create_collection(
        self,
        name: str,
        specs: Mapping[str, str] | None,
        weights: Mapping[str, str],
        *,
        keep: str = "thumbnail",
        dtype: Dtype = "float16",
        index: Mapping[str, Any] | None = None,
        keep_grids: Sequence[str] = (),
    ) -> Collection:
        """Make a collection and pin the weights and whitenings that it is made with.

        Without `specs` it gets low, mid and high of the network that the settings name, as they
        suit the weights that are found for it. `keep_grids` are spaces, or layers of their
        networks, whose activations are kept. Raises SpecError, WeightsError and CollectionError.
        """
        chosen: dict[str, str | Weights] = dict(weights)
        if specs is None:
            network = self.settings.network
            own = self.weights.resolve(network, weights.get(network, "auto"))
            specs, chosen[network] = own.specs, own
        found = resolve(specs, chosen, self.weights, self.whitenings)
        grids = _grids(keep_grids, found)
        spaces = [
            Space(
                name=space,
                spec=str(described.spec),
                fingerprint=described.fingerprint,
                dim=described.dim,
                dtype=dtype,
                origin=_origin(described),
            )
            for space, described in found.items()
        ]
        for notice in {described.weights.notice for described in found.values()} - {None}:
            logger.warning("collection on fallback weights", collection=name, notice=notice)
        settings = {"keep": keep, "index": index or {}, "keep_grids": grids}
        return self.catalog.create_collection(name, spaces, settings)

    def extractor(self, collection: Collection) -> Extractor:
        """The networks of a collection, loaded on first use and shared by equal collections.

        Raises WeightsError where the weights that the collection is pinned to are not at hand, and
        CollectionError where they no longer give its descriptors.
        """
        prints = {name: space.fingerprint for name, space in collection.spaces.items()}
        key = json.dumps([prints, kept_grids(collection)], sort_keys=True)
        return self._networks.get(key, lambda: self._load(collection))

    def _load(self, collection: Collection) -> Extractor:
        origins = [space.origin for space in collection.spaces.values()]
        if any(origin["network"] == "imported" for origin in origins):
            raise CollectionError(
                "collection-imported",
                f"the descriptors of collection {collection.name!r} were imported, and no network "
                "here makes such: search it by its items, or by vectors in Python",
            )
        pins = {origin["network"]: origin["weights_sha256"] for origin in origins}
        pins |= {
            space.spec: space.origin["whitening_sha256"]
            for space in collection.spaces.values()
            if space.origin.get("whitening_sha256")
        }
        extractor = Extractor(
            {name: space.spec for name, space in collection.spaces.items()},
            weights={origin["network"]: origin["weights"] for origin in origins},
            pins=pins,
            grids=kept_grids(collection),
            **self._how,
        )
        for name, space in collection.spaces.items():
            computed = extractor.spaces[name].fingerprint
            if computed != space.fingerprint:
                raise CollectionError(
                    "collection-fingerprint-differs",
                    f"space {name!r} of collection {collection.name!r} holds descriptors "
                    f"{space.fingerprint}, this version computes {computed}: index the pictures "
                    "again in a new collection",
                )
        for notice in extractor.notices:
            logger.warning("fallback in use", collection=collection.name, notice=notice)
        return extractor

    def loaded(self) -> list[Extractor]:
        """The networks that are loaded and ready."""
        return self._networks.loaded()

    def extractor_of_spec(self, spec: str, weights: str) -> Extractor:
        """The network of one descriptor spec by itself, kept loaded like those of collections.

        Raises SpecError and WeightsError.
        """
        canonical = str(parse(spec))

        def load() -> Extractor:
            return Extractor(
                canonical,
                weights=weights,
                **self._how,
            )

        return self._networks.get(f"{canonical} {weights}", load)

    def extractor_of_grid(self, collection: Collection, grid: str) -> Extractor:
        """A network of a collection up to one layer (`network/layer`), kept loaded likewise.

        Raises SpecError, and WeightsError as `extractor` does.
        """
        network = grid.split("/", maxsplit=1)[0]
        origins = [space.origin for space in collection.spaces.values()]
        origin = next((origin for origin in origins if origin["network"] == network), None)
        if origin is None:
            raise SpecError("spec-invalid", f"collection {collection.name!r} has no {network!r}")

        def load() -> Extractor:
            return Extractor(
                {"grid": f"{grid}/spoc"},
                weights={network: origin["weights"]},
                pins={network: origin["weights_sha256"]},
                **self._how,
            )

        # One file may be declared to want one preprocessing or another: the name says which.
        key = f"{grid} {origin['weights']} {origin['weights_sha256']}"
        return self._networks.get(key, load)

    def take_snapshot(
        self, collection: str | None = None, told: Callable[[int], None] = lambda _: None
    ) -> Snapshot:
        """Take a snapshot of one collection or of all, with the whitenings they are pinned to.

        Raises CollectionError as `Catalog.take_snapshot` does.
        """
        return self.catalog.take_snapshot(collection, [WHITENINGS], told)

    def _restarted(self, stage: str) -> None:
        self.metrics.stage_restarts.labels(stage).inc()

    def _decoder_lost(self, reason: str) -> None:
        self.metrics.decoders_lost.labels(reason).inc()


def weights_folder(settings: Settings, downloading: Progress | None = None) -> WeightsFolder:
    """Where the settings say that weights live; torchvision's own cache if they say nothing."""
    folder = settings.weights_dir or Path(torch.hub.get_dir()) / "checkpoints"
    return WeightsFolder(folder, settings.weights_mirror, settings.offline, downloading)


def notices(collection: Collection) -> list[str]:
    """What must be said aloud about the weights that a collection was made with."""
    said = (space.origin.get("notice") for space in collection.spaces.values())
    return list(dict.fromkeys(notice for notice in said if notice))


def kept_grids(collection: Collection) -> list[str]:
    """The layers, `network/layer`, whose activations a collection keeps of every item."""
    return list(collection.settings.get("keep_grids", []))


def _grids(names: Sequence[str], spaces: Mapping[str, DescriptorSpace]) -> list[str]:
    """Names of spaces and layers as layers.

    Raises SpecError: `spec-invalid`, `spec-no-grid`, `spec-grids-too-large`.
    """
    found = []
    networks = {space.spec.network for space in spaces.values()}
    for name in names:
        spec = spaces[name].spec if name in spaces else parse(name)
        if spec.network not in networks:
            raise SpecError(
                "spec-invalid", f"{name!r} is no space and no layer of {sorted(networks)}"
            )
        for layer, grid in zip(spec.layers, spec.grids, strict=True):
            if find_layer(spec.network, layer).stride is None:
                raise SpecError("spec-no-grid", f"{grid} has no grid to keep: choose a layer below")
            found.append(grid)
    kept = list(dict.fromkeys(found))
    crops = {space.spec.network: space.weights.preprocessing.crop for space in spaces.values()}
    activations = 0
    for grid in kept:
        crop = crops[grid.split("/")[0]]
        activations += layer_of_grid(grid).activations(crop, crop)
    if len(kept) > MOST_KEPT or activations > MOST_ACTIVATIONS:
        raise SpecError(
            "spec-grids-too-large",
            f"keep_grids names {len(kept)} layers with {activations:,} activations of a picture, "
            f"where {MOST_KEPT} layers with {MOST_ACTIVATIONS:,} in all are the most: name fewer "
            "or deeper ones",
        )
    return kept


def _origin(space: DescriptorSpace) -> dict[str, str | None]:
    return {
        "network": space.spec.network,
        "weights": space.weights.name,
        "weights_sha256": space.weights.sha256,
        "whitening_sha256": space.whitening.sha256 if space.whitening else None,
        "notice": space.weights.notice,
    }
