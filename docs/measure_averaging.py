"""Time reading the mean of several teachers of a store beside reading one of them, in turns.

    python -m docs.measure_averaging STORE NAME,NAME,...

Prints the processor time of a view, in batches of 64 random views, medians over 25 batches.
"""

import sys
import time

import numpy as np

from pipeline.teacher_store.averaging import open_teachers
from store_schemas.teacher_store import Status

NUM_BATCHES, BATCH_SIZE = 25, 64


def main(store: str, names: list[str]) -> None:
    groups = [names[:count] for count in range(1, len(names) + 1)]
    readers = [open_teachers(store, group) for group in groups]
    places = np.argwhere(readers[-1].status == Status.OK)
    seconds = np.zeros((NUM_BATCHES, len(readers)))
    random = np.random.default_rng(0)
    for batch in range(NUM_BATCHES):
        instances, views = random.choice(places, BATCH_SIZE).T
        for column, reader in enumerate(readers):
            began = time.process_time()
            reader.read(instances, views)
            seconds[batch, column] = time.process_time() - began
    ratios = np.median(seconds / seconds[:, :1], axis=0)
    for group, of_batch, ratio in zip(groups, np.median(seconds, axis=0), ratios, strict=True):
        each = of_batch / BATCH_SIZE * 1e6
        print(f"{', '.join(group)}: {each:.0f} us a view, {ratio:.1f} times one teacher's")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","))
