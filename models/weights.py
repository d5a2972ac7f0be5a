"""Where weights live: find them in a folder, fetch them, verify them, load what is asked."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import torch

from models import checkpoint, download, provenance, sums, untrained, zoo
from models.embedded import EMBEDDED
from models.errors import WeightsError
from models.preprocess import DECLARED, Preprocessing, declared_for
from models.provenance import Provenance

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """One set of parameters for a network.

    `name` is `imagenet1k_v1` and its like, `embedded`, `untrained`, `none`, or `<file>` with an
    optional `:caffe` or `:imagenet`: asked for again, it gives the same weights. `sha256` is the
    file's, 64 hex digits. `path` is None for `untrained`, which is made from a seed, and for
    `none`. `notice` is what must be said aloud. `quantised` is of weights that `pool5 quantise`
    made.
    """

    network: str
    name: str
    sha256: str
    preprocessing: Preprocessing
    path: Path | None = None
    notice: str | None = None
    quantised: Provenance | None = None

    @property
    def precision(self) -> Literal["f32", "int8"]:
        """What these weights are multiplied in."""
        return "int8" if self.quantised else "f32"

    @property
    def specs(self) -> dict[str, str]:
        """The specs that suit these weights by level, from low to high."""
        levels = dict(zoo.network(self.network).levels) or {"high": "high"}
        if self.name == zoo.EMBEDDED:
            levels.update(EMBEDDED[self.network].levels)
        return {level: f"{self.network}/{rest}" for level, rest in levels.items()}

    @property
    def best_spec(self) -> str:
        """The spec of the highest level."""
        return list(self.specs.values())[-1]


@dataclass(frozen=True)
class Verified:
    """What one file of the folder turned out to be.

    `expected` is the pinned hash or its first digits. A file is `unpinned` until it is first used.
    """

    file: str
    sha256: str | None
    expected: str | None
    status: Literal["ok", "changed", "unpinned", "missing"]


def load_parameters(weights: Weights, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """The tensors of these names and shapes, float32, on the CPU; no other becomes resident.

    The hash of the file is checked first, and what is then read is the very file that was hashed.

    Raises WeightsError: `weights-missing`, `weights-hash`, and those of `checkpoint.read`.
    """
    if weights.path is None:
        return untrained.parameters(weights.network, shapes)
    with _open(weights.path) as stream:
        digest = download.sha256(stream)
        if digest != weights.sha256:
            raise _changed(weights.path, digest, weights.sha256)
        return checkpoint.read(stream, shapes)


def _environment_folder() -> Path:
    named = os.environ.get("POOL5_WEIGHTS_DIR")
    return Path(named) if named else Path(torch.hub.get_dir()) / "checkpoints"


def _environment_offline() -> bool:
    return os.environ.get("POOL5_OFFLINE", "").lower() in {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class WeightsFolder:
    """A folder of checkpoint files, and the address that missing ones come from.

    `mirror` is the address of a folder that replaces torchvision's own; `offline` forbids every
    connection. What is not given is taken from `POOL5_WEIGHTS_DIR` (else torchvision's own cache),
    `POOL5_WEIGHTS_MIRROR` and `POOL5_OFFLINE`. `progress` is told (bytes done, total) of every
    download. The hashes of the files stand in `SHA256SUMS`
    beside them, as `sha256sum` writes it, from the first use of each on.
    """

    folder: Path = field(default_factory=_environment_folder)
    mirror: str | None = field(default_factory=lambda: os.environ.get("POOL5_WEIGHTS_MIRROR"))
    offline: bool = field(default_factory=_environment_offline)
    progress: download.Progress | None = None

    def resolve(self, network: str, choice: str = "auto", sha256: str | None = None) -> Weights:
        """The weights of that choice, in the folder and verified.

        `choice` is `auto` (the pinned weights, or the embedded ones, which say so in `notice`), a
        name of torchvision's weights enum in lower case, one of `made` (`untrained`, `embedded`,
        `none`), or a file in the folder, which may declare its preprocessing:
        `vgg19.safetensors:caffe`. `sha256` is what a collection was made with.

        Raises SpecError for an unknown network, and WeightsError: `weights-unavailable`,
        `weights-offline`, `weights-missing`, `weights-unknown`, `weights-hash` (the file changed),
        `weights-differ` (not the given sha256), `weights-unreadable` (quantised, and not as they
        were written), and those of `download.fetch`.

        >>> WeightsFolder(offline=True).resolve("alexnet", "untrained").sha256[:8]
        '24f9c149'
        """
        row = zoo.network(network)
        if choice == "auto":
            found = self._auto(row)
        elif choice in made(row):
            found = _MADE[choice](row)
        elif choice in official(row.name):
            found = self._official(row, choice)
        else:
            found = self._local(row, choice)
        if sha256 not in (None, found.sha256):
            raise WeightsError(
                "weights-differ",
                f"{network} was used with weights of SHA-256 {sha256}, but {choice!r} is "
                f"{found.name} with {found.sha256}: put the former file into {self.folder}, or "
                "index anew with the present one",
            )
        return found

    def pull(
        self, network: str, name: str | None = None, progress: download.Progress | None = None
    ) -> Weights:
        """Download the weights `name` (by default the pinned ones) unless they are here.

        A file that is here but changed is replaced. Raises as `resolve` does.
        """
        row = zoo.network(network)
        name = name or pinned(row)
        if name == pinned(row) and name in made(row):  # It came with pool5.
            return self.resolve(network, name)
        if name not in official(row.name):
            raise _unknown(row, name, self.at_hand(network))
        self._download(row, name, progress)
        return self._official(row, name)

    def verify(self) -> list[Verified]:
        """Hash every checkpoint in the folder, and name those of `SHA256SUMS` that are gone."""
        pins = sums.read(self.folder)
        here = {path.name: path for path in self._files()}
        return [self._verified(name, here.get(name), pins) for name in sorted(here | pins)]

    def at_hand(self, network: str) -> list[str]:
        """The names that need no download.

        Of the other files in the folder these are the ones whose name begins with the network's.
        """
        here = [path.name for path in self._files()]
        own = [name for name, url in official(network).items() if _file_of(url) in here]
        prefixes = official_hashes()
        local = [file for file in here if file not in prefixes and _named_for(file) == network]
        return [*own, *local, *made(zoo.network(network))]

    def _auto(self, row: zoo.Network) -> Weights:
        name = pinned(row)
        if name in made(row):
            return self.resolve(row.name, name)
        if not self._path(row, name).is_file():
            try:
                self._download(row, name)
            except WeightsError as why:
                if row.name not in EMBEDDED:
                    raise WeightsError(
                        "weights-unavailable",
                        f"the weights {name} of {row.name} are not here: {why}; or choose the "
                        'weights "untrained"',
                    ) from why
                fallback = _embedded(row)
                notice = f"{fallback.notice} (the pinned weights {name} are not here: {why})"
                logger.warning(notice)
                return replace(fallback, notice=notice)
        return self._official(row, name)

    def _official(self, row: zoo.Network, name: str) -> Weights:
        path = self._path(row, name)
        if not path.is_file():
            self._download(row, name)
        digest = self._checked(path, official_hashes()[path.name])
        return Weights(row.name, name, digest, zoo.native_preprocessing(row, name), path)

    def _path(self, row: zoo.Network, name: str) -> Path:
        return self.folder / _file_of(official(row.name)[name])

    def _local(self, row: zoo.Network, choice: str) -> Weights:
        file, _, declared = choice.partition(":")
        path = self.folder / file
        # A choice comes in requests: it must not name anything outside the folder. What is not
        # printable (NUL, lone surrogates) is no file name at all.
        plain = file.isprintable() and Path(file).name == file
        inside = plain and path.resolve().parent == self.folder.resolve()
        if not inside or path.suffix not in _suffixes(row) or declared not in ("", *_declared(row)):
            raise _unknown(row, choice, self.at_hand(row.name))
        digest = self._checked(path)
        if found := _provenance(path):
            return _quantised(row, choice, digest, path, found)
        how = zoo.native_preprocessing(row)
        if declared:
            how = declared_for(declared, how)
        return Weights(row.name, choice, digest, how, path)

    def _download(
        self, row: zoo.Network, name: str, progress: download.Progress | None = None
    ) -> None:
        url = official(row.name)[name]
        file = _file_of(url)
        if self.offline:
            raise WeightsError(
                "weights-offline",
                f"{file} is not in {self.folder}, and POOL5_OFFLINE forbids to download it: put "
                f"it there, set POOL5_WEIGHTS_DIR, or run `pool5 weights pull {row.name}` online",
            )
        source = f"{self.mirror.rstrip('/')}/{file}" if self.mirror else url
        logger.info("downloading %s", download.shown(source))
        expected = sums.read(self.folder).get(file) or official_hashes()[file]
        download.fetch(
            source, self.folder / file, expected=expected, progress=progress or self.progress
        )

    def _checked(self, path: Path, announced: str = "") -> str:
        """The hash of a file, which is the pinned one or becomes it."""
        with _open(path) as stream:
            digest = download.sha256(stream)
        expected = sums.read(self.folder).get(path.name)
        if not digest.startswith(expected or announced):
            raise _changed(path, digest, expected or announced)
        if expected is None:
            self._pin(path.name, digest)
        return digest

    def _pin(self, file: str, digest: str) -> None:
        """Trust this hash from now on."""
        try:
            sums.add(self.folder, file, digest)
        except OSError as why:
            logger.warning("%s cannot be pinned in %s: %s", file, self.folder, why)
        else:
            logger.info("%s is pinned as SHA-256 %s", file, digest)

    def _verified(self, name: str, path: Path | None, pins: Mapping[str, str]) -> Verified:
        expected = pins.get(name) or official_hashes().get(name)
        if path is None:
            return Verified(name, None, expected, "missing")
        with _open(path) as stream:
            digest = download.sha256(stream)
        if expected is None:
            return Verified(name, digest, None, "unpinned")
        return Verified(name, digest, expected, "ok" if digest.startswith(expected) else "changed")

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(
            path
            for path in self.folder.iterdir()
            if path.suffix in checkpoint.SUFFIXES and path.is_file()
        )


@cache
def official(network: str) -> Mapping[str, str]:
    """The addresses of torchvision's weights for a network, by their names in lower case.

    `DEFAULT` is left out: what it stands for changes with torchvision.
    """
    members = zoo.enum_weights(zoo.network(network))
    return {name: member.url for name, member in members.items() if name != "default"}


def _file_of(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def pinned(row: zoo.Network) -> str:
    """The name of the weights that `auto` means."""
    known = official(row.name)
    return row.weights if row.weights in known else next(iter(known), row.weights)


@cache
def official_hashes() -> Mapping[str, str]:
    """The hash that each of torchvision's file names ends with: its SHA-256's first digits."""
    files = (_file_of(url) for name in zoo.names() for url in official(name).values())
    return {file: Path(file).stem.rpartition("-")[2] for file in files}


def _named_for(file: str) -> str | None:
    """The network that a file's name begins with; `vgg19_bn.pth` is not of `vgg19`."""
    return max((name for name in zoo.names() if file.startswith(name)), key=len, default=None)


def made(row: zoo.Network) -> list[str]:
    """The names of the weights of a network that need neither a folder nor an address."""
    if row.weights == zoo.NONE:
        return [zoo.NONE]
    embedded = [zoo.EMBEDDED] if row.name in EMBEDDED else []
    return embedded if row.module else [*embedded, "untrained"]


def _suffixes(row: zoo.Network) -> tuple[str, ...]:
    """What files of parameters end with, where the network has any."""
    return () if row.weights == zoo.NONE else checkpoint.SUFFIXES


def _declared(row: zoo.Network) -> tuple[str, ...]:
    """The preprocessings that a file may declare: ours is part of how a module of ours computes."""
    return () if row.module else tuple(DECLARED)


def _embedded(row: zoo.Network) -> Weights:
    shipped = EMBEDDED[row.name]
    return Weights(
        row.name,
        zoo.EMBEDDED,
        shipped.sha256,
        shipped.preprocessing or zoo.native_preprocessing(row),
        shipped.path,
        shipped.notice,
    )


def _none(row: zoo.Network) -> Weights:
    """No parameters: the hash is that of no bytes."""
    nothing = hashlib.sha256(b"").hexdigest()
    return Weights(row.name, zoo.NONE, nothing, zoo.native_preprocessing(row))


def _untrained(row: zoo.Network) -> Weights:
    return Weights(
        row.name,
        "untrained",
        untrained.recipe_hash(row.name),
        zoo.native_preprocessing(row),
        notice=f"{row.name} is untrained: its parameters are random, so neighbours are alike in "
        "colour and texture and hardly in content",
    )


def _provenance(path: Path) -> Provenance | None:
    """What quantised weights say of themselves; nothing, if they are not."""
    with _open(path) as stream:
        text = checkpoint.header(stream).get(provenance.KEY)
    return None if text is None else provenance.read(str(path), text)


def _quantised(
    row: zoo.Network, choice: str, digest: str, path: Path, found: Provenance
) -> Weights:
    if found.network != row.name:
        raise WeightsError(
            "weights-shape", f"{path} is of another network: it was made for {found.network}"
        )
    if ":" in choice:
        raise WeightsError(
            "weights-unknown",
            f"{choice!r} declares a preprocessing, but quantised weights have that of their "
            f"source: choose {path.name!r}",
        )
    source = _MADE[found.source](row).notice if found.source in made(row) else None
    loss = (
        f"{row.name} runs in int8: its descriptors have a cosine of {found.cosine_mean:.4f} to "
        f"those of {found.source} (at least {found.cosine_least:.4f} on {found.measured_on} "
        "pictures)"
    )
    notice = "; ".join(filter(None, (loss, source)))
    return Weights(row.name, choice, digest, found.preprocessing, path, notice, found)


_MADE: Mapping[str, Callable[[zoo.Network], Weights]] = {
    "untrained": _untrained,
    zoo.EMBEDDED: _embedded,
    zoo.NONE: _none,
}


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as why:
        raise WeightsError(
            "weights-missing",
            f"{path} cannot be read ({why.strerror}): put the file there or set POOL5_WEIGHTS_DIR",
        ) from why


def _changed(path: Path, digest: str, expected: str) -> WeightsError:
    return WeightsError(
        "weights-hash",
        f"{path} has SHA-256 {digest} where {expected} is pinned: it is damaged or was changed. "
        "Pull it again, or, if you changed it yourself, remove its line from "
        f"{path.with_name(sums.NAME)}",
    )


def _unknown(row: zoo.Network, choice: str, at_hand: list[str]) -> WeightsError:
    there = ["auto", *official(row.name), *made(row)]
    if suffixes := _suffixes(row):
        there.append(f"the {' and '.join(suffixes)} files of the weights folder by name")
    if declared := _declared(row):
        there[-1] += f", each with :{' or :'.join(declared)} to declare its preprocessing"
    return WeightsError(
        "weights-unknown",
        f"{row.name} has no weights {choice!r}: there are {', '.join(there)}; "
        f"at hand: {', '.join(at_hand)}",
    )
