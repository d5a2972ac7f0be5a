"""`pool5 evaluate` from pictures to its table, its JSON and its page."""

import html
import io
import json
import logging
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from fastapi.testclient import TestClient
from PIL import Image

from index import Expansion, Reranking
from index.evaluation import Box, Refinement, by_labels, leave_one_out, measured
from index.ranking.learning import learn_weights
from models import Extractor, Limits, WeightsFolder
from service.cli import main
from service.engine import Engine
from service.evaluating import page
from service.evaluating.album import FolderAlbum
from service.evaluating.describing import Picture, describe_all
from service.evaluating.report import Report, report_of
from service.evaluating.study import Study, study_collection, study_folder, truth_of
from service.indexing.source import SourceError
from tests.pictures import encoded, picture

Command = Callable[..., tuple[int, str, str]]

LOW, HIGH = "alexnet/conv1/spoc", "alexnet/conv5/gem"
HOSTILE = "<img src=x onerror=alert(1)>&\"'.png"


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor({LOW: LOW, HIGH: HIGH}, weights="untrained", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three objects of three pictures each, alike within an object, and one broken file."""
    root = tmp_path / "objects"
    for n in range(9):
        path = root / f"object-{n // 3}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        view = picture(n // 3, (120, 90)).crop((n % 3, 0, 100 + n % 3, 90))
        view.save(path)
    (root / "object-1" / "broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture
def pool5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOL5_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("POOL5_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("POOL5_DEVICE", "cpu")
    handlers, level = logging.root.handlers[:], logging.root.level

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pool5", "evaluate", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    yield run
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def studied(extractor: Extractor, folder: Path, truth: str = "folders") -> Study:
    album = FolderAlbum(folder, 2**20)
    said = truth_of(album, truth)
    return study_folder(extractor, album, said, threads=2, batch_size=4)


def test_a_folder_per_object_is_measured_by_two_specs(pool5: Command, folder: Path) -> None:
    files = ["--report", "r.html", "--output", "r.json"]
    status, shown, said = pool5(str(folder), "--spec", LOW, "--spec", HIGH, *files)
    assert status == 0, said
    assert "9 queries, 9 pictures" in shown
    assert f"{HIGH} − {LOW}" in shown
    assert "broken.png" in said
    assert "embedded" in said
    report = Report.model_validate_json(Path("r.json").read_text())
    assert [spec.spec for spec in report.specs] == [LOW, HIGH]
    assert [(failure.name, failure.code) for failure in report.failed] == [
        ("object-1/broken.png", "picture-format-unknown")
    ]
    (difference,) = report.differences
    means = [spec.variants["all"].measures["mAP"].mean for spec in report.specs]
    assert difference.difference.mean == pytest.approx(means[1] - means[0])
    # The same by describing and measuring without any of this.
    good = sorted(path for path in folder.rglob("*.png") if path.name != "broken.png")
    for spec, mean in zip([LOW, HIGH], means, strict=True):
        rows = np.asarray(Extractor(spec, weights="embedded", device="cpu").describe(good))
        labels = [path.parent.name for path in good]
        assert leave_one_out(rows, labels).mean() == pytest.approx(mean, abs=1e-4)


def test_a_script_reads_json(pool5: Command, folder: Path) -> None:
    status, shown, _ = pool5(str(folder), "--spec", HIGH, "--json")
    assert status == 0
    found = json.loads(shown)
    assert found["version"] == 1
    result = found["specs"][0]["variants"]["all"]
    assert len(result["precisions"]) == 101
    assert len(result["per_query"]["queries"]) == len(result["per_query"]["values"]["mAP"]) == 9
    assert found["differences"] == []


def test_every_spec_is_measured_plainly_and_reranked(pool5: Command, folder: Path) -> None:
    files = ["--report", "r.html", "--output", "r.json"]
    asked = ["--rerank", '{"method": "dba", "k": 2}', "--expansion", '{"n": 1, "alpha": 3}']
    status, shown, said = pool5(str(folder), "--spec", LOW, "--spec", HIGH, *asked, *files)
    assert status == 0, said
    report = Report.model_validate_json(Path("r.json").read_text())
    names = [LOW, f"{LOW} + α-QE + dba", HIGH, f"{HIGH} + α-QE + dba"]
    assert [spec.spec for spec in report.specs] == names
    assert [spec.expansion for spec in report.specs] == [None, {"n": 1, "alpha": 3}] * 2
    dba = {"method": "dba", "shortlist": 200, "k": 2, "alpha": 0}
    assert [spec.rerank for spec in report.specs] == [None, dba] * 2
    # Every spec to the first, every re-ranked one to itself without.
    assert [(found.a, found.b) for found in report.differences] == [(0, 1), (0, 2), (2, 3)]
    means = [spec.variants["all"].measures["mAP"].mean for spec in report.specs]
    for found in report.differences:
        assert found.difference.mean == pytest.approx(means[found.b] - means[found.a])
        assert f"{names[found.b]} − {names[found.a]}: mAP" in shown
    page = html.unescape(Path("r.html").read_text())
    assert page.count(names[3]) > 2
    assert '"method": "dba"' in page
    # The same by describing and ranking without any of this.
    good = sorted(path for path in folder.rglob("*.png") if path.name != "broken.png")
    labels = [path.parent.name for path in good]
    rows = np.asarray(Extractor(HIGH, weights="untrained", device="cpu").describe(good))
    truth = by_labels("objects", [path.name for path in good], labels)
    refinement = Refinement(Expansion(1, 3), Reranking.of({"method": "dba", "k": 2}))
    again = measured(refinement.rankings(rows, rows, np.arange(len(rows))), truth)["all"]
    assert again.mean() == pytest.approx(means[3], abs=1e-4)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["--rerank", "magic"], "rerank.method = 'magic'"),
        (["--rerank", "{"], "--rerank is no valid JSON"),
        (["--expansion", '{"n": 0}'], "expansion.n"),
        (["--expansion", "3"], "expansion"),
        (["--advise", "x", "--rerank", "dba"], "nor --expansion"),
    ],
)
def test_a_wrong_reranking_is_refused_before_work(
    pool5: Command, folder: Path, asked: list[str], says: str
) -> None:
    status, _, said = pool5(str(folder), "--spec", LOW, *asked)
    assert status == 2
    assert says in said


def test_weights_are_learned_over_specs(pool5: Command, folder: Path) -> None:
    files = ["--report", "r.html", "--output", "r.json"]
    specs = ["--spec", LOW, "--spec", HIGH, "--weights", "untrained"]
    status, shown, said = pool5(str(folder), *specs, "--learn-weights", *files)
    assert status == 0, said
    weights = Report.model_validate_json(Path("r.json").read_text()).weights
    assert weights is not None
    assert f'"space": {json.dumps(weights.space)}' in shown
    assert "on classes held out" in shown
    assert f"{weights.gain.mean:+.3f}" in shown
    assert weights.gain.mean == pytest.approx(weights.learned - weights.single)
    # The same by describing and learning without any of this.
    good = sorted(path for path in folder.rglob("*.png") if path.name != "broken.png")
    rows = Extractor({LOW: LOW, HIGH: HIGH}, weights="untrained", device="cpu").describe(good)
    learned = learn_weights(rows, [path.parent.name for path in good])
    assert weights.space == pytest.approx(learned.weights, abs=1e-4)
    assert weights.gain.mean == pytest.approx(learned.gain, abs=1e-4)
    assert weights.items == len(good)
    page = Path("r.html").read_text()
    assert "<h2>Weights</h2>" in page
    assert all(f">{weight:.4f}</td>" in page for weight in weights.space.values())


def test_weights_over_the_spaces_of_a_collection_are_what_its_search_takes(
    pool5: Command, engine: Engine, client: TestClient, folder: Path
) -> None:
    collection = engine.ensure_default()
    for path in sorted(folder.rglob("[0-9].png")):
        answer = client.post(
            "/v1/collections/default/items",
            files=[("files", (path.name, path.read_bytes(), "image/png"))],
            data={"metadata": json.dumps({"object": path.parent.name})},
        )
        assert answer.status_code == 200
    arguments = ["--collection", "default", "--label", "object", "--learn-weights", "--json"]
    status, shown, said = pool5(*arguments)
    assert status == 0, said
    space = json.loads(shown)["weights"]["space"]
    assert space.keys() <= collection.spaces.keys()
    found = client.post(
        "/v1/collections/default/search",
        files={"file": ("q.png", encoded(1), "image/png")},
        data={"space": json.dumps(space)},
    )
    assert found.status_code == 200
    assert found.json()["space"].keys() == space.keys()


def test_names_in_ground_truth_are_only_text(pool5: Command, folder: Path) -> None:
    odd = "a.b [/red] <b>{{ 7 * 7 }}</b>"
    judged = {"variants": {odd: {"positives": ["object-0/1.png"]}}}
    given = {
        "version": 1,
        "name": odd,
        "gallery": ["object-0/1.png", "object-1/3.png"],
        "queries": [{"picture": "object-0/0.png", **judged}] * 2,
    }
    Path("truth.json").write_text(json.dumps(given))
    status, shown, said = pool5(
        str(folder), "--spec", LOW, "--truth", "truth.json", "--report", "r.html"
    )
    assert status == 0, said
    assert "[/red]" in shown
    written = Path("r.html").read_text()
    assert html.escape(odd) in written
    assert "<b>" not in written


def revisited(tmp_path: Path) -> Path:
    names = [str(n) for n in range(9)]
    lists = {"easy": np.array([1]), "hard": np.array([2]), "junk": np.array([3])}
    judged = [lists | {"bbx": [5.0, 5.0, 60.0, 60.0]}, lists | {"bbx": [0.0, 0.0, 9e3, 9e3]}]
    path = tmp_path / "gnd_rmade5k.pkl"
    path.write_bytes(pickle.dumps({"imlist": names, "qimlist": ["0", "gone"], "gnd": judged}))
    return path


def test_revisited_oxford_from_a_file(pool5: Command, folder: Path, tmp_path: Path) -> None:
    truth = str(revisited(tmp_path))
    status, shown, said = pool5(str(folder), "--spec", HIGH, "--truth", truth, "--json")
    assert status == 0, said
    found = json.loads(shown)
    assert found["set"]["variants"] == ["easy", "medium", "hard"]
    assert found["set"]["queries"] == 1
    assert [failure["code"] for failure in found["failed"]] == ["picture-missing"]


@pytest.mark.parametrize("named", ["0", "0.png", "object-0/0.png"])
def test_a_query_by_another_name_does_not_find_itself(
    extractor: Extractor, folder: Path, tmp_path: Path, named: str
) -> None:
    given = {
        "version": 1,
        "gallery": ["0.png", "object-0/1.png", "object-1/3.png"],
        "queries": [
            {"picture": named, "positives": ["object-0/1.png"]},
            {"picture": named, "positives": ["0.png", "object-0/1.png"]},
            {"picture": "object-2/6.png", "positives": ["object-1/3.png"]},
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(given))
    study = studied(extractor, folder, str(tmp_path / "truth.json"))
    judged = [query.judged["all"] for query in study.truth.queries]
    assert [judgement.junk.tolist() for judgement in judged] == [[0], [], []]
    for tried in study.tried:
        # What is alike within an object is found first, and the query itself does not precede it.
        assert tried.evaluations["all"].values["mAP"][:2].tolist() == [1, 1]


def test_a_query_region_is_cut_out_before_the_network(extractor: Extractor) -> None:
    content = encoded(3, size=(200, 100))
    boxes = [Box(20, 10, 120, 90, pixels=True), Box(0.1, 0.1, 0.6, 0.9), Box(0.7, 0, 0.7, 1), None]
    asked = [Picture(str(n), lambda: content, box) for n, box in enumerate(boxes)]
    described = describe_all(extractor, asked, batch_size=2)
    assert described.kept.tolist() == [True, True, False, True]
    assert described.failed[0].code == "truth-region-outside"
    by_hand = extractor.describe([content], region=(0.1, 0.1, 0.6, 0.9))
    assert isinstance(by_hand, dict)
    for space, rows in described.vectors.items():
        np.testing.assert_allclose(rows[0], by_hand[space][0], atol=1e-5)
        np.testing.assert_allclose(rows[1], by_hand[space][0], atol=1e-5)
        assert not np.allclose(rows[3], rows[0], atol=1e-3)


def test_a_batch_that_fails_costs_only_its_culprit(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [encoded(n) for n in range(6)]
    whole = extractor.forward

    def fails(batch: Any, grids: Any) -> Any:
        if any((prepared.pixels[0] == culprit.pixels[0]).all() for prepared in batch):
            raise RuntimeError("too much")
        return whole(batch, grids)

    culprit = extractor.prepare(picture(4))
    monkeypatch.setattr(extractor, "forward", fails)
    asked = [Picture(str(n), lambda content=content: content) for n, content in enumerate(contents)]
    done: list[tuple[Any, ...]] = []
    described = describe_all(
        extractor, asked, threads=2, batch_size=4, progress=lambda *now: done.append(now)
    )
    assert described.kept.tolist() == [True, True, True, True, False, True]
    assert [failure.name for failure in described.failed] == ["4"]
    assert done[-1][:3] == (6, 6, 1)
    assert done[-1][3].stage in ("decode", "forward")


def test_a_picture_with_nothing_to_describe_is_left_out() -> None:
    flat = io.BytesIO()
    Image.new("RGB", (80, 60), (90, 120, 30)).save(flat, "PNG")
    asked = [Picture("flat", flat.getvalue), Picture("lively", lambda: encoded(1))]
    by_hand = Extractor({"words": "sift/vlad64", "colour": "colour/rgb8"}, device="cpu")
    described = describe_all(by_hand, asked)
    assert described.kept.tolist() == [False, True]
    (failure,) = described.failed
    assert (failure.name, failure.code) == ("flat", "descriptor-zero")
    assert "space 'words'" in failure.detail
    assert all(not rows[0].any() and rows[1].any() for rows in described.vectors.values())


def test_a_picture_is_described_once_however_often_it_is_asked_for(
    extractor: Extractor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    whole = extractor.forward
    monkeypatch.setattr(
        extractor, "forward", lambda batch, grids: sizes.append(len(batch)) or whole(batch, grids)
    )
    study = studied(extractor, folder)
    assert sum(sizes) == 9
    assert len(study.tried) == 2


def test_the_page_needs_nothing_and_escapes_everything(extractor: Extractor, folder: Path) -> None:
    (folder / "object-2" / HOSTILE).write_bytes(encoded(2))
    study = studied(extractor, folder)
    shown = page.render(study, report_of(study), Limits())
    assert "<img src=x" not in shown
    assert html.escape(HOSTILE, quote=False)[:20] in shown
    assert "<script" not in shown
    assert "default-src 'none'" in shown
    sources = re.findall(r'<img src="([^"]*)"', shown)
    assert len(sources) > 40
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    addresses = re.findall(r"""(?:src|href|url|action)\s*[=(]\s*["']?(\w+:?//[^"')]*)""", shown)
    assert addresses == []
    assert shown.count("<polyline") == 4
    assert shown.count("<circle") >= len(study.truth.queries)
    assert "✓ right" in shown
    assert "✗ wrong" in shown


def test_examples_are_the_best_and_the_worst_and_marked(extractor: Extractor, folder: Path) -> None:
    study = studied(extractor, folder)
    tried = study.tried[0]
    ends = page.Examples(study, Limits()).ends(tried, "all")
    values = sorted(tried.evaluations["all"].values["mAP"].tolist(), reverse=True)
    assert [example.value for example in ends.best] == values[:4]
    assert [example.value for example in ends.worst] == values[:-5:-1]
    for example in [*ends.best, *ends.worst]:
        assert example.query.title not in [shown.title for shown in example.neighbours]
        for shown in example.neighbours:
            same = shown.title.split("/")[0] == example.query.title.split("/")[0]
            assert shown.mark == ("right" if same else "wrong")


def test_junk_is_marked_in_examples(extractor: Extractor, folder: Path, tmp_path: Path) -> None:
    study = studied(extractor, folder, str(revisited(tmp_path)))
    ends = page.Examples(study, Limits()).ends(study.tried[0], "hard")
    marks = {shown.title: shown.mark for shown in ends.best[0].neighbours}
    assert (marks["1"], marks["2"], marks["3"]) == ("junk", "right", "junk")
    assert "medium" in page.render(study, report_of(study), Limits())


def test_a_collection_is_measured_by_a_label_of_its_items(
    engine: Engine, client: TestClient, folder: Path
) -> None:
    collection = engine.ensure_default()
    for path in sorted(folder.rglob("[0-9].png")):
        given = {"object": path.parent.name, "path": path.name}
        answer = client.post(
            "/v1/collections/default/items",
            files=[("files", (path.name, path.read_bytes(), "image/png"))],
            data={"metadata": json.dumps(given)},
        )
        assert answer.status_code == 200
    client.post("/v1/collections/default/items", files=[("files", ("x.png", encoded(77)))])
    study = study_collection(collection, "object")
    assert [tried.spec for tried in study.tried] == [s.spec for s in collection.spaces.values()]
    assert (len(study.truth.queries), len(study.truth.gallery)) == (9, 10)
    shown = page.render(study, report_of(study), engine.limits)
    assert "no picture kept" not in shown
    assert "3.png" in shown
    # Exact search by every item finds the same neighbours in the same order.
    space = next(iter(collection.spaces))
    first = study.truth.queries[0].name
    order = [
        n.id for n in collection.search(collection.vectors([first], space)[0], 10, space=space)
    ]
    tried = study.tried[0]
    scores = tried.gallery @ tried.queries[0]
    assert order == [study.truth.gallery[at] for at in np.argsort(-scores, kind="stable")]


def test_names_of_ground_truth_find_their_pictures(tmp_path: Path) -> None:
    for path in ("a/x.jpg", "b/x.jpg", "b/y.png", "y.txt.jpg"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    album = FolderAlbum(tmp_path, 100)
    assert album.labels == [None, "a", "b", "b"]
    assert album.read("a/x.jpg") == b"a/x.jpg"
    assert album.read("y.png") == album.read("y") == b"b/y.png"
    for name, said in (("x.jpg", "several"), ("x", "several"), ("../a/x.jpg", "is not in")):
        with pytest.raises(SourceError, match=said):
            album.read(name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give PICTURES with --spec, or --collection"),
        (["missing"], "missing"),
        (["objects", "--spec", "alexnet/conv9"], "conv9"),
        (["objects", "--truth", "truth.xml"], "truth.xml"),
        (["objects", "--truth", "hostile.pkl"], "posix.system"),
        (["objects", "--truth", "ukbench"], "ukbench00000.jpg"),
        (["objects", "--truth", "nowhere.json"], "nowhere.json: No such file"),
        (["objects", "--report", "no/where.html"], "No such folder"),
        (["objects", "--weights", "vgg19=untrained"], "vgg19=untrained"),
        (["--collection", "default", "--label", "taste"], "'taste'"),
        (["--collection", "none"], "'none'"),
        (["--advise", "objects", "--learn-weights"], "nor --expansion"),
        (["objects", "--spec", LOW, "--learn-weights"], "two spaces or more"),
        (
            ["objects", "--spec", LOW, "--spec", HIGH, "--learn-weights", "--truth", "judged.json"],
            "has none",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_status_2(
    pool5: Command, engine: Engine, folder: Path, arguments: list[str], said: str
) -> None:
    engine.ensure_default()
    judged = {"version": 1, "gallery": ["0.png"], "queries": [{"picture": "1.png"}]}
    Path("judged.json").write_text(json.dumps(judged))
    Path("hostile.pkl").write_bytes(b"cposix\nsystem\n(S'touch created'\ntR.")
    status, _, errors = pool5(*arguments)
    assert status == 2
    last = errors.strip().splitlines()[-1]
    assert last.startswith("pool5: ")
    assert said in last
    assert not Path("created").exists()


@pytest.mark.slow
def test_a_set_of_real_pictures_has_its_baseline(shared_images: Path, shared_weights: Path) -> None:
    spec = "squeezenet1_1/features.12/spoc"
    found = Extractor(
        {spec: spec},
        weights="squeezenet1_1.pth",
        folder=WeightsFolder(shared_weights),
        device="cpu",
    )
    evaluation = studied(found, shared_images / "packages").tried[0].evaluations["all"]
    assert evaluation.mean("mAP-steps") == pytest.approx(0.573, abs=0.002)
    assert evaluation.mean("mP@5") == pytest.approx(
        0.581, abs=0.004
    )  # as near, a level of a pixel decides
