# SPDX-License-Identifier: Apache-2.0
"""
check_manifests.py <folder of schemas>: every manifest against closed schemas and the cross-checks; then every mistake of mutations.py,
each of which must be found.
"""

import copy
import os
import sys

import crosschecks
import manifests
import mutations
import needs
import pods
import schemas


def all_manifests():
    """(where it comes from, its objects)."""
    for kind, form in manifests.forms():
        yield f"render {kind}, {form}", manifests.render_form(kind, form)
    yield "render job, all options", manifests.render(
        "job", "--name", "a", "--workers", "3", "--per-pod", "2", "--gpus", "4", "--rdma", "rdma/ib=2", "--image", "r:5000/kolo:1",
        "--namespace", "n", "--cpu", "500m", "--memory", "64Gi", "--shm", "8Gi", "--queue", "q", "--deadline", "60", "--", "p", "--x")
    yield "render statefulset, a program", manifests.render("statefulset", "--name", "a", "--workers", "3", "--", "p")
    yield "render mpijob, a Secret", manifests.render("mpijob", "--name", "a", "--workers", "3", "--token-secret", "kolo-token", "p")
    yield "render mpijob, the launcher as a worker", manifests.render("mpijob", "--name", "a", "--workers", "3", "--per-pod", "4", "--rdma", "rdma/ib",
                                                                      "--run-launcher-as-worker", "--", "p")
    yield "render mpijob, all of elastic", manifests.render("mpijob", "--name", "a", "--workers", "3", "--per-pod", "4", "--gpus", "4", "--rdma", "rdma/ib",
                                                            "--min", "2", "--max", "16", "--host-network", "--", "p")
    for kind in manifests.KINDS:
        yield f"render {kind}, many ranks", manifests.render(kind, "--name", "a", "--workers", "2", "--per-pod", "1024", "--", "p")
    for kind in manifests.KINDS:
        if kind != "mpijob-ssh":
            yield f"render {kind}, host-network", manifests.render(kind, "--name", "a", "--workers", "3", "--per-pod", "40", "--host-network", "--", "p")
    yield "render statefulset, agents, host-network", manifests.render("statefulset", "--name", "a", "--workers", "3", "--host-network")
    if not manifests.can_build():
        return  # overlays_test says so
    for kind, form in manifests.forms():
        yield f"k8s/{kind}/{form}", manifests.build(f"{manifests.SOURCE}/k8s/{kind}/{form}")
    for kind in manifests.KINDS:
        yield f"k8s/{kind}/cpu by another name", manifests.build_renamed(kind, os.getcwd())
    yield "render statefulset, a program, by another name", manifests.build_rendered(
        os.getcwd(), "statefulset", "--name", "a", "--workers", "3", "--", "p")
    for component, kinds in manifests.COMPONENTS.items():
        for kind in kinds:
            yield f"k8s/{kind}/cpu with {component}", manifests.build_with(kind, "cpu", component, os.getcwd())


def complaints(objects, versions, known):
    found = []
    for version in versions:
        for thing in objects:
            found += [f"{version.name}: {text}" for text in version.complaints(thing)]
    try:
        theirs = pods.of_manifest(objects)
        if not theirs:
            found.append("no pods")
        for check in [*crosschecks.CHECKS, *needs.CHECKS]:
            found += [f"{check.__name__}: {text}" for text in check(objects, theirs, known)]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        # What the cross-checks stumble over the schemas must have found.
        if not found:
            found.append(f"the checks stumbled: {error!r}")
    return found


def main():
    versions = schemas.load(sys.argv[1])
    known = crosschecks.Known(manifests.documented_variables(), manifests.exit_codes())
    wrong, made, kept = 0, {}, []
    for name, objects in all_manifests():
        found = complaints(objects, versions, known)
        for text in found:
            print(f"{name}: {text}")
        wrong += len(found)
        kept.append((name, objects))

    # One version is enough to find mistakes by. They are made in the bases, and those which need a component in it.
    bases = [(where, objects) for where, objects in kept if where.endswith(", cpu")]
    others = [(where, objects) for where, objects in kept if " with " in where or where.endswith((", rdma", ", host-network", ", elastic"))]
    for name, places, value, word in mutations.MUTATIONS:
        for where, objects in bases + others:
            if name.startswith("elastic") and not crosschecks.is_elastic(objects):
                continue
            broken = copy.deepcopy(objects)
            if (where, objects) in others and name in made:
                break
            if not mutations.apply(broken, places, value):
                continue
            made[name] = made.get(name, 0) + 1
            found = complaints(broken, versions[-1:], known)
            if not any(word in text for text in found) and not excused(name, broken):
                print(f"{where}: the mistake '{name}' was not found; said was {found[:3]}")
                wrong += 1
        if name not in made and manifests.can_build():
            print(f"the mistake '{name}' could be made nowhere")
            wrong += 1
    print(f"{len(kept)} manifests, {sum(made.values())} mistakes")
    sys.exit(1 if wrong else 0)


def excused(name, objects):
    """Slots of an MPIJob stand in its own command only if that is mpirun."""
    return name == "slots" and not any("mpirun" in str(thing) for thing in objects)


main()
