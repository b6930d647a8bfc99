"""Opening LMDB, and what its errors mean here."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

from coord.errors import ConfigError, DamageError, DiskError, DiskFullError, NodeError
from coord.limits import GIB, MIB
from coord.store.layout import DATABASES, REMEDY

MAP_BYTES: Final = 64 * GIB
MAP_BYTES_MIN: Final = 256 * MIB

_FULL: Final = (lmdb.MapFullError, lmdb.DiskError)
"""lmdb's `DiskError` is ENOSPC alone."""
_DAMAGED: Final = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
)


def translate(operation: str, error: lmdb.Error) -> NodeError:
    """Return coord's error for one of LMDB's."""
    if isinstance(error, _FULL):
        return DiskFullError(f"store {operation}: {error}; free space on its file system, or compact and delete")
    if isinstance(error, _DAMAGED):
        return DamageError(f"store {operation}: {error}; {REMEDY}")
    return DiskError(f"store {operation}: {error}")


@contextmanager
def translated(operation: str) -> Iterator[None]:
    """Raise coord's errors for LMDB's; too slow for a single read."""
    try:
        yield
    except lmdb.Error as error:
        raise translate(operation, error) from error


def map_bytes_allowed(wanted: int = MAP_BYTES) -> int:
    """Return how large a map may be: what is wanted, or a quarter of the address space where that is limited.

    Raises `ConfigError` if what is left could not hold a store.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or limit // 4 >= wanted:
        return wanted
    allowed: int = limit // 4 // MIB * MIB
    if allowed < MAP_BYTES_MIN:
        raise ConfigError(
            f"the address space is limited to {limit // MIB} MiB, and the store maps a quarter of it: raise "
            f"the limit (LimitAS= of the systemd unit, ulimit -v) to {4 * MAP_BYTES_MIN // MIB} MiB or more"
        )
    return allowed


def open_env(path: Path, map_bytes: int, *, subdir: bool = True, sync: bool = True) -> Any:
    """Open an environment, made if need be: a directory, or one file without `subdir`."""
    return lmdb.open(
        str(path),
        map_size=map_bytes,
        max_dbs=len(DATABASES),
        mode=0o600,
        subdir=subdir,
        sync=sync,
        metasync=False,
        writemap=False,
    )


def open_databases(env: Any, *, create: bool = True) -> dict[str, Any]:
    """Open every database by name."""
    return {name: env.open_db(name.encode(), create=create) for name in DATABASES}


def append(txn: Any, database: Any, name: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Append in key order. LMDB stops without an error at a key that is not above the last one."""
    _, added = txn.cursor(database).putmulti(zip(keys, values, strict=True), append=True)
    if added != len(keys):
        raise DamageError(f"store database {name}: a key above {keys[added].hex()} is there already; {REMEDY}")
