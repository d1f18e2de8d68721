#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plot.py: draw what compare.sh measured.

    plot.py FILE PICTURE.png

FILE is what `compare.sh -o` wrote (its format: peers/table.awk). Above, the time of an operation;
below, bus bandwidth; a column for each number of ranks. A thick line is a library at its best
setting for each size; thin lines are its single settings; the band is the lowest and highest round
of kolo. Needs matplotlib (Debian: python3-matplotlib).
"""
import statistics
import sys

# Okabe and Ito's colours, told apart with every kind of colour blindness; markers for print.
STYLES = {
    "kolo": ("#0072B2", "o"),
    "openmpi": ("#D55E00", "s"),
    "mpich": ("#009E73", "^"),
    "gloo": ("#CC79A7", "D"),
    "limit": ("#000000", None),
}
NAMES = {"openmpi": "Open MPI", "mpich": "MPICH", "gloo": "Gloo (TCP)", "limit": "limit"}


def read(lines):
    """The settings, and {ranks: {contender: {bytes: [(us, GB/s) of each round]}}}."""
    settings, data = {}, {}
    for line in lines:
        words = line.split()
        if line.startswith("#set "):
            settings[words[1]] = " ".join(words[2:])
        elif len(words) == 6 and not line.startswith("#") and words[2] != "pingpong":
            sizes = data.setdefault(int(words[0]), {}).setdefault(words[2], {})
            sizes.setdefault(int(words[3]), []).append((float(words[4]), float(words[5])))
    return settings, data


def medians(sizes, field):
    return {size: statistics.median(run[field] for run in runs) for size, runs in sorted(sizes.items())}


def best_of(contenders, library, field):
    """For each size the median of that setting of the library which has the lowest time."""
    best = {}
    for contender, sizes in contenders.items():
        if contender.split(":")[0] != library:
            continue
        values = medians(sizes, field)
        for size, us in medians(sizes, 0).items():
            if size not in best or us < best[size][0]:
                best[size] = (us, values[size])
    return {size: value for size, (_, value) in sorted(best.items())}


def size_name(size):
    for unit, name in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if size >= unit:
            return f"{size / unit:g}{name}"
    return str(size)


def time_name(us):
    for unit, name in ((1e6, "s"), (1e3, "ms")):
        if us >= unit:
            return f"{us / unit:g} {name}"
    return f"{us:g} µs"


def draw_panel(axes, contenders, field):
    for contender, sizes in contenders.items():
        if ":" in contender:
            line = medians(sizes, field)
            colour = STYLES[contender.split(":")[0]][0]
            axes.plot(list(line), list(line.values()), color=colour, linewidth=0.6, alpha=0.35)
    runs = contenders.get("kolo", {})
    if runs:
        order = sorted(runs)
        axes.fill_between(order, [min(run[field] for run in runs[size]) for size in order],
                          [max(run[field] for run in runs[size]) for size in order],
                          color=STYLES["kolo"][0], alpha=0.15, linewidth=0)
    for library, (colour, marker) in STYLES.items():
        line = best_of(contenders, library, field)
        if line:
            axes.plot(list(line), list(line.values()), color=colour, marker=marker, markersize=4,
                      linewidth=2.4 if library == "kolo" else 1.5,
                      linestyle="--" if library == "limit" else "-",
                      label=NAMES.get(library, library), zorder=4 if library == "kolo" else 3)


def draw(settings, data, picture):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    count = len(data)
    figure, panels = pyplot.subplots(2, count, figsize=(1.5 + 5.5 * count, 8.5), sharex="col",
                                     sharey="row", squeeze=False)
    for column, (ranks, contenders) in enumerate(sorted(data.items())):
        sizes = sorted({size for values in contenders.values() for size in values})
        for field, axes in enumerate(panels[:, column]):
            draw_panel(axes, contenders, field)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.grid(True, which="major", linewidth=0.4, color="#cccccc")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.xaxis.set_major_locator(FixedLocator(sizes[::2] if len(sizes) > 8 else sizes))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: size_name(size)))
        panels[0][column].set_title(f"{ranks} ranks", fontsize=11)
        panels[1][column].set_xlabel("bytes")
    panels[0][0].yaxis.set_major_formatter(FuncFormatter(lambda us, _: time_name(us)))
    panels[1][0].yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    panels[0][0].set_ylabel("time of an operation (lower is better)")
    # Small messages would stretch it: their bandwidth says nothing that their time does not.
    panels[1][0].set_ylim(bottom=max(panels[1][0].get_ylim()[0], 0.01))
    panels[1][0].set_ylabel("bus bandwidth, GB/s (higher is better)")

    known = {}
    for axes in panels[0]:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            known.setdefault(label, handle)
    figure.legend(known.values(), known.keys(), loc="lower center", ncol=len(known), frameon=False,
                  bbox_to_anchor=(0.5, 0.02))
    figure.text(0.5, 0.005, "thin: a single setting of a library; band: lowest and highest round of kolo",
                ha="center", fontsize=8, color="#555555")
    figure.suptitle(
        f"{settings.get('collective', '?')}, {settings.get('dtype', '?')}, {settings.get('place', '?')}, "
        f"kolo's buffers from {settings.get('alloc', '?')}, inputs {settings.get('rewrite', '?')}\n"
        f"{settings.get('date', '?')[:10]}; {settings.get('machine', '?')}; "
        f"kolo {settings.get('commit', '?')}; medians of {settings.get('rounds', '?')} rounds",
        fontsize=10)
    figure.tight_layout(rect=(0, 0.055, 1, 0.99))
    figure.savefig(picture, dpi=120)


def main(arguments):
    if len(arguments) != 3:
        sys.exit("usage: plot.py FILE PICTURE.png (FILE: what compare.sh -o wrote)")
    with open(arguments[1], encoding="utf-8") as file:
        settings, data = read(file)
    if not data:
        sys.exit(f"plot.py: {arguments[1]} has no measurements")
    draw(settings, data, arguments[2])


if __name__ == "__main__":
    main(sys.argv)
