"""Draw what `distil benchmark codec --sweep` wrote: bytes of a view against speed.

uv run --with matplotlib python docs/draw_codec.py OUTPUT.png NAME=codec.json ...
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

SPEEDS = {
    "encode": "quantise and pack, views per second of one core",
    "decode": "unpack, views per second of one core",
}
LIMIT = 6000
"""Most bytes of a view that the default profile may take."""


def main(output: Path, studies: list[tuple[str, Path]]) -> None:
    """Draw one row per study, encoding on the left and decoding on the right.

    The points are the packings of the default profile's values, and the profiles except float16,
    which is ten times as large.
    """
    figure, panels = plt.subplots(
        len(studies), 2, figsize=(11, 4.2 * len(studies)), layout="constrained", squeeze=False
    )
    for row, (name, path) in zip(panels, studies, strict=True):
        candidates = json.loads(path.read_text())["candidates"]
        for panel, (speed, label) in zip(row, SPEEDS.items(), strict=True):
            draw(panel, candidates, speed)
            panel.set(title=f"{name}: {speed}", xlabel="bytes of a view, everything", ylabel=label)
    panels[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(output, dpi=110)


def draw(panel: Any, candidates: list[dict[str, Any]], speed: str) -> None:
    """Draw one panel; packings of a family share a colour, profiles a star and their name."""
    default = next(c for c in candidates if c["name"] == "default")["candidate"]["quantisation"]
    families: dict[str, list[tuple[float, float]]] = {}
    for found in candidates:
        how = found["candidate"]
        if how["quantisation"] == default:
            families.setdefault(family(how["packing"]), []).append(place(found, speed))
    panel.set_prop_cycle(color=plt.get_cmap("tab20")(range(20)))  # ten colours were too few
    for label, places in families.items():
        panel.plot(*zip(*sorted(places), strict=True), ".", markersize=8, label=label)
    for found in candidates:
        how = found["candidate"]
        if how["profile"] and how["quantisation"]["dtype"] == "uint8":
            panel.plot(*place(found, speed), "k*", markersize=11)
            # beside one another on the right-hand side, where they decode alike
            offset, side = ((-5, 6), "right") if how["profile"] == "fast" else ((5, 6), "left")
            panel.annotate(
                how["profile"], place(found, speed), offset, textcoords="offset points", ha=side
            )
    panel.axvline(LIMIT, color="grey", linestyle=":", linewidth=1)
    panel.set_yscale("log")
    panel.margins(y=0.12)  # room for the names
    panel.grid(alpha=0.3)


def place(found: dict[str, Any], speed: str) -> tuple[float, float]:
    """Return bytes and views per second."""
    if speed == "decode":
        return found["bytes_per_view"], found["unpacked_per_second"]
    seconds = 1 / found["quantised_per_second"] + 1 / found["packed_per_second"]
    return found["bytes_per_view"], 1 / seconds


def family(packing: dict[str, Any]) -> str:
    """Return the name of a packing's family."""
    if packing["order"] != [0, 1, 2]:
        return "transpose, blosc zstd"
    if packing["codec"] != "blosc":
        return str(packing["codec"])
    words = [f"blosc {packing['compressor']}"]
    words += [] if packing["shuffle"] == "noshuffle" else ["shuffled"]
    words += ["own block size"] if packing["block_bytes"] else []
    return ", ".join(words)


if __name__ == "__main__":
    pairs = [word.partition("=") for word in sys.argv[2:]]
    main(Path(sys.argv[1]), [(name, Path(path)) for name, _, path in pairs])
