"""Ground truth from files of every form, honest and hostile."""

import io
import json
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import CollectionError
from index.evaluation import GroundTruth
from index.evaluation.readers import matlab, pickled, read_truth
from index.evaluation.readers.naming import holidays, ukbench

IMAGES = [f"all_souls_{n:06}" for n in range(8)]
QUERIES = ["all_souls_000013", "radcliffe_camera_000031"]
LISTS: list[dict[str, Any]] = [
    {"bbx": [136.5, 34.1, 648.5, 955.7], "easy": [0, 3], "hard": [5], "junk": [1, 2]},
    {"bbx": [10.0, 20.0, 30.0, 40.0], "easy": [], "hard": [7, 6], "junk": []},
]


def arrays(first: int = 0, dtype: str = "int64") -> list[dict[str, Any]]:
    """The lists of each query as arrays, counted from `first`."""
    return [
        {key: np.array(value, float if key == "bbx" else dtype) + (key != "bbx") * first
         for key, value in lists.items()}
        for lists in LISTS
    ]  # fmt: skip


def check(truth: GroundTruth) -> None:
    """What `LISTS` say, by hand."""
    assert list(truth.gallery) == IMAGES
    assert [query.name for query in truth.queries] == QUERIES
    first, second = truth.queries
    assert first.region is not None
    assert first.region.pixels
    assert first.region.shares(1000, 1000) == pytest.approx((0.1365, 0.0341, 0.6485, 0.9557))
    said = {
        variant: (sorted(judged.positives.tolist()), sorted(judged.junk.tolist()))
        for variant, judged in first.judged.items()
    }
    assert said == {
        "easy": ([0, 3], [1, 2, 5]),
        "medium": ([0, 3, 5], [1, 2]),
        "hard": ([5], [0, 1, 2, 3]),
    }
    assert second.judged["easy"].positives.size == 0
    assert sorted(second.judged["easy"].junk.tolist()) == [6, 7]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("form", ["lists", "int64", "uint16", "fortran"])
def test_pickles_of_every_protocol(tmp_path: Path, protocol: int, form: str) -> None:
    judged = LISTS if form == "lists" else arrays(dtype="int64" if form == "fortran" else form)
    if form == "fortran":
        judged = [
            {k: np.asfortranarray(v.reshape(1, -1)) for k, v in row.items()} for row in judged
        ]
    path = tmp_path / "gnd_roxford5k.pkl"
    path.write_bytes(
        pickle.dumps({"imlist": IMAGES, "qimlist": QUERIES, "gnd": judged}, protocol=protocol)
    )
    check(read_truth(path))


def test_a_pickle_that_python_2_wrote(tmp_path: Path) -> None:
    # Text as SHORT_BINSTRING, arrays as numpy.core.multiarray with their bytes as text.
    def text(of: bytes) -> bytes:
        return b"U" + bytes([len(of)]) + of

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
        b"q\x07(K\x01K\x02\x85cnumpy\ndtype\n("
        + text(b"i8")
        + b"K\x00K\x01tR(K\x03"
        + text(b"<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + text(struct.pack("<2q", 4, -2))
        + b"tb"
    )
    content = b"\x80\x02}" + text(b"easy") + array + b"s."
    assert pickle.loads(content, encoding="latin1")["easy"].tolist() == [4, -2]
    assert pickled.load("old.pkl", content)["easy"].tolist() == [4, -2]


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
        | st.binary(),
        lambda inner: st.lists(inner) | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=20,
    ),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)  # fmt: skip
def test_plain_values_are_what_pickle_reads(value: Any, protocol: int) -> None:
    assert pickled.load("any.pkl", pickle.dumps(value, protocol)) == value


def refusal(read: Callable[[], Any]) -> str:
    """The code of the error, where damage did not happen to leave something readable."""
    try:
        read()
    except CollectionError as refused:
        return refused.code
    return "truth-file-readable"


class Creates:
    """What a hostile file does when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_create_a_file_is_refused(tmp_path: Path, protocol: int) -> None:
    hostile, created = tmp_path / "gnd_hostile.pkl", tmp_path / "created"
    hostile.write_bytes(pickle.dumps({"imlist": [Creates(created)]}, protocol))
    with pytest.raises(CollectionError) as refused:
        read_truth(hostile)
    assert refused.value.code == "truth-file-forbidden"
    assert not created.exists()
    pickle.loads(hostile.read_bytes())  # the file is as hostile as it is meant to be
    assert created.exists()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "truth-file-forbidden"),
        (b"\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "truth-file-forbidden"),
        (b"(S'true'\nios\nsystem\n.", "truth-file-forbidden"),
        (b"\x80\x02cnumpy\nload\n.", "truth-file-forbidden"),
        (b"cnumpy\nndarray\n(I999999999999\ntR.", "truth-file-broken"),
        (b"r\xff\xff\xff\xff.", "truth-file-broken"),
        (b"]\x94" + b"h\x00" * 10, "truth-file-broken"),
        (b"((lp0\n", "truth-file-broken"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.", "truth-file-broken"),
        (b"))\x86s.", "truth-file-broken"),
        (b"", "truth-file-broken"),
    ],
)
def test_hostile_and_broken_pickles_are_refused(content: bytes, code: str) -> None:
    with pytest.raises(CollectionError) as refused:
        pickled.load("hostile.pkl", content)
    assert refused.value.code == code


NESTED = b")" + b"2\x86" * 40
"""((…), (…)) forty deep: its hash would take 2⁴⁰ steps, its text 2⁴⁰ characters."""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"}" + NESTED + b"Ns.", "no item of a dict"),
        (NESTED + b"\x8c\x01a\x93.", "no text"),
        (b"cnumpy\ndtype\n" + NESTED + b"\x85R.", "no name"),
        (b"cnumpy.core.multiarray\n_reconstruct\n" + NESTED + b"NN\x87R.", "no array"),
        (b"c_codecs\nencode\n" + NESTED + b"N\x86R.", "no bytes"),
    ],
)
def test_nested_tuples_take_no_time(content: bytes, said: str) -> None:
    with pytest.raises(CollectionError, match=said):
        pickled.load("laughs.pkl", content)


@pytest.mark.parametrize(
    "shape", [[1] * 33, [2**53 + 1], [2**53 + 1, 0], [2**53] * 100_000], ids=len
)
def test_an_array_of_absurd_shape_is_refused_before_its_sides_are_multiplied(
    shape: list[int],
) -> None:
    side = pickle.dumps(shape[0], 2)[2:-1]
    content = (
        b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\n\x8c\x02i8\x85R"
        b"(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"(" + side + b"q\x01" + b"h\x01" * (len(shape) - 1) + b"t\x8c\x01CtR."
    )
    with pytest.raises(CollectionError, match="has no shape"):
        pickled.load("absurd.pkl", content)


def test_one_list_said_many_times_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = {"easy": list(range(8)), "hard": [], "junk": []}
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickle.dumps({"imlist": IMAGES, "qimlist": ["q"] * 9, "gnd": [lists] * 9}))
    assert len(read_truth(path).queries) == 9
    monkeypatch.setattr("index.evaluation.readers.revisited.MOST_JUDGED", 70)
    with pytest.raises(CollectionError) as refused:
        read_truth(path)
    assert refused.value.code == "truth-file-too-large"


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_pickle_gives_a_coded_error_or_a_value(data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps({"imlist": IMAGES, "gnd": arrays()}, protocol=2))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert refusal(lambda: pickled.load("damaged.pkl", bytes(whole))).startswith("truth-file-")


def mat(compressed: bool = False, **variables: Any) -> bytes:
    """A MAT-file as scipy writes it."""
    io_of = pytest.importorskip("scipy.io")
    buffer = io.BytesIO()
    io_of.savemat(buffer, variables, do_compression=compressed)
    return buffer.getvalue()


def cells(of: list[Any]) -> Any:
    """A MATLAB cell array, 1 × n."""
    made = np.empty((1, len(of)), dtype=object)
    made[0] = of
    return made


def structures(of: list[dict[str, Any]]) -> Any:
    """A MATLAB structure array, 1 × n."""
    made = np.empty((1, len(of)), dtype=[(name, object) for name in of[0]])
    for n, structure in enumerate(of):
        made[0, n] = tuple(structure.values())
    return made


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_files_count_from_one(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "gnd_rparis6k.mat"
    path.write_bytes(
        mat(
            compressed,
            other=np.arange(3) + 1j,
            imlist=cells(IMAGES),
            qimlist=cells(QUERIES),
            gnd=structures(arrays(first=1, dtype="float64")),
        )
    )
    check(read_truth(path))


def test_the_original_oxford_names_its_queries_by_number(tmp_path: Path) -> None:
    judged = [{"bbx": np.array([1.0, 2, 30, 40]), "ok": np.array([1, 3]), "junk": np.array([2])}]
    path = tmp_path / "gnd_oxford5k.mat"
    content = mat(imlist=cells(IMAGES), qidx=np.array([[3]]), gnd=structures(judged))
    path.write_bytes(content)
    (query,) = read_truth(path).queries
    assert (query.name, query.judged["all"].positives.tolist()) == (IMAGES[2], [0, 2])


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_mat_file_gives_a_coded_error_or_a_value(data: st.DataObject) -> None:
    whole = bytearray(mat(imlist=cells(IMAGES[:2]), gnd=structures(arrays(1))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert refusal(lambda: matlab.load("damaged.mat", bytes(whole), ("imlist", "gnd"))).startswith(
        "truth-file-"
    )


def test_what_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zlib.compress(bytes(2_000_000))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    bomb = header + struct.pack("<II", 15, len(packed)) + packed
    monkeypatch.setattr(matlab, "MOST_INFLATED", 1_000_000)
    with pytest.raises(CollectionError) as refused:
        matlab.load("bomb.mat", bomb, ("imlist",))
    assert refused.value.code == "truth-file-too-large"


def element(kind: int, content: bytes) -> bytes:
    """An element of a MAT-file, padded to eight bytes."""
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


@pytest.mark.parametrize(
    ("sides", "names", "said"),
    [
        (2, 5_000_000, "more than 1,000 fields"),
        (2, 1_001, "more than 1,000 fields"),
        (500_000, 4, "500,000 sides"),
    ],
)
def test_a_structure_of_absurd_form_is_refused_before_it_is_listed(
    sides: int, names: int, said: str
) -> None:
    structure = element(
        14,
        element(6, struct.pack("<II", 2, 0))
        + element(5, struct.pack("<i", 1) * sides)
        + element(1, b"gnd")
        + element(5, struct.pack("<i", 1))
        + element(1, b"a" * names),
    )
    packed = zlib.compress(structure)
    content = (
        b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed))
    )
    tracemalloc.start()
    try:
        with pytest.raises(CollectionError, match=said):
            matlab.load("absurd.mat", content + packed, ("gnd",))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(structure) + 2**20


def test_mat_files_of_other_versions_are_refused() -> None:
    with pytest.raises(CollectionError, match="save it with -v7"):
        matlab.load("new.mat", b"MATLAB 7.3 MAT-file".ljust(200), ())
    with pytest.raises(CollectionError, match="no MAT-file"):
        matlab.load("old.mat", bytes(300), ())


def document(tmp_path: Path, given: Any) -> GroundTruth:
    path = tmp_path / "truth.json"
    path.write_text(given if isinstance(given, str) else json.dumps(given))
    return read_truth(path)


def test_our_own_format(tmp_path: Path) -> None:
    truth = document(
        tmp_path,
        {
            "version": 1,
            "name": "shelf",
            "gallery": ["a.jpg", "b.jpg", "c.jpg"],
            "queries": [
                {"picture": "a.jpg", "positives": ["b.jpg"], "region": [0, 0, 0.5, 1]},
                {"picture": "new.jpg", "positives": ["a.jpg"], "junk": ["c.jpg"]},
                {"picture": "b.jpg", "positives": ["a.jpg", "b.jpg"], "box": [0, 0, 99, 50]},
            ],
        },
    )
    judged = [query.judged["all"] for query in truth.queries]
    assert [judgement.positives.tolist() for judgement in judged] == [[1], [0], [0, 1]]
    assert [judgement.junk.tolist() for judgement in judged] == [[0], [2], []]
    regions = [query.region and query.region.shares(100, 100) for query in truth.queries]
    assert regions == [(0, 0, 0.5, 1), None, (0, 0, 0.99, 0.5)]


def test_our_own_format_with_variants_and_with_labels(tmp_path: Path) -> None:
    variants = {"near": {"positives": ["b"]}, "far": {"positives": ["c"], "junk": ["b"]}}
    given = {"version": 1, "gallery": ["b", "c"], "measures": ["mAP", "mP@3"]}
    truth = document(tmp_path, {**given, "queries": [{"picture": "a", "variants": variants}]})
    assert truth.variants == ("near", "far")
    assert list(truth.measures) == ["mAP", "mP@3"]
    labels = {"a.jpg": "cat", "b.jpg": None, "c.jpg": "cat"}
    truth = document(tmp_path, {"version": 1, "labels": labels})
    assert [query.name for query in truth.queries] == ["a.jpg", "c.jpg"]
    assert len(truth.gallery) == 3


QUERY = {"picture": "a", "positives": ["a"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        (r'{"version": 1, "labels": {"\ud800": "a"}}', "no JSON"),
        ([], "no object"),
        ({"version": 2}, "is 2, and 1 is read here"),
        ({"version": 1, "gallery": ["a"], "queries": [{"picture": "a", "positives": ["z"]}]}, "z"),
        ({"version": 1, "gallery": ["a"], "queries": []}, "0 queries"),
        ({"version": 1, "gallery": ["a", "a"], "queries": [QUERY]}, "twice"),
        ({"version": 1, "gallery": ["a"], "queries": [QUERY | {"box": [1, 2, 3]}]}, "box"),
        ({"version": 1, "gallery": ["a"], "queries": [QUERY | {"psitives": []}]}, "psitives"),
        ({"version": 1, "gallery": ["a"], "queries": [QUERY], "measures": ["F1"]}, "F1"),
        ({"version": 1, "labels": {"a": 3}}, "labels"),
    ],
)
def test_what_is_wrong_with_a_document_is_said(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(CollectionError, match=said):
        document(tmp_path, given)


@pytest.mark.parametrize(
    "changed",
    [
        {"imlist": 5},
        {"qimlist": QUERIES[:1]},
        {"gnd": [{}, {}]},
        {"gnd": [LISTS[0], LISTS[1] | {"easy": [99]}]},
        {"gnd": [LISTS[0], LISTS[1] | {"easy": ["a"]}]},
        {"gnd": [LISTS[0], LISTS[1] | {"easy": [0.5]}]},
        {"gnd": [LISTS[0], LISTS[1] | {"easy": [10**400]}]},
        {"gnd": [LISTS[0], LISTS[1] | {"easy": [float("nan")]}]},
        {"gnd": [LISTS[0], LISTS[1] | {"bbx": [1, 2]}]},
    ],
)
def test_a_pickle_that_is_no_ground_truth_is_refused(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickle.dumps({"imlist": IMAGES, "qimlist": QUERIES, "gnd": LISTS} | changed))
    with pytest.raises(CollectionError) as refused:
        read_truth(path)
    assert refused.value.code in ("truth-file-broken", "truth-index-outside")


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CollectionError, match=r"\.json, \.pkl, \.mat"):
        read_truth(tmp_path / "truth.xml")
    monkeypatch.setattr("index.evaluation.readers.MOST_BYTES", 10)
    with pytest.raises(CollectionError, match="more than 10 bytes"):
        document(tmp_path, {"version": 1, "labels": {}})


def test_ukbench_finds_itself_and_holidays_does_not() -> None:
    kentucky = ukbench([f"full/ukbench{n:05}.jpg" for n in range(12)])
    assert len(kentucky.queries) == 12
    assert kentucky.queries[9].judged["all"].positives.tolist() == [8, 9, 10, 11]
    assert kentucky.queries[9].judged["all"].junk.size == 0
    inria = holidays(["100000.jpg", "flickr.jpg", "100001.jpg", "100002.jpg", "149900.jpg"])
    first, last = inria.queries
    assert first.judged["all"].positives.tolist() == [2, 3]
    assert first.judged["all"].junk.tolist() == [0]
    assert last.judged["all"].positives.size == 0
    with pytest.raises(CollectionError, match="ukbench00000"):
        ukbench(["a.jpg"])
