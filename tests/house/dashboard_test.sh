#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# k8s/dashboards/kolo.json can be imported, and asks for nothing that no rank shows: each metric of its
# queries is in docs/METRICS.md, with the labels that are used, and is queried as its type wants.
# (integration/metrics compares that page with what ranks show.)
set -euo pipefail

if ! command -v python3 >/dev/null; then
    echo "skipped: needs python3"
    exit 77
fi
exec env PYTHONDONTWRITEBYTECODE=1 python3 - "$SOURCE_DIR" <<'END'
import copy, json, re, sys

sys.path.insert(0, sys.argv[1] + "/tests/integration/metrics")
page = open(sys.argv[1] + "/docs/METRICS.md").read()
rows = re.findall(r"^\| `(kolo_\w+)` \| (\w+) \| [^|]*\| ([^|]*)\|", page, re.M)
types = {name: kind for name, kind, _ in rows}
labels = {name: set(re.findall(r"\w+", names)) | {"rank", "namespace", "pod"}
          for name, _, names in rows}


def family_of(name):
    base = re.sub("_(bucket|sum|count)$", "", name)
    return base if types.get(base) == "histogram" else name


def complaints(dashboard):
    found = []
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    if variables.get("datasource", {}).get("type") != "datasource":
        found.append("no variable for the data source")
    if dashboard["id"] is not None:
        found.append("an id, which an import must not have")
    ids = [p["id"] for p in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        found.append("two panels have one id")
    queries = [(v["name"], v["query"]["query"]) for v in variables.values() if v["type"] == "query"]
    used = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            queries.append((panel["title"], target["expr"]))
            if target["datasource"]["uid"] != "${datasource}":
                found.append(f"{panel['title']}: another data source")
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                names = re.findall(r"kolo_\w+", target["expr"])
                if not any(label in labels.get(family_of(n), ()) for n in names):
                    found.append(f"{panel['title']}: nothing has the label {label}")
    for title, query in queries:
        for name in re.findall(r"\$(\w+)", query):
            if name not in variables and name != "__rate_interval":
                found.append(f"{title}: no variable {name}")
        for name, selector, range_ in re.findall(r"(kolo_\w+)(\{[^}]*\})?(\[[^]]*\])?", query):
            family = family_of(name)
            used.add(family)
            if family not in types:
                found.append(f"{title}: there is no {name}")
                continue
            for label in re.findall(r"(\w+)=~?\"", selector):
                if label not in labels[family]:
                    found.append(f"{title}: {name} has no label {label}")
            if types[family] == "gauge" and range_:
                found.append(f"{title}: the rate of the gauge {name}")
        if query.count("(") != query.count(")") or query.count("{") != query.count("}"):
            found.append(f"{title}: brackets of {query}")
    found += [f"{name} is on no panel" for name in types if name not in used]
    return found


dashboard = json.load(open(sys.argv[1] + "/k8s/dashboards/kolo.json"))
found = complaints(dashboard)
# The rules themselves, each broken once.
for break_it in (lambda d: d.update(id=7),
                 lambda d: d["panels"][0]["targets"][0].update(expr="sum(kolo_nothing_total)"),
                 lambda d: d["panels"][0]["targets"][0].update(expr="rate(kolo_epoch[5m])"),
                 lambda d: d["panels"][0]["targets"][0].update(expr='kolo_epoch{peer="1"}'),
                 lambda d: d["panels"][4]["targets"][0].update(legendFormat="{{status}}"),
                 lambda d: d["panels"][0]["targets"][0].update(expr='kolo_epoch{pod="$pods"}'),
                 lambda d: d["templating"]["list"].pop(0)):
    broken = copy.deepcopy(dashboard)
    break_it(broken)
    if len(complaints(broken)) <= len(found):
        sys.exit("the check itself is wrong: it finds nothing")
print("\n".join(found))
sys.exit(bool(found))
END
