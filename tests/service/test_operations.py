"""docs/operations.md says what the code says: every metric, every problem code."""

import ast
from collections.abc import Iterator
from pathlib import Path

from fastapi.testclient import TestClient

from docs import figures, tables
from service.problems import HTTP_CODES, STATUS
from service.remedies import REMEDIES

ROOT = Path(__file__).parents[2]


def _trees() -> list[ast.Module]:
    packages = ("models", "index", "service")
    return [
        ast.parse(file.read_text()) for name in packages for file in (ROOT / name).rglob("*.py")
    ]


def _first_is_a_code(node: ast.AST) -> str | None:
    """The name of a function, or of a class that is made, whose first argument is `code`."""
    if isinstance(node, ast.FunctionDef):
        return node.name if [a.arg for a in node.args.args[:1]] == ["code"] else None
    if isinstance(node, ast.ClassDef):
        made = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
        return node.name if [a.arg for f in made for a in f.args.args[1:2]] == ["code"] else None
    return None


def said_in(trees: list[ast.Module]) -> Iterator[str]:
    """Every code that some line of the source gives to an error; a `*` for what it computes."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    takers = {name for node in nodes if (name := _first_is_a_code(node))}
    for _ in range(3):  # Subclasses of subclasses
        takers |= {
            node.name
            for node in nodes
            if isinstance(node, ast.ClassDef)
            and any(isinstance(base, ast.Name) and base.id in takers for base in node.bases)
        }
    for node in nodes:
        if isinstance(node, ast.Call) and node.args and _name(node.func) in takers:
            yield from _texts(node.args[0])


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _texts(argument: ast.expr) -> Iterator[str]:
    if isinstance(argument, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "*" for part in argument.values]
        yield "".join(map(str, parts))
        return
    passed_on = {id(node.slice) for node in ast.walk(argument) if isinstance(node, ast.Subscript)}
    for node in ast.walk(argument):
        if id(node) in passed_on:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_code_has_a_remedy_and_every_remedy_a_code() -> None:
    said = {code for code in said_in(_trees()) if code != "http-*"} | set(HTTP_CODES.values())
    said.add("duplicate")  # It is no error, only the outcome of a file.
    assert len(said) > 120
    patterns = {code.removeprefix("*") for code in said if "*" in code}
    exact = {code for code in said if "*" not in code}
    assert exact - set(REMEDIES) == set()
    unsaid = {
        code
        for code in set(REMEDIES) - exact
        if not any(code.endswith(pattern) for pattern in patterns)
    }
    assert unsaid == set()
    assert {code for code in STATUS if not code.endswith("-")} <= set(REMEDIES)


def test_a_remedy_is_one_sentence_or_two_that_fit_a_line() -> None:
    assert all(len(text) < 100 and text.endswith(".") for text in REMEDIES.values())


def test_the_scanner_sees_codes_however_they_are_given() -> None:
    source = """
class E(Exception):
    def __init__(self, code, message): ...
class F(E): ...
def refuse(code): ...
F("a-b" if x else "c-d", "text")
errors.E(f"{of}-unknown", "text")
refuse("overloaded")
other("not-a-code")
"""
    assert set(said_in([ast.parse(source)])) == {"a-b", "c-d", "*-unknown", "overloaded"}


def test_the_page_has_the_tables_that_the_code_gives() -> None:
    text = tables.PAGE.read_text()
    assert tables.rendered(text, tables.TABLES) == text, "run: python -m docs.tables"


def test_a_service_explains_its_problems(client: TestClient) -> None:
    said = client.get("/problems/overloaded")
    assert said.text.splitlines() == [
        "overloaded: HTTP status 429", "", REMEDIES["overloaded"],
    ]  # fmt: skip
    assert client.get("/problems/no-such").status_code == 404


def test_the_page_on_speed_has_the_figures_of_the_results() -> None:
    text = figures.PAGE.read_text()
    assert tables.rendered(text, figures.FIGURES) == text, "run: python -m docs.figures"
    for name, drawn in figures.plots().items():
        assert (figures.PLOTS / f"{name}.svg").read_text() == drawn
        assert f"plots/{name}.svg" in text
