"""Time reading the mean of several teachers of a store beside reading one of them, in turns.

    python -m docs.measure_averaging STORE NAME,NAME,...

Prints the processor time of a view, in batches of 64 random views, medians over 25 batches.
"""

import sys

import numpy as np

from pipeline.benchmarks.figures import seconds_in_turns
from pipeline.teacher_store.averaging import open_teachers
from store_schemas.teacher_store import Status

NUM_BATCHES, BATCH_SIZE = 25, 64


def main(store: str, names: list[str]) -> None:
    groups = [names[:count] for count in range(1, len(names) + 1)]
    readers = {", ".join(group): open_teachers(store, group) for group in groups}
    places = np.argwhere(readers[", ".join(names)].status == Status.OK)
    random = np.random.default_rng(0)
    batches = [random.choice(places, BATCH_SIZE).T for _ in range(NUM_BATCHES)]
    ways = {
        group: lambda batch, reader=reader: reader.read(*batches[batch])
        for group, reader in readers.items()
    }
    seconds = seconds_in_turns(ways, range(NUM_BATCHES), num_rounds=1)
    for group, spent in seconds.items():
        each, ratio = np.median(spent) / BATCH_SIZE * 1e6, np.median(spent / seconds[names[0]])
        print(f"{group}: {each:.0f} us a view, {ratio:.1f} times one teacher's")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","))
