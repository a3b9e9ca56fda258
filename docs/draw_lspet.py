"""Draw docs/lspet.png: how students learn with and without a teacher store, from lspet_curves.json.

The file holds the validations of the trainings of docs/lspet.md, copied from their metrics.jsonl.
Run as: python docs/draw_lspet.py
"""

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HERE = Path(__file__).parent
STYLES = {
    "all labels + the store": ("#0067a5", "-"),
    "all labels, no teacher": ("#0067a5", ":"),
    "a tenth of the labels + the store": ("#d95f0e", "-"),
    "a tenth of the labels + a JSON file": ("#d95f0e", "--"),
    "a tenth of the labels, no teacher": ("#d95f0e", ":"),
}


def main() -> None:
    """Draw AP and mean OKS against person-views, a line for each training."""
    arms = json.loads((HERE / "lspet_curves.json").read_text())["arms"]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for axes, column, title in zip(panels, (1, 3), ("AP, own score", "mean OKS"), strict=True):
        for name, (colour, style) in STYLES.items():
            if name in arms:
                views = [row[0] / 1000 for row in arms[name]]
                axes.plot(
                    views, [row[column] for row in arms[name]], style, color=colour, label=name
                )
        axes.set_title(title, loc="left", fontsize="medium")
        axes.set_xlabel("person-views, thousands")
        axes.set_ylim(bottom=0 if column == 1 else 0.3)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize="small")
    figure.savefig(HERE / "lspet.png", dpi=110)


if __name__ == "__main__":
    main()
