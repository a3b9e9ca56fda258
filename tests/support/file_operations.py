"""What a store's files go through: every operation seen, and what a power cut may leave of them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.storage import files


@dataclass(frozen=True)
class Operation:
    """One change of the disk, or one promise that it made."""

    kind: str
    """create, write, sync, link, replace, unlink, mkdir, rmdir or sync-folder."""
    path: Path
    target: Path | None = None
    """Of a link or a replace."""
    data: bytes = b""
    offset: int | None = None
    """Of a write; None: at the end."""


Watcher = Callable[[Operation], None]


def _look_away(_: Operation) -> None:
    pass


class WatchedOs:
    """Stands for the module ``os`` where a store's files are changed."""

    def __init__(
        self, before: Watcher = _look_away, after: Watcher = _look_away, *, syncs: bool = True
    ) -> None:
        """Watch.

        before: sees each operation first, and may end the process or raise.
        after: sees each operation that happened.
        """
        self._before, self._after = before, after
        self._syncs = syncs
        self._paths: dict[int, Path] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @contextmanager
    def _watched(self, operation: Operation) -> Iterator[None]:
        self._before(operation)
        yield
        self._after(operation)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            with self._watched(Operation("create", Path(path))):
                descriptor = os.open(path, flags, mode)
        else:
            descriptor = os.open(path, flags, mode)
        self._paths[descriptor] = Path(path)
        return descriptor

    def write(self, file: int, data: bytes) -> int:
        with self._watched(Operation("write", self._paths[file], data=bytes(data))):
            return os.write(file, data)

    def pwrite(self, file: int, data: bytes, offset: int) -> int:
        with self._watched(Operation("write", self._paths[file], data=data, offset=offset)):
            return os.pwrite(file, data, offset)

    def fsync(self, file: int) -> None:
        path = self._paths[file]
        with self._watched(Operation("sync-folder" if path.is_dir() else "sync", path)):
            if self._syncs:
                os.fsync(file)

    def link(self, source: Path, target: Path) -> None:
        with self._watched(Operation("link", source, target)):
            os.link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        with self._watched(Operation("replace", source, target)):
            os.replace(source, target)

    def unlink(self, path: Path) -> None:
        with self._watched(Operation("unlink", path)):
            os.unlink(path)

    def mkdir(self, path: Path) -> None:
        with self._watched(Operation("mkdir", path)):
            os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        with self._watched(Operation("rmdir", path)):
            os.rmdir(path)


def watch(
    patch: pytest.MonkeyPatch,
    before: Watcher = _look_away,
    after: Watcher = _look_away,
    *,
    syncs: bool = True,
) -> None:
    """Let every operation on a store's files be seen; the store then waits for no disk if told."""
    patch.setattr(files, "os", WatchedOs(before, after, syncs=syncs))


@dataclass
class _File:
    data: bytes = b""
    durable: bytes = b""


@dataclass
class _Folder:
    now: dict[str, "_Node"] = field(default_factory=dict)
    durable: dict[str, "_Node"] = field(default_factory=dict)
    pending: list[dict[str, "_Node | None"]] = field(default_factory=list)
    """Names that changed since the folder was last synced; what changed at once, together."""

    def change(self, names: dict[str, "_Node | None"]) -> None:
        self.pending.append(names)
        _apply(self.now, names)

    def sync(self) -> None:
        for names in self.pending:
            _apply(self.durable, names)
        self.pending.clear()


_Node = _File | _Folder


def _apply(entries: dict[str, _Node], names: dict[str, _Node | None]) -> None:
    for name, node in names.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


Left = dict[str, bytes | None]
"""Files by their name below the root; None for a folder."""


class Disk:
    """What is promised to survive a power cut, and what else there is.

    Data of a file counts from its sync, a name from the sync of its folder; before that a cut may
    leave any of them or none.
    """

    def __init__(self, root: Path) -> None:
        """root: A folder that is empty and durable."""
        self._root_path = root
        self._root = _Folder()

    def apply(self, operation: Operation) -> None:
        """Follow an operation that happened; one that failed must not be given."""
        path, target = operation.path, operation.target
        match operation.kind:
            case "create":
                self._folder(path.parent).change({path.name: _File()})
            case "write":
                file = self._file(path)
                start = len(file.data) if operation.offset is None else operation.offset
                behind = file.data[start + len(operation.data) :]
                file.data = file.data[:start] + operation.data + behind
            case "sync":
                file = self._file(path)
                file.durable = file.data
            case "link":
                assert target is not None
                self._folder(target.parent).change({target.name: self._file(path)})
            case "replace":
                assert target is not None
                changes: dict[str, _Node | None] = {target.name: self._file(path), path.name: None}
                self._folder(path.parent).change(changes)
            case "unlink" | "rmdir":
                self._folder(path.parent).change({path.name: None})
            case "mkdir":
                self._folder(path.parent).change({path.name: _Folder()})
            case "sync-folder":
                if path.is_relative_to(self._root_path):
                    self._folder(path).sync()

    def cut(self, names: str, data: str, seed: int = 0) -> Left:
        """Return what a power cut now may leave.

        names: Of what no folder's sync has promised: none, all, or some.
        data: Of what no file's sync has promised: none, half, all, or some.
        """
        random = np.random.default_rng(seed)

        def survives(choice: str) -> bool:
            return choice == "all" or (choice == "some" and bool(random.integers(2)))

        def walk(folder: _Folder, prefix: str) -> Iterator[tuple[str, bytes | None]]:
            entries = dict(folder.durable)
            for change in folder.pending:
                if survives(names):
                    _apply(entries, change)
            for name, node in sorted(entries.items()):
                if isinstance(node, _Folder):
                    yield prefix + name, None
                    yield from walk(node, f"{prefix}{name}/")
                elif node.data == node.durable or survives(data):
                    yield prefix + name, node.data
                else:
                    half = len(node.data) // 2 if data in ("half", "some") else 0
                    yield prefix + name, node.durable or node.data[:half]

        return dict(walk(self._root, ""))

    def _folder(self, path: Path) -> _Folder:
        node: _Node = self._root
        for name in path.relative_to(self._root_path).parts:
            assert isinstance(node, _Folder)
            node = node.now[name]
        assert isinstance(node, _Folder)
        return node

    def _file(self, path: Path) -> _File:
        node = self._folder(path.parent).now[path.name]
        assert isinstance(node, _File)
        return node


def lay_out(left: Left, root: Path) -> None:
    """Write what a power cut left into an empty folder."""
    for name, data in left.items():
        if data is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(data)
