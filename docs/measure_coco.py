"""Hours of the released COCO recipe: python -m docs.measure_coco [RATE]

The rates of one core are measured here, in processor time. The hours are extrapolated from the
multiply-adds of each network, of which RATE (1e13) a second are taken for a GPU, and from nine
tenths of eight GPUs. A training step counts three forward passes.
"""

import sys
import time
from collections.abc import Callable

import torch

from docs.measure_gpu import FIVE_TERMS, coco_skeleton, learner_of
from pipeline.models.cost import count_multiply_adds
from pipeline.models.pose_networks import build_network

PEOPLE, EPOCHS, VIEWS, BATCH = 149_800, 300, 9, 8
PASSES_OF_A_STEP = 3
EFFICIENCY = 0.9


def core_seconds(run: Callable[[], object]) -> float:
    """Return the processor time of the second call, for one crop."""
    run()
    began = time.process_time()
    run()
    return (time.process_time() - began) / BATCH


def main() -> None:
    """Print rates of a core, and hours of one GPU and of eight, network by network."""
    rate = float(sys.argv[1]) if len(sys.argv) > 1 else 1e13
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    for name in ("tokenpose-s", "tokenpose-hrnet48", "distilpose-s", "distilpose-l"):
        network = build_network(name, coco_skeleton().num_keypoints).eval()
        multiply_adds = sum(count_multiply_adds(network))
        work = {"training": (EPOCHS * PEOPLE, PASSES_OF_A_STEP)}
        if name.startswith("tokenpose"):
            network = network.to(memory_format=torch.channels_last)
            crops = torch.rand(BATCH, 3, *network.input_size_hw)
            crops = crops.contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                seconds = core_seconds(lambda: network(crops))  # noqa: B023
            work["stage one"] = (VIEWS * PEOPLE, 1)
            what, passes = "views/s", 1
        else:
            learner, batch = learner_of(name, FIVE_TERMS, BATCH, "float32", cpu)
            seconds = core_seconds(lambda: learner.step(batch, 0))  # noqa: B023
            what, passes = "crops/s in training", PASSES_OF_A_STEP
        print(
            f"{name}: {1 / seconds:.2f} {what} a core, "
            f"{passes * multiply_adds / seconds / 1e9:.0f} G multiply-adds/s"
        )
        for kind, (count, of_each) in work.items():
            hours = count * of_each * multiply_adds / rate / 3600
            print(
                f"{name}: {kind} extrapolated to {hours:.1f} hours on one GPU, "
                f"{hours / 8 / EFFICIENCY:.1f} on eight"
            )


if __name__ == "__main__":
    main()
