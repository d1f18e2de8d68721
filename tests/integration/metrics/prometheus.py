# SPDX-License-Identifier: Apache-2.0
"""A strict reader of Prometheus's text format: what promtool would refuse or warn of is an error."""
import re

NAME = r"[a-z][a-z0-9_]*"
SAMPLE = re.compile(rf"({NAME})\{{(.*)\}} (\d+(?:\.\d+)?)")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')


def labels_of(text):
    found, place = {}, 0
    while place < len(text):
        match = LABEL.match(text, place)
        assert match, f"labels: {text!r}"
        name, value, _ = match.groups()
        assert name not in found, f"label {name} twice: {text!r}"
        found[name] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], value)
        place = match.end()
    assert found and not text.endswith(","), f"labels: {text!r}"
    return found


def check_histogram(name, samples):
    series = {}
    for sample, labels, value in samples:
        rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        parts = series.setdefault(rest, {"buckets": []})
        if sample == name + "_bucket":
            parts["buckets"].append((float(labels["le"]), value))
        else:
            assert sample in (name + "_sum", name + "_count"), sample
            parts[sample] = value
    for parts in series.values():
        limits, counts = zip(*parts["buckets"])
        assert list(limits) == sorted(set(limits)) and limits[-1] == float("inf"), limits
        assert list(counts) == sorted(counts), f"{name}: buckets fall: {counts}"
        assert counts[-1] == parts[name + "_count"], f"{name}: +Inf is not the count"
        assert name + "_sum" in parts


def read(text, launcher=False):
    """Families by name: (type, help, [(sample, labels, value)])."""
    assert text.endswith("\n") and "\n\n" not in text
    families, name = {}, None
    lines = iter(text[:-1].split("\n"))
    for line in lines:
        if line.startswith("# HELP "):
            name, help_text = re.fullmatch(rf"# HELP ({NAME}) (\S.*)", line).groups()
            assert name not in families, f"{name} twice"
            kind = re.fullmatch(rf"# TYPE {name} (counter|gauge|histogram)", next(lines))
            assert kind, f"{name} has no type"
            families[name] = (kind[1], help_text, [])
            assert help_text.endswith("."), f"{name}: help: {help_text}"
            assert (kind[1] == "counter") == name.endswith("_total"), f"{name} is a {kind[1]}"
            continue
        match = SAMPLE.fullmatch(line)
        assert match, f"no sample: {line!r}"
        sample, labels, value = match[1], labels_of(match[2]), float(match[3])
        base = re.sub("_(bucket|sum|count)$", "", sample)
        assert name in (sample, base), f"{sample} stands under {name}"
        assert ("rank" in labels) != launcher, line
        families[name][2].append((sample, labels, value))
    seen = set()
    for name, (kind, _, samples) in families.items():
        for sample, labels, _ in samples:
            key = (sample, tuple(sorted(labels.items())))
            assert key not in seen, f"{key} twice"
            seen.add(key)
        if kind == "histogram":
            check_histogram(name, samples)
    return families


def value(families, sample, **labels):
    """The one value whose labels have these."""
    found = [v for _, _, samples in families.values() for s, l, v in samples
             if s == sample and labels.items() <= l.items()]
    assert len(found) == 1, f"{sample}{labels}: {found}"
    return found[0]


def check_grows(before, after):
    """Counters and histograms never fall, and none goes away."""
    for name, (kind, _, samples) in before.items():
        if kind == "gauge":
            continue
        later = {(s, tuple(sorted(l.items()))): v for s, l, v in after[name][2]}
        for sample, labels, v in samples:
            now = later.get((sample, tuple(sorted(labels.items()))))
            assert now is not None and now >= v, f"{sample}{labels}: {v}, then {now}"


def documented(path, launchers=False):
    """Names and types of the tables in docs/METRICS.md: of ranks, or of who starts them."""
    text = open(path).read().split("## Launchers")[launchers]
    rows = re.findall(rf"^\| `({NAME})` \| (counter|gauge|histogram) \|", text, re.M)
    assert len(rows) == len(dict(rows)) > 0
    return dict(rows)
