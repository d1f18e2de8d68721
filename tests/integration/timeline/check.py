#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check.py: a strict reader of timelines.

    check.py FILE RANKS [--only RANK] [--slack-us N] [--late RANK] [--expect LANE,LANE,...]

Proves that FILE is what docs/TIMELINE.md says: every field of every event, by the Trace Event
Format; every rank there, its events in order; events of one lane never overlapping; steps inside
collectives; every collective of a rank there on the others, at the same time; every message sent
received. --only: the file of one rank. --slack-us: how far clocks may be apart. --late: this rank does
not begin at 0. --expect: lanes that have to be there.
"""
import argparse
import bisect
import collections
import json
import re
from decimal import Decimal

COLLECTIVES = "allreduce|reduce_scatter|allgather|broadcast|reduce|alltoall|barrier"
ALGORITHMS = (
    "recursive_doubling|halving_doubling|double_binary_tree|ring|pairwise|tree|two_level|two_level_shm|"
    "shm_one_shot|shm_direct"
)
ANY = "(?s).*"
# By lane: the phase, what events are called, what their arguments are.
LANES = {
    "training step": ("X", r"step \d+", {"number"}),
    "caller": ("X", r"kolo_[a-z_]+( \(.*\))?", {"communicator"}),
    "gradients": ("i", ANY, {"tensor", "bytes"}),
    "queue": ("X", r"bucket \d+", {"bucket", "bytes"}),
    "pack": ("X", r"pack \d+", {"bucket", "bytes"}),
    "unpack": ("X", r"unpack \d+", {"bucket", "bytes"}),
    "collectives": ("X", f"({COLLECTIVES})( ({ALGORITHMS}))?", {"number", "communicator", "bytes"}),
    "messages": ("X", "kolo_(send|recv)", {"peer", "communicator", "bytes"}),
    "steps": ("X", "copy|reduce|send|receive|receive and reduce|wait for all", {"peer", "communicator", "bytes"}),
}
NEEDED = {"collectives": {"number", "communicator"}, "messages": {"peer", "communicator"}, "steps": {"communicator"}}
FIELDS = {
    "X": {"ph", "pid", "tid", "ts", "dur", "cat", "name", "args"},
    "i": {"ph", "s", "pid", "tid", "ts", "cat", "name", "args"},
    "M": {"ph", "pid", "tid", "name", "args"},
}
# All ranks leave these only when all have come.
MEETINGS = ("allreduce", "barrier", "alltoall", "allgather")


def check(condition, *what):
    if not condition:
        raise SystemExit("not a timeline: " + " ".join(str(word) for word in what))


def is_count(value):
    return type(value) is int and value >= 0


def is_time(value):
    return isinstance(value, Decimal) and value >= 0 and -value.as_tuple().exponent == 3


def refuse_duplicates(pairs):
    check(len(dict(pairs)) == len(pairs), "a key twice:", pairs)
    return dict(pairs)


def refuse_constant(text):
    check(False, text)


def check_fields(event, ranks):
    check(event.get("ph") in FIELDS and set(event) == FIELDS[event["ph"]], "fields of", event)
    check(event["pid"] in ranks and is_count(event["pid"]) and is_count(event["tid"]), "process or thread of", event)
    check(isinstance(event["name"], str) and isinstance(event["args"], dict), "name or arguments of", event)
    if event["ph"] == "M":
        return
    check(is_time(event["ts"]) and is_time(event.get("dur", Decimal("0.000"))), "times of", event)
    check(event["cat"] in LANES, "lane of", event)
    phase, names, arguments = LANES[event["cat"]]
    check(event["ph"] == phase and event.get("s", "t") == "t", "phase of", event)
    check(re.fullmatch(names, event["name"]), "name of", event)
    check(NEEDED.get(event["cat"], set()) <= set(event["args"]) <= arguments, "arguments of", event)
    check(all(is_count(value) for value in event["args"].values()), "arguments of", event)


def check_metadata(events, ranks):
    """Who is who; returns the lane of each thread."""
    processes, lanes, places = {}, {}, {}
    for event in events:
        where = event["pid"], event["tid"]
        if event["name"] == "process_name":
            check(event["pid"] not in processes, "a process twice:", event)
            dropped = event["args"].get("dropped")
            check(is_count(dropped) and set(event["args"]) == {"name", "dropped"}, "arguments of", event)
            text = f", {dropped} later events dropped" if dropped else ""
            check(re.fullmatch(rf"rank {event['pid']} \(host [^)]+\){text}", event["args"]["name"]), "name of", event)
            processes[event["pid"]] = dropped
        elif event["name"] == "thread_name":
            check(where not in lanes and event["args"]["name"] in LANES, "thread", event)
            lanes[where] = event["args"]["name"]
        else:
            check(event["name"] in ("process_sort_index", "thread_sort_index"), "metadata", event)
            check(is_count(event["args"]["sort_index"]), "metadata", event)
            places[where] = event["args"]["sort_index"]
    check(set(processes) == set(ranks), "ranks in the file:", sorted(processes), "expected:", sorted(ranks))
    check(set(lanes) <= set(places), "threads without a place")
    return lanes


def end(event):
    return event["ts"] + event.get("dur", 0)


def check_lanes(events, lanes):
    """In order, and not overlapping."""
    last_begin, last_end = collections.defaultdict(Decimal), collections.defaultdict(Decimal)
    used = set()
    for event in events:
        where = event["pid"], event["tid"]
        check(lanes.get(where) == event["cat"], "thread of", event)
        check(event["ts"] >= last_begin[event["pid"]], "out of order:", event)
        check(event["ts"] >= last_end[where], "overlaps the one before in its lane:", event)
        last_begin[event["pid"]], last_end[where] = event["ts"], end(event)
        used.add(where)
    check(used == set(lanes), "lanes without events:", set(lanes) - used)


def check_steps(events):
    """Each step belongs to a collective of its rank and communicator, which runs one at a time."""
    collectives = collections.defaultdict(list)
    for event in events:
        if event["cat"] == "collectives":
            collectives[event["pid"], event["args"]["communicator"]].append(event)
    begins = {where: [c["ts"] for c in all_] for where, all_ in collectives.items()}
    for event in events:
        if event["cat"] != "steps":
            continue
        where = event["pid"], event["args"]["communicator"]
        after = bisect.bisect_right(begins.get(where, []), event["ts"])
        inside = after > 0 and end(event) <= end(collectives[where][after - 1])
        check(inside, "a step outside of any collective:", event)


def check_partners(events, ranks, slack):
    """A collective is on all ranks of its communicator, under the same number, and at a time that all share."""
    groups = collections.defaultdict(dict)
    members = collections.defaultdict(set)
    for event in events:
        if event["cat"] == "collectives":
            comm, number = event["args"]["communicator"], event["args"]["number"]
            members[comm].add(event["pid"])
            check(event["pid"] not in groups[comm, number], "a collective twice:", event)
            groups[comm, number][event["pid"]] = event
    check(members[1] == set(ranks), "the world's collectives are only on", members[1])
    for (comm, number), parts in groups.items():
        # Halves of a split may have the same id: then the other half has collectives of the same kind.
        check(set(parts) == members[comm], f"collective {number} of communicator {comm} is only on", sorted(parts))
        check(len({(p["name"], p["args"].get("bytes")) for p in parts.values()}) == 1, "differ:", parts)
        meets = comm == 1 and parts[next(iter(parts))]["name"].split()[0] in MEETINGS
        latest, earliest = max(p["ts"] for p in parts.values()), min(end(p) for p in parts.values())
        check(not meets or latest <= earliest + slack, "not at the same time:", parts)


def check_messages(events):
    flows = collections.Counter()
    for event in events:
        if event["cat"] == "messages":
            sends = event["name"] == "kolo_send"
            pair = (event["pid"], event["args"]["peer"]) if sends else (event["args"]["peer"], event["pid"])
            flows[pair, event["args"]["communicator"], event["args"].get("bytes")] += 1 if sends else -1
    check(not any(flows.values()), "sent, but not received, or the other way:", +flows, -flows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("ranks", type=int)
    parser.add_argument("--only", type=int)
    parser.add_argument("--slack-us", type=Decimal, default=Decimal(0))
    parser.add_argument("--late", type=int)
    parser.add_argument("--expect", default="")
    options = parser.parse_args()
    ranks = range(options.ranks) if options.only is None else [options.only]
    with open(options.file, encoding="utf-8") as file:
        trace = json.load(
            file, parse_float=Decimal, parse_constant=refuse_constant, object_pairs_hook=refuse_duplicates
        )
    check(set(trace) == {"displayTimeUnit", "otherData", "traceEvents"}, "keys:", list(trace))
    check(trace["displayTimeUnit"] == "ns", trace["displayTimeUnit"])
    check(re.fullmatch(r"kolo \d+\.\d+\.\d+", trace["otherData"]["version"]), trace["otherData"])
    for event in trace["traceEvents"]:
        check_fields(event, ranks)
    lanes = check_metadata([e for e in trace["traceEvents"] if e["ph"] == "M"], ranks)
    events = [e for e in trace["traceEvents"] if e["ph"] != "M"]
    check_lanes(events, lanes)
    check_steps(events)
    if options.only is None:
        check(min(e["ts"] for e in events) == 0, "does not begin at 0")
        check_partners(events, ranks, options.slack_us)
        check_messages(events)
    check(all(e["ts"] > 0 for e in events if e["pid"] == options.late), options.late, "begins at 0")
    for lane in filter(None, options.expect.split(",")):
        there = {event["pid"] for event in events if event["cat"] == lane}
        check(there == set(ranks), f"'{lane}' is only on", sorted(there))
    print(f"{options.file}: {len(events)} events of {len(ranks)} ranks")


main()
