"""What a user would otherwise write or take to describe pictures: a function for each.

Each takes paths and gives n×D float32 of norm 1, or None where it keeps no such rows. All have the
same parameters. Whose package is not installed, and whose package lacks a network, is left out.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models as torchvision_models

from models import Weights
from models.weights import load_parameters

Rows = npt.NDArray[np.float32]
Describe = Callable[[Sequence[Path]], Rows | None]

BATCH = 32
"""Of the DataLoader loop; clip-retrieval's own 256 would be all of our pictures at once."""


@dataclass(frozen=True)
class Subject:
    """A network of torchvision and the module whose output, averaged, is the descriptor."""

    network: str
    module: str
    weights: Weights

    @cached_property
    def model(self) -> nn.Module:
        """The whole network with its classifier, as users load it."""
        model: nn.Module = torchvision_models.get_model(self.network, weights=None)
        give(model, load_parameters(self.weights, _shapes(model)))
        return model.eval()

    @cached_property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """torchvision's own preprocessing for it."""
        weights = torchvision_models.get_model_weights(self.network)
        transform: Callable[[Image.Image], Tensor] = weights["IMAGENET1K_V1"].transforms()
        return transform

    def averaged(self, batch: Tensor) -> Tensor:
        """Run the network, and keep what a forward hook sees of the module: B×D."""
        seen: list[Tensor] = []
        hook = self.model.get_submodule(self.module).register_forward_hook(
            lambda _module, _given, output: seen.append(output.mean(dim=(2, 3)))
        )
        with torch.no_grad():
            self.model(batch)
        hook.remove()
        return seen[0]


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def give(model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Load parameters in their order, whatever they are called; a cut model takes the first."""
    own = _shapes(model)
    given = dict(zip(own, parameters.values(), strict=False))
    assert all(given[name].shape == shape for name, shape in own.items())
    model.load_state_dict(given)


def unit(rows: Any) -> Rows:
    """n×D float32 of norm 1."""
    found = np.asarray(rows, dtype=np.float32)
    normed: Rows = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return normed


def hook_loop(subject: Subject) -> Describe:
    """One picture at a time through the whole network, with a forward hook, as img2vec does."""

    def describe(paths: Sequence[Path]) -> Rows:
        rows = []
        for path in paths:
            picture = subject.transform(Image.open(path).convert("RGB"))
            rows.append(subject.averaged(picture[None])[0].numpy())
        return unit(rows)

    return describe


@dataclass(frozen=True)
class _Files(Dataset[Tensor]):
    paths: Sequence[Path]
    transform: Callable[[Image.Image], Tensor]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: int) -> Tensor:
        return self.transform(Image.open(self.paths[at]).convert("RGB"))


def loader_loop(subject: Subject) -> Describe:
    """Batches from a DataLoader whose worker processes decode, as clip-retrieval reads files."""

    def describe(paths: Sequence[Path]) -> Rows:
        files = _Files(paths, subject.transform)
        batches = DataLoader(files, BATCH, num_workers=os.cpu_count() or 1, prefetch_factor=2)
        return unit(np.concatenate([subject.averaged(batch).numpy() for batch in batches]))

    return describe


def img2vec(subject: Subject) -> Describe | None:
    """The package img2vec-pytorch; it squeezes pictures to squares and resizes them as tensors."""
    if not find_spec("img2vec_pytorch") or subject.network not in ("resnet152", "alexnet"):
        return None
    package = import_module("img2vec_pytorch.img_to_vec")
    # It would download its weights, and with them its constructor's.
    with patch.object(package, subject.network, lambda **_: subject.model):
        made = package.Img2Vec(model=subject.network)

    def describe(paths: Sequence[Path]) -> Rows:
        return unit([made.get_vec(Image.open(path).convert("RGB")) for path in paths])

    return describe


TIMM = {"resnet152": "resnet152", "mobilenet_v2": "mobilenetv2_100"}
"""What timm calls the networks; it has no AlexNet."""


def timm(subject: Subject) -> Describe | None:
    """timm's own model and transform, one picture at a time, as its documentation has it."""
    if not find_spec("timm") or subject.network not in TIMM:
        return None
    package = import_module("timm")
    model = package.create_model(TIMM[subject.network], pretrained=False, num_classes=0).eval()
    give(model, subject.model.state_dict())
    config = package.data.resolve_model_data_config(model)
    transform = package.data.create_transform(**config, is_training=False)

    def describe(paths: Sequence[Path]) -> Rows:
        with torch.no_grad():
            opened = (Image.open(path).convert("RGB") for path in paths)
            return unit([model(transform(picture)[None])[0].numpy() for picture in opened])

    return describe


def deep_image_search(subject: Subject) -> Describe | None:
    """The package DeepImageSearch: it indexes into a flat FAISS file with its metadata."""
    if not (find_spec("DeepImageSearch") and find_spec("timm")) or subject.network not in TIMM:
        return None
    package = import_module("DeepImageSearch")

    def describe(setup: Any, paths: Sequence[Path]) -> Rows:
        setup.image_list = [str(path) for path in paths]
        setup.run_index(force_reindex=True)
        return unit(setup.vector_store.index.reconstruct_n(0, len(paths)))

    setup = package.Search_Setup(
        ["none yet"],
        TIMM[subject.network],
        pretrained=False,
        metadata_dir=tempfile.mkdtemp(prefix="peers-"),
    )
    give(setup.embedding.model, subject.model.state_dict())
    return partial(describe, setup)


PEERS: Mapping[str, Callable[[Subject], Describe | None]] = {
    "hook loop": hook_loop,
    "DataLoader loop": loader_loop,
    "img2vec-pytorch": img2vec,
    "timm": timm,
    "DeepImageSearch": deep_image_search,
}
"""The first is what the others are compared with."""
