"""A training's steps in two processes beside those of one: the same batches, in turns."""

import os
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.benchmarks import processes
from pipeline.benchmarks.steps import FIVE_TERMS, drawn_batch, learner_of, student_and_info
from pipeline.benchmarks.training_speed import HEATMAP_SIZE_HW
from pipeline.settings import Precision
from pipeline.training.distributed import ALONE, open_processes

NUM_PROCESSES = 2


@dataclass(frozen=True)
class SharedTraining:
    """Two processes of one thread each that share every batch, beside one of one thread."""

    student: str
    batch_size: int
    alone_seconds: float
    """Step of one process by the clock, median."""
    shared_seconds: float
    """The same step by both."""
    speed_up: float
    """Clock of one over clock of both, median over rounds."""
    processor_speed_up: float
    """Processor time of one over the larger one of both: the speed-up of cores that are free."""


def measure_shared_training(student: str, batch_size: int, num_rounds: int) -> SharedTraining:
    """Time steps of all five terms on the CPU, by one process and by two, in turns."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ProcessPoolExecutor(NUM_PROCESSES, mp_context=processes.FRESH) as pool:
        works = [
            pool.submit(_be_one_of_two, rank, port, student, batch_size, num_rounds)
            for rank in range(NUM_PROCESSES)
        ]
        (alone, first), (_, second) = (work.result() for work in works)
    clock, processor = 0, 1
    shared_clock = np.maximum(first[:, clock], second[:, clock])
    shared_processor = np.maximum(first[:, processor], second[:, processor])
    return SharedTraining(
        student,
        batch_size,
        float(np.median(alone[:, clock])),
        float(np.median(shared_clock)),
        float(np.median(alone[:, clock] / shared_clock)),
        float(np.median(alone[:, processor] / shared_processor)),
    )


def _be_one_of_two(
    rank: int, port: int, student: str, batch_size: int, num_rounds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make the steps of one process; return seconds alone and shared.

    Each is (num_rounds, 2), by the clock and of the processor; only the first process works alone,
    while the other waits.
    """
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": NUM_PROCESSES, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.set_num_threads(1)
    device = torch.device("cpu")
    network, _ = student_and_info(student)
    shape = network.token_shape
    batch = drawn_batch(network, batch_size, shape, HEATMAP_SIZE_HW)
    half = batch_size // NUM_PROCESSES
    own = batch.rows(rank * half, batch_size if rank else half)
    float32: Precision = "float32"
    settings = (student, FIVE_TERMS, batch_size, device, float32, shape)
    seconds = np.zeros((2, num_rounds + 1, 2))
    with open_processes(device) as both:
        alone = learner_of(*settings, processes=ALONE)
        shared = learner_of(*settings, processes=both)
        for step in range(num_rounds + 1):  # the first one warms up
            for way, (learner, rows) in enumerate(((alone, batch), (shared, own))):
                both.wait()
                began = time.perf_counter(), time.process_time()
                if rank == 0 or learner is shared:
                    learner.step(rows, step)
                ended = time.perf_counter(), time.process_time()
                seconds[way, step] = np.subtract(ended, began)
    return seconds[0, 1:], seconds[1, 1:]
