"""The rules of the house that no linter knows: floors, homes of libraries, sizes, purity, catalogues.

Each test lists every place that breaks its rule, and the rule is told where it fails.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from attrs import field, fields, frozen

from coord.observe.events import CATALOGUE
from coord.observe.metrics import Metrics

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "coord"

FLOORS = (
    {"cli", "testing"},
    {"server"},
    {"node", "client"},
    {"store"},
    {"wal", "mvcc"},
    {"raft"},
    {"protocol", "observe"},
    {"transport"},
    {"types", "errors", "limits", "codec", "config", "disk"},
)
"""A package imports only from rows below its own; the lowest row may import from itself."""

OF_CLIENTS = {"protocol", "transport", "types", "errors", "limits", "codec"}
"""All that the client may load: it runs in other people's programs."""

PURE = {"protocol", "raft", "mvcc"}
IMPURE_MODULES = {
    "asyncio", "datetime", "glob", "io", "multiprocessing", "os", "pathlib", "random", "secrets", "select",
    "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "trio", "uuid",
}  # fmt: skip

HOMES = {
    "cbor2": {"codec"},
    "click": {"cli"},
    "h11": {"transport"},
    "lmdb": {"store"},
    "orjson": {"observe"},
    "pytest": {"testing"},
    "structlog": {"observe"},
    "trio": {"transport", "node", "server", "client", "cli", "testing"},
    "trio_websocket": {"transport"},
    "websockets": {"transport"},
    "wsproto": {"transport"},
}

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
CATALOGUES = ("observe.events", "observe.peer_events")
EVENT_NAME = re.compile(r"[a-z]+\.[a-z_]+\.[a-z_]+")


@frozen
class Module:
    """A source file: `name` without the leading `coord.`, `package` its first part."""

    path: Path
    name: str
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False, eq=False)

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    def at(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def read_modules(directory: Path) -> list[Module]:
    modules = []
    for path in sorted(directory.rglob("*.py")):
        name = ".".join(path.relative_to(directory).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        text = path.read_text(encoding="utf-8")
        modules.append(Module(path, name, text, ast.parse(text)))
    return modules


MODULES = read_modules(SOURCE)


def imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield every import, also those inside functions, as (place, dotted name)."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.at(node)}: a relative import"
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"


def own_imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield imports from coord as (place, package)."""
    for node, name in imports(module):
        top, _, rest = name.partition(".")
        if top == "coord" and rest and not rest.startswith("__"):
            yield node, rest.partition(".")[0]


def row(package: str) -> int:
    return next(number for number, packages in enumerate(FLOORS) if package in packages)


def test_every_package_has_its_floor() -> None:
    known = set().union(*FLOORS)
    assert {module.package for module in MODULES} - {"", "__main__"} <= known


def test_a_package_imports_only_from_rows_below_its_own() -> None:
    lowest = len(FLOORS) - 1
    known = set().union(*FLOORS)
    wrong = [
        f"{module.at(node)}: {module.package} imports {package}"
        for module in MODULES
        if module.package in known
        for node, package in own_imports(module)
        if package in known and package != module.package
        if row(package) <= row(module.package) and row(package) != lowest
    ]
    assert not wrong, "\n".join(wrong)


def test_the_client_and_its_commands_import_nothing_of_the_server() -> None:
    wrong = []
    for module in MODULES:
        allowed = {
            "": OF_CLIENTS | {"client"},
            "client": OF_CLIENTS | {"client"},
            "cli": OF_CLIENTS | {"client", "cli"},
        }.get(module.package)
        if allowed is None or module.name == "cli.serve":
            continue
        for node, package in own_imports(module):
            if package in set().union(*FLOORS) and package not in allowed:
                wrong.append(f"{module.at(node)}: {module.name or 'coord'} imports {package}")
    assert not wrong, "\n".join(wrong)


def loaded_by(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(run.stdout.split())


def test_importing_the_client_loads_nothing_of_the_server() -> None:
    loaded = loaded_by("import coord.client")
    allowed = {f"coord.{package}" for package in OF_CLIENTS | {"client"}}
    ours = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("coord.")}
    assert ours <= allowed
    assert not loaded & {"lmdb", "structlog", "orjson", "click"}


def test_the_blocking_client_loads_no_trio() -> None:
    assert not loaded_by("import coord.client.blocking") & {"trio", "lmdb", "structlog", "asyncio"}
    assert not loaded_by("import coord; coord.connect_sync") & {"trio", "lmdb", "structlog", "asyncio"}
    # Nor does what is made on top of it, nor the commands that use that.
    recipes = [module.name for module in MODULES if module.name.startswith("client.recipes.blocking_")]
    assert len(recipes) >= 10
    commands = ["cli.lock", "cli.elect", "cli.registry"]
    statement = "; ".join(f"import coord.{name}" for name in [*recipes, *commands])
    assert not loaded_by(statement) & {"trio", "lmdb", "structlog", "asyncio"}


def test_a_script_that_only_puts_and_gets_loads_no_recipes() -> None:
    loaded = loaded_by("import coord; coord.connect_sync().close()")
    assert not [name for name in loaded if name.startswith("coord.client.recipes.")]


def test_only_the_plugin_knows_pytest() -> None:
    """It is no dependency: who uses the simulators in another way, or none, need not have it."""
    assert [module.name for module in MODULES for _, name in imports(module) if name.partition(".")[0] == "pytest"] == [
        "testing.pytest_plugin"
    ]


def test_the_plugin_costs_a_run_of_pytest_nothing_until_a_test_asks_for_a_cluster() -> None:
    loaded = loaded_by("import coord.testing.pytest_plugin")
    assert not loaded & {"trio", "lmdb", "structlog", "coord.client", "coord.node"}


def test_each_library_has_one_home() -> None:
    wrong = [
        f"{module.at(node)}: {library} belongs to {', '.join(sorted(HOMES[library]))}"
        for module in MODULES
        for node, name in imports(module)
        if (library := name.partition(".")[0]) in HOMES and module.package not in HOMES[library]
    ]
    assert not wrong, "\n".join(wrong)


def test_pure_cores_have_no_clock_chance_task_or_file() -> None:
    """S15 and law 1: decisions follow from the input alone, on every member and in every replay."""
    wrong = []
    for module in MODULES:
        if module.package not in PURE:
            continue
        for node, name in imports(module):
            if name.partition(".")[0] in IMPURE_MODULES:
                wrong.append(f"{module.at(node)}: imports {name}")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                wrong.append(f"{module.at(node)}: async")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "print"}:
                wrong.append(f"{module.at(node)}: {node.func.id}()")
    assert not wrong, "\n".join(wrong)


def is_set(node: ast.expr) -> bool:
    made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"set", "frozenset"}
    return made or isinstance(node, ast.Set | ast.SetComp)


def test_pure_cores_do_not_walk_bare_sets() -> None:
    """S15: the order of a set of bytes differs from process to process."""
    wrong = [
        module.at(node.iter)
        for module in MODULES
        if module.package in PURE
        for node in ast.walk(module.tree)
        if isinstance(node, ast.For | ast.comprehension) and is_set(node.iter)
    ]
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_fit() -> None:
    wrong = []
    for module in [*MODULES, *read_modules(ROOT / "bench")]:
        lines = module.text.count("\n")
        if lines > FILE_LINES_MAX:
            wrong.append(f"{module.at(module.tree)}: {lines} lines, {FILE_LINES_MAX} are allowed")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    wrong.append(f"{module.at(node)}: {node.name} has {lines} lines, {FUNCTION_LINES_MAX} are allowed")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    wrong = [str(module.path.relative_to(ROOT)) for module in MODULES if words.search(module.text)]
    assert not wrong, "\n".join(wrong)


def test_no_module_is_dead() -> None:
    used = {"", "cli.main", "cli.__main__", "__main__"}
    for module in MODULES:
        for _, name in imports(module):
            if name.startswith("coord."):
                inner = name.removeprefix("coord.")
                used |= {inner, inner.rpartition(".")[0]}
        # Commands and the public face of the package are loaded when they are first asked for, by name.
        used |= {
            node.value.removeprefix("coord.").partition(":")[0]
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("coord.")
        }
    dead = [
        module.name
        for module in MODULES
        if module.name not in used and module.package != "testing" and module.path.name != "__init__.py"
    ]
    assert not dead, dead


def strings(module: Module) -> Iterator[tuple[ast.Constant, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node, node.value


def outside(*names: str) -> list[Module]:
    return [module for module in MODULES if module.name not in names and module.package != "testing"]


def test_every_event_that_is_logged_is_in_the_catalogue() -> None:
    areas = {name.partition(".")[0] for name in CATALOGUE}
    wrong = [
        f"{module.at(node)}: {text}"
        for module in outside(*CATALOGUES)
        for node, text in strings(module)
        if EVENT_NAME.fullmatch(text) and text.partition(".")[0] in areas and text not in CATALOGUE
    ]
    assert not wrong, "\n".join(wrong)


def test_every_event_is_logged_with_the_fields_of_the_catalogue() -> None:
    wrong = []
    for module in outside(*CATALOGUES):
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            spec = CATALOGUE.get(str(node.args[0].value))
            given = {keyword.arg for keyword in node.keywords}
            if spec is None or None in given:
                continue
            if odd := (given - {"term", "role"}) ^ spec.fields.keys():
                wrong.append(f"{module.at(node)}: {spec.name}: missing or unknown: {', '.join(sorted(map(str, odd)))}")
    assert not wrong, "\n".join(wrong)


def test_every_event_of_the_catalogue_is_logged_somewhere() -> None:
    logged = {text for module in outside(*CATALOGUES, "cli.dev_words") for _, text in strings(module)}
    assert not sorted(CATALOGUE.keys() - logged)


def test_every_metric_is_counted_somewhere() -> None:
    counted: set[str] = set()
    for module in outside("observe.metrics"):
        counted |= {node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    exported = {attribute.name for attribute in fields(Metrics) if attribute.metadata}
    assert not sorted(exported - counted)
