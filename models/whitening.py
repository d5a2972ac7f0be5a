"""PCA-whitening: fitted once on descriptors, kept as safetensors, named by its SHA-256.

Truncation is what makes it work: the small eigenvalues of descriptors are noise, and scaling
them up by λ^-½ destroys a descriptor (Jégou & Chum 2012).
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import save_file

from models.embedded import FOLDER
from models.errors import SpecError

Descriptors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Whitening:
    """x ↦ (x - mean)·projection; `mean` is D, `projection` D×d, both float32."""

    mean: Descriptors
    projection: Descriptors
    base: str
    """The descriptor it was fitted on: `spec@weights SHA-256`."""
    sha256: str

    @property
    def dim(self) -> int:
        """d, the dimension that descriptors have afterwards."""
        return int(self.projection.shape[1])

    def apply(self, descriptors: Descriptors) -> Descriptors:
        """N×D float32 to N×d float32, L2-normalised."""
        whitened = (descriptors - self.mean) @ self.projection
        norms = np.linalg.norm(whitened, axis=1, keepdims=True)
        whitened /= np.maximum(norms, 1e-12)
        return whitened.astype(np.float32)


def fit(descriptors: Descriptors, dim: int, base: str) -> Whitening:
    """Fit on N×D descriptors: the `dim` leading eigenvectors of the covariance, scaled by λ^-½.

    On the data itself the result has unit covariance (before the L2 normalisation). Takes
    O(min(N, D)³), and the first d columns are what a fit to d dimensions gives. Raises
    SpecError (`spec-whitening-samples`) unless N > dim and dim ≤ D.
    """
    count, full = descriptors.shape
    if not 0 < dim <= full or count <= dim:
        raise SpecError(
            "spec-whitening-samples",
            f"whitening to {dim} dimensions needs more than {dim} pictures (there are {count}) "
            f"and at most {full} dimensions",
        )
    samples = descriptors.astype(np.float64)
    mean = samples.mean(axis=0)
    samples -= mean
    # XXᵀ and XᵀX have the same eigenvalues but for zeros: the smaller one is solved.
    by_picture = count < full
    square = samples @ samples.T if by_picture else samples.T @ samples
    eigenvalues, vectors = np.linalg.eigh(square / (count - 1))
    eigenvalues, vectors = eigenvalues[::-1][:dim], vectors[:, ::-1][:, :dim]
    if by_picture:
        vectors = samples.T @ vectors
        vectors /= np.maximum(np.linalg.norm(vectors, axis=0), 1e-12)
    # An eigenvector's sign is arbitrary: fix it, so that the same data give the same file.
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(dim)])
    scales = 1.0 / np.sqrt(np.maximum(eigenvalues, 1e-12))
    mean32, projection = mean.astype(np.float32), (vectors * scales).astype(np.float32)
    return Whitening(mean32, projection, base, _sha256(mean32, projection, base))


def save(whitening: Whitening, path: Path) -> None:
    """Write mean, projection and what they were fitted on as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    tensors = {"mean": whitening.mean, "projection": np.ascontiguousarray(whitening.projection)}
    save_file(tensors, aside, {"base": whitening.base, "sha256": whitening.sha256})
    aside.replace(path)


def load(path: Path) -> Whitening:
    """Read what `save` wrote.

    Raises SpecError (`spec-whitening-changed`) where the numbers no longer match their hash.
    """
    try:
        with safetensors.safe_open(path, "np") as file:
            stored = file.metadata() or {}
            mean, projection = file.get_tensor("mean"), file.get_tensor("projection")
    except (OSError, safetensors.SafetensorError) as error:
        raise SpecError("spec-whitening-unreadable", f"{path}: {error}; fit it again") from error
    base, sha256 = stored.get("base", ""), stored.get("sha256", "")
    if _sha256(mean, projection, base) != sha256:
        raise SpecError("spec-whitening-changed", f"{path} is not what was fitted: fit it again")
    return Whitening(mean, projection, base, sha256)


class WhiteningFolder:
    """The fitted whitenings at hand: a file each, named by what it was fitted on and its hash."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` need not exist; without one there are only those that come with pool5."""
        self.folder = folder

    def keep(self, whitening: Whitening) -> Path:
        """Save a whitening beside the older ones, which collections may still be pinned to."""
        if self.folder is None:
            raise SpecError("spec-whitening-missing", "there is no folder to keep whitenings in")
        path = (
            self.folder
            / f"{_slug(whitening.base)}-pca{whitening.dim}-{whitening.sha256[:16]}.safetensors"
        )
        save(whitening, path)
        return path

    def find(self, spec: str, weights_sha256: str, dim: int, pin: str | None = None) -> Whitening:
        """The whitening pinned by its SHA-256, or else the one fitted last, or one of our own.

        Raises SpecError (`spec-whitening-missing`) naming the command that fits one.
        """
        base = f"{spec}@{weights_sha256}"
        pattern = f"{_slug(base)}-pca{dim}-{pin[:16] if pin else '*'}.safetensors"
        fitted = sorted(self.folder.glob(pattern), key=_modified) if self.folder else []
        for path in [*reversed(fitted), *FOLDER.glob(pattern)]:
            found = load(path)
            if found.base == base and found.dim == dim and pin in (None, found.sha256):
                return found
        pinned = f" with SHA-256 {pin}" if pin else ""
        raise SpecError(
            "spec-whitening-missing",
            f"no whitening of {spec} to {dim} dimensions{pinned} has been fitted with these "
            f"weights: `pool5 whiten FOLDER --spec {spec} --dim {dim}` fits one",
        )


def _slug(base: str) -> str:
    return re.sub(r"[^a-zA-Z0-9.=]+", "-", base.split("@", maxsplit=1)[0])


def _modified(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


def _sha256(mean: Descriptors, projection: Descriptors, base: str) -> str:
    digest = hashlib.sha256(f"{base} {projection.shape}".encode())
    digest.update(mean.astype("<f4").tobytes())
    digest.update(np.ascontiguousarray(projection).astype("<f4").tobytes())
    return digest.hexdigest()
