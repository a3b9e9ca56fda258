"""Whatever happens to the bytes of a store, reading gives the right data or a StoreError.

Mutations follow from their number. Each is tried in a child process that may take a gigabyte of
memory and five seconds for it. An exception of another kind, other data, a crash, a hang and a
message of several lines are findings.
"""

import hashlib
import json
import os
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import google_crc32c
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import read_holder
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.errors import StoreError
from store_schemas.identity import canonical_json
from store_schemas.teacher_store import Status

SEED = 1_905
NUM_QUICK, NUM_THOROUGH = 300, 20_000
SECONDS_PER_MUTATION = 5
BYTES_BEYOND_BASELINE = 2**30
BATCH = 250

VALUES: list[Any] = [0, -1, 2**62, 10**400, 1.5, True, None, "", "zz\n", "\ud800"]
VALUES += [[], {}, [0], [[]], {"a": 1}]

Files = dict[str, bytes]
Indices = tuple[NDArray[np.int64], NDArray[np.int64]]
Mutation = dict[str, bytes | None]
"""New bytes of some files; None: deleted."""


@dataclass(frozen=True)
class Corpus:
    """Two whole and sound stores, and one of the same people with other heatmaps."""

    stores: dict[str, Files]
    earlier: Files
    there: dict[str, Indices]
    """Rows and views of each store that can be read."""
    right: dict[str, str]
    """What ``digest_of`` says of each store."""


def digest_of(store: Path, require_complete: bool, there: Indices) -> str:
    """Return the sha256 of all that a store's reader gives, of every view that is to be there."""
    with closing(TeacherStore.open(store, require_complete=require_complete)) as opened:
        found = opened.read(*there)
        people, plan = opened.people, opened.views
        parts = (found, people, people.ignored)
        arrays = [opened.image_sha256, plan.image_to_crop, plan.is_mirrored]
        arrays += [v for p in parts for v in vars(p).values() if isinstance(v, np.ndarray)]
        facts = [
            opened.identity.to_json(),
            opened.content_sha256,
            people.image_name,
            people.skeleton.edges,
        ]
        digest = hashlib.sha256(canonical_json([*facts, opened.status.tolist()]))
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def flip(data: bytes, random: Random, _: Files) -> bytes:
    changed = bytearray(data)
    for _bit in range(random.choice((1, 1, 2, 8)) if data else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def truncate(data: bytes, random: Random, _: Files) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def lengthen(data: bytes, random: Random, _: Files) -> bytes:
    return data + random.randbytes(random.choice((1, 4, 16, 4096)))


def insert(data: bytes, random: Random, _: Files) -> bytes:
    place = random.randrange(len(data) + 1)
    return data[:place] + random.randbytes(random.randrange(1, 9)) + data[place:]


def overwrite(data: bytes, random: Random, _: Files) -> bytes:
    """Random bytes or zeros over a part."""
    start, stop = sorted(random.randrange(len(data) + 1) for _ in range(2))
    part = random.choice((random.randbytes(stop - start), bytes(stop - start)))
    return data[:start] + part + data[stop:]


def scramble(data: bytes, random: Random, _: Files) -> bytes:
    return random.randbytes(random.choice((len(data), random.randrange(2000))))


def splice(data: bytes, random: Random, files: Files) -> bytes:
    """A part of another file, over or between the bytes of this one."""
    other = files[random.choice(sorted(files))]
    start, stop = sorted(random.randrange(len(other) + 1) for _ in range(2))
    place = random.randrange(len(data) + 1)
    resume = place + random.choice((0, stop - start))
    return data[:place] + other[start:stop] + data[resume:]


def reseal(data: bytes, random: Random, files: Files) -> bytes:
    """Altered, with the checksum at its end made right: of a chunk, or of a shard's index."""
    changed = random.choice((flip, overwrite))(data, random, files)
    places = [len(data), *(16 * views + 4 for views in (2, 6) if 16 * views + 4 <= len(data))]
    covered = changed[-random.choice(places) : -4]
    if random.random() < 0.5 and len(covered) >= 16:  # numbers as an index would hold them
        field = 8 * random.randrange(len(covered) // 8)
        number = random.choice((0, 1, 15, len(data), 2**31, 2**32, 2**63, 2**64 - 1))
        covered = covered[:field] + number.to_bytes(8, "little") + covered[field + 8 :]
    checksum = google_crc32c.value(covered).to_bytes(4, "little")
    return changed[: len(changed) - 4 - len(covered)] + covered + checksum


def edit_json(data: bytes, random: Random, _: Files) -> bytes:
    """Another value at some place of the document, or the place gone."""
    try:
        document = json.loads(data)
    except ValueError:
        return data[::-1]
    node = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return canonical_json(document)
        key = random.choice(keys)
        if not isinstance(node[key], dict | list) or random.random() < 0.1:
            break
        node = node[key]
    if random.random() < 0.1:
        del node[key]
    else:
        node[key] = random.choice(VALUES)
    return canonical_json(document)


ALTERATIONS: tuple[Callable[[bytes, Random, Files], bytes], ...] = (
    *(flip, truncate, lengthen, insert, overwrite, scramble, splice, reseal, reseal, edit_json),
)


def mutate(files: Files, earlier: Files, random: Random) -> Mutation:
    """Alter one file, or exchange two."""
    name, other = pick(files, random), pick(files, random)
    kind = random.random()
    if kind < 0.03:
        return {name: None}
    if kind < 0.12:
        return {name: files[other], other: files[name]}
    if kind < 0.16:
        return {name: files[other]}
    if kind < 0.22:
        return {name: earlier.get(name, b"")}
    return {name: random.choice(ALTERATIONS)(files[name], random, files)}


def pick(files: Files, random: Random) -> str:
    """Every kind of file as often as the others: there are many small ones."""
    kinds = {
        "root": [name for name in files if name in ("zarr.json", "writer.json")],
        "metadata": [name for name in files if name.endswith("/zarr.json")],
        "plan": [name for name in files if name.startswith(("people/", "views/"))],
        "shards": [name for name in files if "/c." in name and "manifest" not in name],
        "manifest": [name for name in files if "/manifest/" in name],
    }
    return random.choice(sorted(random.choice(list(kinds.values()))))


def write(folder: Path, files: Mutation) -> None:
    for name, data in files.items():
        path = folder / name
        if data is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def look(store: Path, right: str, there: Indices) -> str:
    """Return how reading a store came out; anything but right and refused is a finding."""
    outcome = ""
    for require_complete in (False, True):
        try:
            read_holder(LocalFolder(store))
            if digest_of(store, require_complete, there) != right:
                return "other data"
            outcome = "right"
        except StoreError as error:
            outcome = outcome or "refused"
            if "\n" in str(error) or not str(error).isprintable():
                return f"a message that is not one plain line: {error!r}"
        except BaseException:
            return traceback.format_exc()
    return outcome


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + BYTES_BEYOND_BASELINE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def try_batch(corpus: Corpus, folder: Path, numbers: Sequence[int], report: int) -> None:
    """Try mutations one after another, and report a line of JSON for each."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process, wherever it hangs
    limit_memory()
    for name, files in corpus.stores.items():
        write(folder / name, dict(files))
    for number in numbers:
        signal.alarm(SECONDS_PER_MUTATION)
        random = Random(f"{SEED}/{number}")
        name = random.choice(sorted(corpus.stores))
        files, store = corpus.stores[name], folder / name
        mutation = mutate(files, corpus.earlier, random)
        write(store, mutation)
        outcome = look(store, corpus.right[name], corpus.there[name])
        write(store, {path: files[path] for path in mutation})
        signal.alarm(0)
        line = f"{json.dumps(outcome)}\n".encode()
        while line:
            line = line[os.write(report, line) :]


def outcomes_of_child(corpus: Corpus, folder: Path, numbers: Sequence[int]) -> list[str]:
    """Return what a child process found, which may be less than it was asked for."""
    receive, report = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try_batch(corpus, folder, numbers, report)
        finally:
            os._exit(0)
    os.close(report)
    with os.fdopen(receive) as lines:
        outcomes: list[str] = [json.loads(line) for line in lines]
    died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if len(outcomes) < len(numbers):
        outcomes.append(f"the process ended with {died}")
    return outcomes


def fuzz(corpus: Corpus, folder: Path, num_mutations: int) -> None:
    outcomes: list[str] = []
    started = time.monotonic()
    while len(outcomes) < num_mutations:
        done = len(outcomes)
        numbers = range(done, min(done + BATCH, num_mutations))
        outcomes += outcomes_of_child(corpus, folder, numbers)
    counts = Counter(outcomes)
    print(f"{counts['right']} right, {counts['refused']} refused", time.monotonic() - started, "s")
    findings = [(n, o) for n, o in enumerate(outcomes) if o not in ("right", "refused")]
    assert not findings, "\n".join(f"{n}: {o}" for n, o in findings[:10])
    assert counts["refused"] > 0.5 * num_mutations
    assert counts["right"] > 0.01 * num_mutations


@pytest.fixture(scope="module")
def corpus(stores_with_little_heat: dict[str, Path]) -> Corpus:
    paths, there = stores_with_little_heat, {}
    files = {
        name: {
            file.relative_to(path).as_posix(): file.read_bytes()
            for file in path.rglob("*")
            if file.is_file()
        }
        for name, path in paths.items()
    }
    for name in ("whole", "begun"):
        with closing(TeacherStore.open(paths[name], require_complete=False)) as store:
            rows, views = np.nonzero(store.status == Status.OK)
            there[name] = (rows, views)
    right = {name: digest_of(paths[name], name == "whole", there[name]) for name in there}
    return Corpus({name: files[name] for name in right}, files["earlier"], there, right)


def test_any_mutation_of_a_store_is_read_right_or_refused(corpus: Corpus, tmp_path: Path) -> None:
    fuzz(corpus, tmp_path, NUM_QUICK)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_mutations_of_a_store_are_read_right_or_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    fuzz(corpus, tmp_path, NUM_THOROUGH)
