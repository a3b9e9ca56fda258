"""Draw the training curves of run folders: validation figures against person-views.

uv run --with matplotlib python docs/draw_curves.py OUTPUT.png NAME=RUN_FOLDER ...
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

FIGURES = {"mean_oks": "mean OKS", "AP": "AP, own score", "AP_with_score_one": "AP, score 1"}


def main(output: Path, runs: list[tuple[str, Path]]) -> None:
    """Draw one panel per figure and one line per run; runs of one name share a colour."""
    colours = {name: f"C{index}" for index, name in enumerate(dict.fromkeys(n for n, _ in runs))}
    panels = plt.subplots(1, len(FIGURES), figsize=(12, 3.6), layout="constrained")[1]
    for panel, (key, title) in zip(panels, FIGURES.items(), strict=True):
        labelled: set[str] = set()
        for name, folder in runs:
            lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            seen, values, views = [], [], 0
            for line in lines:
                views = line.get("person_views", views)
                if line["event"] == "validation":
                    seen.append(views / 1000)
                    values.append(line[key])
            label = None if name in labelled else name
            labelled.add(name)
            panel.plot(seen, values, color=colours[name], marker=".", label=label)
        panel.set(title=title, xlabel="thousand person-views", ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    plt.gcf().savefig(output, dpi=110)


if __name__ == "__main__":
    pairs = [word.partition("=") for word in sys.argv[2:]]
    main(Path(sys.argv[1]), [(name, Path(folder)) for name, _, folder in pairs])
