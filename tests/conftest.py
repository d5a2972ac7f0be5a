"""What every test may ask for; nothing here needs a network or a GPU."""

import os
import shutil
from pathlib import Path

import pytest

REQUIRE_BROWSER = "POOL5_REQUIRE_BROWSER"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: the real pictures and weights are not in the repository")
    return folder


@pytest.fixture(scope="session")
def shared_images() -> Path:
    """Real photographs, by set."""
    return _folder("images")


@pytest.fixture(scope="session")
def shared_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Genuine weights of two small networks, copied: pool5 notes hashes beside what it uses."""
    copied = tmp_path_factory.mktemp("weights")
    for file in _folder("weights").glob("*.pth"):
        shutil.copyfile(file, copied / file.name)
    return copied


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One for all workers and the services they start, which compile networks."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["XDG_CACHE_HOME"] = str(shared / "cache")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name
        for name in os.environ
        if name.startswith("POOL5_") and not name.startswith("POOL5_REQUIRE_")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("POOL5_OFFLINE", "1")
    monkeypatch.setenv("POOL5_RUNTIME", "torch")  # Others compile, and have tests of their own.
    monkeypatch.setenv("POOL5_HOSTS", "testserver")  # as starlette's client calls it
