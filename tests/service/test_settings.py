"""Settings from the environment, a file and flags."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError

from service.settings import Settings


def test_variables_are_read_and_paths_made_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOL5_PORT", "9001")
    monkeypatch.setenv("POOL5_DATA", "here")
    monkeypatch.setenv("POOL5_IMAGE_ROOTS", f"{tmp_path}/a:{tmp_path}/b")
    settings = Settings()
    assert settings.port == 9001
    assert settings.data == tmp_path / "here"
    assert settings.image_roots == (tmp_path / "a", tmp_path / "b")


def test_a_file_named_env_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("POOL5_PORT=9002\nPOOL5_NETWORK=vgg19\n")
    monkeypatch.setenv("POOL5_PORT", "9003")
    assert (Settings().port, Settings().network) == (9003, "vgg19")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "-1"), ("PORT", "x"), ("BATCH_SIZE", "0"), ("LOG_FORMAT", "loud"), ("OFFLINE", "?")],
)
def test_a_wrong_value_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"POOL5_{name}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert refused.value.errors()[0]["loc"] == (name.lower(),)


def test_what_is_logged_at_the_start_has_no_secrets() -> None:
    settings = Settings(
        weights_mirror="https://me:pass@mirror.example:8443/weights?token=abc",
        url_hosts=("a.example", "b.example"),
    )
    shown = settings.shown()
    assert set(shown) == set(Settings.model_fields)
    assert shown["weights_mirror"] == "https://***@mirror.example:8443/weights?***"
    assert shown["url_hosts"] == ["a.example", "b.example"]
    assert not any(secret in str(shown) for secret in ("me:", "pass", "abc"))


def test_a_setting_that_is_a_secret_by_type_is_masked() -> None:
    class WithKey(Settings):
        key: SecretStr = SecretStr("hush")
        passed_on: dict[str, str] = Field(default_factory=lambda: {"url": "http://u:p@h/"})

    shown = WithKey().shown()
    assert shown["key"] == "**********"
    assert shown["passed_on"] == {"url": "http://***@h/"}
