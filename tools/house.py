"""The rooms of src/motif: how many there are, what they import from one another, and the map that the pages show.

    python tools/house.py [CHECKOUT ...]     # counts, of this checkout or of others side by side

A room is a package or a module at the top level of src/motif. Every import counts, also one inside a function or of
types only. The layers are those of `[tool.importlinter]` in pyproject.toml, to which `make check` holds the imports.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
Graph = Mapping[str, set[str]]
"""What each module or room imports."""


def modules(checkout: Path) -> dict[str, Path]:
    """Every module of src/motif by its dotted name."""
    source = checkout / "src"
    parts = {file: file.relative_to(source).with_suffix("").parts for file in sorted(source.glob("motif/**/*.py"))}
    return {".".join(name[:-1] if name[-1] == "__init__" else name): file for file, name in parts.items()}


def module_imports(checkout: Path) -> dict[str, set[str]]:
    """The modules of motif that each module of motif imports."""
    known = modules(checkout)

    def named(file: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from (name if name in known else str(node.module) for name in names)

    return {name: {one for one in named(file) if one in known} - {name} for name, file in known.items()}


def room(module: str) -> str:
    """The room that a module lies in; the package itself is one, too."""
    return module.split(".")[1] if "." in module else module


def room_imports(imports: Graph) -> dict[str, set[str]]:
    """The rooms that each room imports."""
    rooms: dict[str, set[str]] = {room(module): set() for module in imports}
    for module, others in imports.items():
        rooms[room(module)] |= {room(other) for other in others} - {room(module)}
    return rooms


def circles(graph: Graph) -> list[set[str]]:
    """Groups of more than one that all reach one another (the strongly connected components)."""
    reached = {name: reach(graph, name) for name in graph}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return [set(group) for group in groups if len(group) > 1]


def reach(graph: Graph, start: str) -> set[str]:
    """Everything that `start` imports, directly or not."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for other in graph[waiting.pop()] - reached:
            reached.add(other)
            waiting.append(other)
    return reached


def levels(graph: Graph) -> int:
    """The length of the longest chain of imports, where a circle is one link."""
    group_of = {name: frozenset(group) for group in circles(graph) for name in group}
    below: dict[frozenset[str], set[frozenset[str]]] = {}
    for name, others in graph.items():
        group = group_of.get(name, frozenset([name]))
        below.setdefault(group, set()).update(group_of.get(other, frozenset([other])) for other in others)
    depth: dict[frozenset[str], int] = {}

    def measure(group: frozenset[str]) -> int:
        if group not in depth:
            depth[group] = 1 + max((measure(other) for other in below[group] - {group}), default=0)
        return depth[group]

    return max(map(measure, below))


def function_lengths(file: Path) -> Iterator[int]:
    """The lines of every function of a file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def counts(checkout: Path) -> dict[str, int]:
    """The numbers by which two shapes of the package are compared."""
    imports = module_imports(checkout)
    rooms = room_imports(imports)
    files = modules(checkout).values()
    lengths = [len(file.read_text(encoding="utf-8").splitlines()) for file in files]
    functions = [length for file in files for length in function_lengths(file)]
    return {
        "Python files": len(files),
        "of them at the top level": sum(file.parent == checkout / "src" / "motif" for file in files),
        "rooms": len(rooms) - 1,
        "levels of modules": levels(imports),
        "levels of rooms": levels(rooms),
        "imports between rooms": sum(room(one) != room(other) for one, others in imports.items() for other in others),
        "pairs of rooms joined by an import": sum(map(len, rooms.values())),
        "circles of modules": len(circles(imports)),
        "circles of rooms": len(circles(rooms)),
        "lines": sum(lengths),
        "files over 450 lines": sum(length > 450 for length in lengths),
        "functions": len(functions),
        "functions over 60 lines": sum(length > 60 for length in functions),
    }


def layers() -> list[list[str]]:
    """The layers of the house, highest first, each with its rooms."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [one for one in project["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    return [[one.strip() for one in layer.replace(":", "|").split("|")] for layer in contract["layers"]]


def purpose(name: str) -> str:
    """The first sentence of a room's docstring, without its full stop."""
    module = ast.parse(modules(ROOT)[f"motif.{name}"].read_text(encoding="utf-8"))
    return (ast.get_docstring(module) or "").split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def inside(name: str) -> list[str]:
    """The modules and packages of a room."""
    place = modules(ROOT)[f"motif.{name}"]
    if place.name != "__init__.py":
        return []
    entries = [
        entry for entry in sorted(place.parent.iterdir()) if (entry / "__init__.py").exists() or entry.suffix == ".py"
    ]
    return [f"{entry.name}/" if entry.is_dir() else entry.stem for entry in entries if entry.stem != "__init__"]


def tree() -> str:
    """The rooms and what each is for, for the page of design."""
    names = [name for layer in layers() for name in layer if name != "__main__"]
    shown = {
        name: f"{name}/" if modules(ROOT)[f"motif.{name}"].name == "__init__.py" else f"{name}.py" for name in names
    }
    width = max(map(len, shown.values())) + 2
    return "\n".join(["```text", "src/motif/", *(f"  {shown[name]:{width}}{purpose(name)}" for name in names), "```"])


def layer_table() -> str:
    """The layers with their rooms and what lies in them, for docs/design.md."""
    lines = ["| layer | room | what it is for | modules |", "|---|---|---|---|"]
    for number, layer in enumerate(layers(), 1):
        for name in layer:
            names = ", ".join(f"`{one}`" for one in inside(name))
            lines.append(f"| {number} | `{name}` | {purpose(name)} | {names} |")
    return "\n".join(lines)


def main() -> None:
    """Print the counts of every checkout named, or of this one."""
    checkouts = [Path(one) for one in sys.argv[1:]] or [ROOT]
    columns = [counts(checkout) for checkout in checkouts]
    print("| | " + " | ".join(map(str, checkouts)) + " |", "|---|" + "---:|" * len(columns), sep="\n")
    for key in columns[0]:
        print(f"| {key} | " + " | ".join(f"{column[key]:,}" for column in columns) + " |")


if __name__ == "__main__":
    main()
