"""The vocabulary of `sift`, fitted: projection, words by FAISS, inverse document frequencies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file

from models import Descriptors, SpecError, zoo

NETWORK = "sift"
SEED = 0
ITERATIONS = 15
SAMPLE = 49_152
"""Local descriptors that the projection and the words are fitted on, drawn from all."""

Vocabulary = dict[str, npt.NDArray[np.float16]]
"""The parameters of `sift` by the names that the network has for them."""


def fit(pictures: Sequence[Descriptors]) -> Vocabulary:
    """Fit a vocabulary on the local descriptors of each picture, n×128 RootSIFT.

    The projection is onto the leading eigenvectors of their covariance, each scaled by λ^-¼: half
    of a whitening. Words are the means of k-means; the idf of a word is log((N+1)/(n+1)), where n
    of N pictures have it. Numbers are rounded to half precision as they are made, so that each is
    fitted to what will be loaded.

    Raises SpecError (`spec-vocabulary-samples`) for fewer descriptors than words.
    """
    shapes = _shapes()
    full = np.concatenate([np.empty((0, 128), np.float32), *pictures])
    needed = max(shape[0] for name, shape in shapes.items() if name.endswith(".words"))
    if len(full) < needed:
        raise SpecError(
            "spec-vocabulary-samples",
            f"a vocabulary needs at least {needed} local descriptors, these pictures have "
            f"{len(full)}: give more, or some with more detail",
        )
    drawn = np.random.default_rng(SEED).permutation(len(full))[:SAMPLE]
    mean, projection = _half_whitening(full[drawn], shapes["local.projection"][1])
    made: Vocabulary = {"local.mean": mean, "local.projection": projection}
    projected = [_project(descriptors, mean, projection) for descriptors in pictures]
    sample = _project(full[drawn], mean, projection)
    for layer in ("vlad64", "bow1024"):
        made[f"{layer}.words"] = _means(sample, shapes[f"{layer}.words"][0])
    made["bow1024.idf"] = _idf(projected, made["bow1024.words"])
    return {name: made[name] for name in shapes}


def save(vocabulary: Vocabulary, path: Path) -> None:
    """Write it as safetensors, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    save_file(vocabulary, aside)
    aside.replace(path)


def _shapes() -> Mapping[str, torch.Size]:
    return {name: x.shape for name, x in zoo.build(zoo.network(NETWORK)).state_dict().items()}


def _half_whitening(
    samples: Descriptors, dim: int
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    mean = samples.mean(axis=0, dtype=np.float64)
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(samples - mean, rowvar=False))
    leading, vectors = eigenvalues[::-1][:dim], eigenvectors[:, ::-1][:, :dim]
    # An eigenvector's sign is arbitrary: fix it, so that the same pictures give the same file.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(dim)])
    projection = vectors * np.maximum(leading, 1e-12) ** -0.25
    return mean.astype(np.float16), np.ascontiguousarray(projection.astype(np.float16))


def _project(
    descriptors: Descriptors, mean: npt.NDArray[np.float16], projection: npt.NDArray[np.float16]
) -> Descriptors:
    projected = (descriptors - mean.astype(np.float32)) @ projection.astype(np.float32)
    return np.ascontiguousarray(projected, dtype=np.float32)


def _means(samples: Descriptors, count: int) -> npt.NDArray[np.float16]:
    clustering = faiss.Kmeans(
        samples.shape[1],
        count,
        niter=ITERATIONS,
        seed=SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE,
    )
    clustering.train(samples)
    means: npt.NDArray[np.float16] = np.asarray(clustering.centroids).astype(np.float16)
    return means


def _idf(
    pictures: Sequence[Descriptors], words: npt.NDArray[np.float16]
) -> npt.NDArray[np.float16]:
    nearest = faiss.IndexFlatL2(words.shape[1])
    nearest.add(words.astype(np.float32))
    having = np.zeros(len(words))
    for descriptors in pictures:
        if len(descriptors):
            having[np.unique(nearest.search(descriptors, 1)[1])] += 1
    idf: npt.NDArray[np.float16] = np.log((len(pictures) + 1) / (having + 1)).astype(np.float16)
    return idf
