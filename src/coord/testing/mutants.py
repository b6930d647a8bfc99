"""Plant a bug, and see whether the simulators find it: `python -m coord.testing.mutants [NAME …]`.

A harness that finds nothing proves nothing, unless it finds what is known to be there. A mutant replaces a piece of
coord's own source, which must be there exactly once, so that a mutant cannot rot unseen; it runs in a process of its
own. A list of mutants is a module with `MUTANTS` and `hunt(seed)`, which runs one seed and returns what it came to;
if its mutants name a setting, `hunt(seed, setting)`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from attrs import define, frozen

LISTS: Final = ("coord.testing.raft_mutants", "coord.testing.node_mutants", "coord.testing.client_mutants")
"""The lists that are run by default."""


@frozen
class Patch:
    """In `module`, `old` becomes `new`."""

    module: str
    old: str
    new: str


@frozen
class Mutant:
    """A planted bug: its name, the rule it breaks, what it changes, and how many seeds may be needed to find it."""

    name: str
    rule: str
    patches: tuple[Patch, ...]
    seeds_max: int = 1000
    first_seed: int = 0
    finds: str = ""
    """What the text of the failure contains; empty if anything will do."""
    setting: str = ""
    """Where it is found soon, by a name that the list's `hunt` knows; empty for wherever that takes it."""


@frozen
class Hunted:
    """What one seed came to: `failure` is empty if nothing was found."""

    steps: int
    failure: str


@frozen
class Finding:
    """What became of a mutant; `failure` is empty if it survived."""

    seeds: int
    steps: int
    seconds: float
    failure: str


class _Loader(SourceFileLoader):
    patches: tuple[Patch, ...] = ()

    def get_code(self, fullname: str) -> CodeType | None:
        return compile(patched_source(Path(self.path), self.patches), self.path, "exec")


@define
class _Finder(MetaPathFinder):
    patches: dict[str, tuple[Patch, ...]]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.patches:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None, fullname
        assert spec.origin is not None, fullname
        loader = _Loader(fullname, spec.origin)
        loader.patches = self.patches[fullname]
        spec.loader = loader
        return spec


def patched_source(path: Path, patches: Sequence[Patch]) -> str:
    """Return a file's text with patches; raises `LookupError` unless each is to be found exactly once."""
    text = path.read_text(encoding="utf-8")
    for patch in patches:
        if (count := text.count(patch.old)) != 1:
            raise LookupError(f"{path.name} has this {count} times: {patch.old!r}")
        text = text.replace(patch.old, patch.new)
    return text


def check(mutant: Mutant) -> None:
    """Raise `LookupError` if a mutant's text is not in the source any more, `SyntaxError` if its own is no Python."""
    root = Path(__file__).parent.parent.parent
    for module in {patch.module for patch in mutant.patches}:
        path = root.joinpath(*module.split(".")).with_suffix(".py")
        compile(patched_source(path, [patch for patch in mutant.patches if patch.module == module]), str(path), "exec")


def read_lists(names: Sequence[str]) -> Iterator[tuple[str, Mutant]]:
    """Yield every mutant with the name of its list."""
    for name in names:
        for mutant in importlib.import_module(name).MUTANTS:
            yield name, mutant


def plant(mutant: Mutant) -> None:
    """Plant the bug in this process; nothing that it changes may be imported yet."""
    loaded = {patch.module for patch in mutant.patches} & sys.modules.keys()
    assert not loaded, loaded
    patches = {
        patch.module: tuple(other for other in mutant.patches if other.module == patch.module)
        for patch in mutant.patches
    }
    sys.meta_path.insert(0, _Finder(patches))


def find(list_name: str, name: str) -> Mutant:
    """Return a mutant by its name, also one that is too rare to be hunted with seeds."""
    module = importlib.import_module(list_name)
    mutants: tuple[Mutant, ...] = (*module.MUTANTS, *getattr(module, "TOO_RARE", ()))
    return next(mutant for mutant in mutants if mutant.name == name)


def run_here(list_name: str, mutant: Mutant) -> Finding:
    """Plant the bug in this process and hunt it, seed by seed."""
    plant(mutant)
    hunt: Callable[..., Hunted] = importlib.import_module(list_name).hunt
    setting = (mutant.setting,) if mutant.setting else ()
    started = time.perf_counter()
    steps = 0
    for count in range(mutant.seeds_max):
        hunted = hunt(mutant.first_seed + count, *setting)
        steps += hunted.steps
        if hunted.failure and mutant.finds in hunted.failure:
            return Finding(count + 1, steps, time.perf_counter() - started, hunted.failure)
    return Finding(mutant.seeds_max, steps, time.perf_counter() - started, "")


def run_apart(list_name: str, mutant: Mutant, timeout_s: float = 600.0) -> Finding:
    """Hunt the bug in a process of its own."""
    command = [sys.executable, "-m", "coord.testing.mutants", "--one", f"{list_name}:{mutant.name}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{mutant.name}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Finding(**found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Hunt all mutants, or those that are named; 1 if one survives."""
    parser = argparse.ArgumentParser(prog="python -m coord.testing.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants; all if none is given")
    parser.add_argument("--list", action="append", dest="lists", help="a module with MUTANTS and hunt")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        list_name, _, name = options.one.partition(":")
        finding = run_here(list_name, find(list_name, name))
        print(json.dumps({name: getattr(finding, name) for name in ("seeds", "steps", "seconds", "failure")}))
        return 0
    survivors = 0
    for list_name, mutant in read_lists(options.lists or LISTS):
        if options.names and mutant.name not in options.names:
            continue
        finding = run_apart(list_name, mutant)
        survivors += not finding.failure
        told = finding.failure.splitlines()[0][:100] if finding.failure else "SURVIVES"
        print(
            f"{mutant.name:<42} {mutant.rule:<7} {finding.seeds:>5} seeds {finding.steps:>9} steps "
            f"{finding.seconds:>6.1f} s  {told}",
            flush=True,
        )
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
