"""What every test may ask for; nothing here needs a network or a GPU."""

import os
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
def shared_weights() -> Path:
    """Genuine weights of two small networks."""
    return _folder("weights")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("POOL5_") and name != REQUIRE_BROWSER]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("POOL5_OFFLINE", "1")
