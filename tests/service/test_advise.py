"""`pool5 evaluate --advise`: what it compares, what it says, and that what it says works."""

import html
import json
import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from fastapi.testclient import TestClient

from index.errors import EvaluationError
from index.evaluation import by_labels, leave_one_out
from index.evaluation.choosing import choose
from models import Extractor, WeightsFolder, parse, whitening
from service.cli import main
from service.engine import Engine
from service.evaluating import advisor, candidates, page
from service.evaluating.advice import AdviceBody, advice_body
from service.evaluating.advisor import Advice, Measured, advise, specs
from service.evaluating.album import FolderAlbum
from service.evaluating.study import truth_of
from tests.pictures import picture

Command = Callable[..., tuple[int, str, str]]

NETWORK = "alexnet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four objects of four noisy views each, and one broken file."""
    root = tmp_path_factory.mktemp("sample") / "objects"
    random = np.random.default_rng(5)
    for n in range(16):
        path = root / f"object-{n // 4}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        left = int(random.integers(0, 40))
        picture(n // 4, (160, 120)).crop((left, left // 2, left + 110, left // 2 + 90)).save(path)
    (root / "object-1" / "broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture
def pool5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs `pool5 …` in an empty folder: exit status, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOL5_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("POOL5_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("POOL5_DEVICE", "cpu")
    handlers, level = logging.root.handlers[:], logging.root.level

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pool5", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    yield run
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(specs([NETWORK]), weights="untrained", device="cpu")


def advised(extractor: Extractor, folder: Path, **how: Any) -> Advice:
    album = FolderAlbum(folder, 2**24)
    return advise(
        extractor, album, truth_of(album, "folders"), items=1_000, threads=1, batch_size=8, **how
    )


@pytest.fixture(scope="module", autouse=True)
def _few_dimensions() -> Iterator[None]:
    """Sixteen pictures can be whitened to few dimensions only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "DIMS", (4,))
        yield


@pytest.fixture(scope="module")
def found(extractor: Extractor, folder: Path) -> Advice:
    return advised(extractor, folder)


@pytest.fixture(scope="module")
def thorough(extractor: Extractor, folder: Path) -> Advice:
    return advised(extractor, folder, exhaustive=True)


def as_good(found: Advice, thorough: Advice) -> None:
    """The criterion of the issue, for the highest and for what is recommended.

    The recommendation depends on costs, so both are chosen by those of one of the two runs.
    """
    costs = {one.spec: one.milliseconds * one.bytes for one in thorough.measured}
    values = np.stack([one.values for one in found.measured])
    searched = choose(values, np.array([costs[one.spec] for one in found.measured]))
    assert found.best.mean >= thorough.best.mean - 0.005
    assert found.measured[searched.chosen].mean >= thorough.chosen.mean - 0.005
    assert len(found.measured) < len(thorough.measured)


def test_searching_is_as_good_as_trying_everything(found: Advice, thorough: Advice) -> None:
    as_good(found, thorough)
    singles = candidates.singles(NETWORK)
    plain = {*singles, *candidates.joined(NETWORK)}
    whitened = {candidates.whitened(spec, 4) for spec in plain}
    assert {one.spec for one in thorough.measured} == plain | whitened
    assert {one.spec for one in found.measured} > set(singles)
    assert sum(one.spec in whitened for one in found.measured) == advisor.WHITENED
    assert found.fitted_on == 12


def test_a_whitened_spec_is_measured_by_fits_without_its_queries(
    found: Advice, folder: Path
) -> None:
    one = next(one for one in found.measured if one.spec.whiten)
    paths = sorted(folder.rglob("[0-9]*.png"))
    base = str(one.spec.base)
    rows = np.asarray(Extractor(base, weights="untrained", device="cpu").describe(paths))
    labels, folds = [path.parent.name for path in paths], np.arange(16) % 5
    for query in range(16):
        fitted = whitening.fit(rows[folds != folds[query]], 4, base)
        by_hand = leave_one_out(fitted.apply(rows), labels).values["mAP"][query]
        assert one.values[query] == pytest.approx(by_hand, abs=1e-4)


def test_figures_are_those_of_describing_with_the_spec_itself(found: Advice, folder: Path) -> None:
    plain = [one.spec for one in found.measured if not one.spec.whiten]
    joined = next(str(spec) for spec in plain if len(spec.layers) == 2)
    chosen = {text: text for text in ("alexnet/conv3/rmac", "alexnet/fc6", joined)}
    paths = sorted(folder.rglob("[0-9]*.png"))
    rows = Extractor(chosen, weights="untrained", device="cpu").describe(paths)
    assert isinstance(rows, dict)
    measured = {one.spec: one for one in found.measured}
    for text in chosen:
        one = measured[parse(text)]
        by_hand = leave_one_out(rows[text], [path.parent.name for path in paths]).mean()
        assert one.mean == pytest.approx(by_hand, abs=1e-4)
        assert one.bytes == 2 * rows[text].shape[1]


def test_a_picture_goes_through_the_network_once(
    extractor: Extractor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    whole = extractor.forward
    monkeypatch.setattr(
        extractor, "forward", lambda batch, grids: sizes.append(len(batch)) or whole(batch, grids)
    )
    told: list[int] = []
    advice = advised(extractor, folder, comparing=told.append)
    assert sum(sizes) == 16
    assert told[-1] == len(advice.measured)
    assert [failure.name for failure in advice.failed] == ["object-1/broken.png"]


def test_deeper_costs_more_and_wider_costs_more(found: Advice) -> None:
    measured = {str(one.spec): one for one in found.measured}
    shallow, deep = measured["alexnet/conv1/spoc"], measured["alexnet/fc7/flatten"]
    assert shallow.forward < deep.forward
    assert shallow.bytes == 128
    assert deep.bytes == 8192


def test_a_sample_that_does_not_fit_in_memory_is_refused(
    extractor: Extractor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisor, "CACHE_BYTES", 100_000)
    with pytest.raises(EvaluationError, match="at most 1,") as refused:
        advised(extractor, folder)
    assert refused.value.code == "evaluation-sample-too-large"


def made(rows: dict[str, tuple[float, float]], queries: int = 8) -> Advice:
    """An advice about specs by their mAP and forward seconds, without noise between queries."""
    wobble = np.tile([-0.02, 0.02], queries // 2)
    labels = [n // 2 for n in range(queries)]
    measured = []
    for number, (text, (mean, forward)) in enumerate(rows.items()):
        spec = parse(text)
        values = mean + wobble * (1 if number % 2 else -1)
        measured.append(Measured(spec, spec.whiten or 64, values, forward, 0.001))
    values = np.stack([one.values for one in measured])
    costs = np.array([one.milliseconds * one.bytes for one in measured])
    return Advice(
        truth=by_labels("<b>made</b>", [str(n) for n in range(queries)], labels),
        variant="all",
        measured=measured,
        choice=choose(values, costs),
        fitted_on=6,
        items=1_000,
        device="cpu",
        weights={NETWORK: WeightsFolder(offline=True).resolve(NETWORK, "untrained")},
        failed=[],
    )


WHITENED = "alexnet/conv1/spoc/pca4"


@pytest.fixture
def whitened() -> AdviceBody:
    advice = made({"alexnet/conv5/gem": (0.505, 0.030), WHITENED: (0.5, 0.010)})
    return advice_body(advice, "objects of mine", {NETWORK: "untrained"})


def test_it_says_why_the_cheaper_of_two_like_ones(whitened: AdviceBody) -> None:
    said = " ".join(whitened.said)
    assert (whitened.best, whitened.chosen) == ("alexnet/conv5/gem", WHITENED)
    assert f"Use {WHITENED}: mAP 0.500 [" in said
    assert "8 bytes an item, 11.0 ms a query (10.0 forward, 1.0 search among 1,000 items)" in said
    assert "alexnet/conv5/gem came out highest" in said
    assert "on these 8 queries it cannot be told apart (difference +0.005 [" in said
    assert "it costs 128 bytes and 31.0 ms" in said
    assert "is too high" in said
    assert whitened.held_out is not None
    assert "fitted on 6 pictures, never on the query: that is few for 4 dimensions" in said


def test_what_is_best_and_cheapest_is_just_used() -> None:
    advice = made({"alexnet/conv5/gem": (0.7, 0.01), "alexnet/conv1/spoc": (0.5, 0.009)})
    body = advice_body(advice, "objects", {NETWORK: "auto"})
    assert body.chosen == body.best == "alexnet/conv5/gem"
    assert "Nothing that was compared came out higher" in " ".join(body.said)
    assert len(body.commands) == 1


def test_its_commands_make_a_collection_of_the_whitened_spec(
    whitened: AdviceBody,
    engine: Engine,
    client: TestClient,
    folder: Path,
    pool5: Command,
) -> None:
    fit, post = (shlex.split(command) for command in whitened.commands)
    assert fit[:3] == ["pool5", "whiten", "objects of mine"]
    status, _, said = pool5("whiten", str(folder), *fit[3:], "--data", str(engine.settings.data))
    assert status == 0, said
    assert post[:2] == ["curl", "http://127.0.0.1:8000/v1/collections"]
    answer = client.post("/v1/collections", json=json.loads(post[post.index("--json") + 1]))
    assert answer.status_code == 201, answer.text
    assert answer.json()["spaces"]["best"]["spec"] == WHITENED
    assert answer.json()["spaces"]["best"]["dim"] == 4


def test_the_page_needs_nothing_and_escapes_everything(whitened: AdviceBody) -> None:
    shown = page.render_advice(whitened)
    assert "<b>" not in shown
    assert html.escape("<b>made</b>") in shown
    assert "<script" not in shown
    assert "default-src 'none'" in shown
    assert re.findall(r"""(?:src|href)\s*=""", shown) == []
    assert shown.count('class="ring"') == 2
    assert shown.count('class="spot') == 2 * len(whitened.compared)
    assert "Pareto front" in shown
    for sentence in whitened.said:
        assert html.escape(sentence, quote=True) in shown


def test_from_the_command_line_to_table_json_and_page(
    pool5: Command, folder: Path, tmp_path: Path
) -> None:
    files = ["--report", "a.html", "--output", "a.json"]
    status, shown, said = pool5(
        "evaluate", "--advise", str(folder), "--network", NETWORK, "--weights", "untrained", *files
    )
    assert status == 0, said
    body = AdviceBody.model_validate_json(Path("a.json").read_text())
    assert f"Use {body.chosen}: mAP" in shown
    assert "objects: 16 queries, 16 pictures" in shown
    assert "★" in shown
    assert '--json \'{"name": "pictures"' in shown
    assert "broken.png" in said
    assert "untrained" in said
    assert body.compared[0].spec == body.best
    assert Path("a.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--advise", "missing"], "missing"),
        (["--advise", "objects", "--network", "nonet"], "nonet"),
        (["--advise", "objects", "objects"], "neither PICTURES"),
        (["objects", "--network", "alexnet"], "--advise FOLDER"),
        (["--advise", "objects", "--weights", "vgg19=untrained"], "vgg19=untrained"),
        (["--advise", "objects", "--report", "no/where.html"], "No such folder"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_status_2(
    pool5: Command,
    folder: Path,
    tmp_path: Path,
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "objects").symlink_to(folder)
    status, _, errors = pool5("evaluate", *arguments)
    assert status == 2
    last = errors.strip().splitlines()[-1]
    assert last.startswith("pool5: ")
    assert said in last


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network"), [("packages", "squeezenet1_1"), ("clothing", "mobilenet_v2")]
)
def test_on_real_pictures_searching_is_as_good_as_trying_everything(
    name: str,
    network: str,
    shared_images: Path,
    shared_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(candidates, "DIMS", (64, 128, 256))
    extractor = Extractor(
        specs([network]),
        weights=f"{network}.pth",
        folder=WeightsFolder(shared_weights),
        device="cpu",
    )
    found, thorough = (
        advised(extractor, shared_images / name, exhaustive=exhaustive)
        for exhaustive in (False, True)
    )
    as_good(found, thorough)
    assert any(one.spec.whiten for one in found.measured)
    assert found.held_out is not None
    assert found.held_out.mean <= found.best.mean
