# SPDX-License-Identifier: Apache-2.0
"""Each folder of k8s/ is what `kolo k8s render` prints with its options: one truth, two ways to it."""

import os
import sys

import manifests


def by_name(objects):
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in objects}


def differences(one, other, path=""):
    """Where they differ, as paths."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in sorted(set(one) | set(other), key=str):
            found += differences(one.get(key), other.get(key), f"{path}/{key}")
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for i, (a, b) in enumerate(zip(one, other)) for d in differences(a, b, f"{path}/{i}")]
    return [] if one == other else [f"{path}: {one!r}, rendered {other!r}"]


def main():
    wrong = 0
    for kind in manifests.KINDS:
        for form in manifests.FORMS:
            built = manifests.build(f"{manifests.SOURCE}/k8s/{kind}/{form}")
            rendered = manifests.render_form(kind, form)
            for line in differences(by_name(built), by_name(rendered)):
                print(f"k8s/{kind}/{form}: {line}")
                wrong += 1
        queued = manifests.build_with(kind, "cpu", "kueue", os.getcwd())
        for line in differences(by_name(queued), by_name(manifests.render_form(kind, "cpu", "--queue", "user-queue"))):
            print(f"k8s/{kind}/cpu with kueue: {line}")
            wrong += 1
    # It can fail: forms do differ.
    if not differences(by_name(manifests.render_form("job", "gpu")), by_name(manifests.render_form("job", "cpu"))):
        print("the comparison itself finds nothing")
        wrong += 1
    sys.exit(1 if wrong else 0)


main()
