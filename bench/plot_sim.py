#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plot_sim.py: draw what `kolo sim --csv` predicts.

    kolo sim --ranks 8:16384 --bytes 64M --csv | plot_sim.py PICTURE.png

A line for each algorithm: time over ranks, or over bytes where only those differ; a panel for each
of the other. Rings mark what kolo would choose. Needs matplotlib (Debian: python3-matplotlib).
"""
import csv
import sys

# Okabe and Ito's colours, told apart with every kind of colour blindness; markers for print.
STYLES = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"),
          ("#E69F00", "P"), ("#000000", "X")]


def draw(rows, picture):
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot_sim.py needs matplotlib: apt-get install python3-matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    along = "ranks" if len({row["ranks"] for row in rows}) > 1 else "bytes"
    across = "bytes" if along == "ranks" else "ranks"
    panels = sorted({int(row[across]) for row in rows})
    styles = dict(zip(sorted({row["algorithm"] for row in rows}), STYLES))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(1 + 5 * len(panels), 5), sharey=True, squeeze=False)
    for panel, ax in zip(panels, axes[0]):
        for algorithm, (colour, marker) in styles.items():
            line = sorted((int(row[along]), float(row["time_us"]), row["chosen"] == "1") for row in rows
                          if row["algorithm"] == algorithm and int(row[across]) == panel)
            if not line:
                continue
            ax.plot([x for x, _, _ in line], [y for _, y, _ in line], color=colour, marker=marker, markersize=4, label=algorithm)
            chosen = [(x, y) for x, y, is_chosen in line if is_chosen]
            ax.plot([x for x, _ in chosen], [y for _, y in chosen], "o", markersize=11, markerfacecolor="none", color=colour)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlabel(along)
        ax.set_title(f"{panel} {across}")
        ax.grid(True, which="major", linewidth=0.4, color="#cccccc")
    axes[0][0].set_ylabel("predicted time, µs")
    axes[0][0].legend(frameon=False, loc="best", fontsize=8)
    figure.suptitle(f"allreduce, {rows[0]['dtype']}, {rows[0]['topology']}, {rows[-1]['per_host']} ranks a host; circled: kolo's choice")
    figure.tight_layout()
    figure.savefig(picture, dpi=120)


def main(arguments):
    if len(arguments) != 2:
        sys.exit("usage: kolo sim ... --csv | plot_sim.py PICTURE.png")
    rows = list(csv.DictReader(sys.stdin))
    if not rows:
        sys.exit("plot_sim.py: stdin has no predictions; give it what `kolo sim --csv` prints")
    draw(rows, arguments[1])


if __name__ == "__main__":
    main(sys.argv)
