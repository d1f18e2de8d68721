# SPDX-License-Identifier: Apache-2.0
"""Each folder of k8s/ is what `kolo k8s render` prints with its options: one truth, two ways to it."""

import os
import re
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


def check_document():
    """The kustomization.yaml of docs/KUBERNETES.md does what it says; images change in every kind."""
    with open(f"{manifests.SOURCE}/docs/KUBERNETES.md", encoding="utf-8") as file:
        text = re.search(r"```yaml\n(# kustomization.yaml.*?)```", file.read(), re.S).group(1)
    wrong = 0
    for kind in manifests.OTHERS_SCHEDULE:
        own = text if kind == "job" else re.sub(r"patches:.*", "", text, flags=re.S).replace("/job/", f"/{kind}/")
        folder = os.path.join(os.getcwd(), f"documented-{kind}")
        os.makedirs(folder, exist_ok=True)
        root = os.path.relpath(f"{manifests.SOURCE}/k8s", os.path.realpath(folder))
        with open(os.path.join(folder, "kustomization.yaml"), "w", encoding="utf-8") as file:
            file.write(own.replace("kolo/k8s/", f"{root}/"))
        built = str(manifests.build(folder))
        image = "kolo-ssh:" if kind == "mpijob-ssh" else "'image': 'registry/train:7'"
        if image not in built or "user-queue" not in built or (kind == "job" and "'./train'" not in built):
            print(f"docs/KUBERNETES.md: its kustomization.yaml does something else for {kind}")
            wrong += 1
    return wrong


def check_refusals():
    """Components that a kind must not have, or that would do nothing for it, say so, and nothing is built."""
    wrong = 0
    for component, kinds in manifests.COMPONENTS.items():
        for kind in manifests.KINDS:
            if kind in kinds:
                continue
            try:
                manifests.build_with(kind, "cpu", component, os.getcwd())
                said = "nothing"
            except AssertionError as error:
                said = str(error)
            if not re.search(r"testing value /[A-Z].*: leave out this component", said):
                print(f"components/{component} on k8s/{kind}: {said}")
                wrong += 1
    return wrong


def check_of_one_job():
    """What stands beside a job is that job's alone: two jobs of a namespace, whoever named them, share no object and no selector."""
    wrong = 0
    for component in ("podmonitor", "egress-https"):
        seen = {}
        for name, prefix in (("a", ""), ("b-c", ""), ("d", "team-")):
            folder = os.path.join(os.getcwd(), f"{component}-of-{prefix}{name}")
            os.makedirs(folder, exist_ok=True)
            root = os.path.relpath(f"{manifests.SOURCE}/k8s", os.path.realpath(folder))
            with open(os.path.join(folder, "manifest.yaml"), "w", encoding="utf-8") as file:
                file.write(manifests.render_text("job", "--name", name, "--workers", "2", "--", "p"))
            with open(os.path.join(folder, "kustomization.yaml"), "w", encoding="utf-8") as file:
                file.write(f"resources: [manifest.yaml]\ncomponents: [{root}/components/{component}]\nnamePrefix: '{prefix}'\n")
            for thing in manifests.build(folder):
                key = (thing["kind"], thing["metadata"]["name"])
                selector = thing["spec"].get("podSelector", thing["spec"].get("selector", {})) if "spec" in thing else {}
                labels = {**thing["metadata"]["labels"], **selector.get("matchLabels", {})}
                if seen.setdefault(key, name) != name or labels["app.kubernetes.io/instance"] != name:
                    print(f"components/{component}: {key} of job {prefix}{name} is also of {seen[key]}, or means {labels}")
                    wrong += 1
        if not {("NetworkPolicy", f"{prefix}{name}-{component.replace('podmonitor', 'metrics')}")
                for prefix, name in (("", "a"), ("", "b-c"), ("team-", "d"))} <= set(seen):
            print(f"components/{component}: its policies are called something else: {sorted(seen)}")
            wrong += 1
    return wrong


def check_token():
    """Without its file the component builds nothing, and says which is missing; another token is another Secret, which pods follow."""
    wrong, names = 0, set()
    for kind in manifests.COMPONENTS["token"]:
        for token in ("one token of many", "another of them"):
            with open(f"{manifests.with_token(os.getcwd())}/components/token/token", "w", encoding="utf-8") as file:
                file.write(token)
            names |= {thing["metadata"]["name"] for thing in manifests.build_with(kind, "cpu", "token", os.getcwd()) if thing["kind"] == "Secret"}
    if len(names) != 2:
        print(f"components/token: two tokens are in {names}")
        wrong += 1
    os.unlink(f"{manifests.with_token(os.getcwd())}/components/token/token")
    try:
        manifests.build_with("job", "cpu", "token", os.getcwd())
        print("components/token builds without a token")
        wrong += 1
    except AssertionError as error:
        if "components/token/token: no such file" not in str(error):
            print(f"components/token without its file: {error}")
            wrong += 1
    return wrong


def main():
    wrong = 0
    for kind, form in manifests.forms():
        built = manifests.build(f"{manifests.SOURCE}/k8s/{kind}/{form}")
        rendered = manifests.render_form(kind, form)
        for line in differences(by_name(built), by_name(rendered)):
            print(f"k8s/{kind}/{form}: {line}")
            wrong += 1
    for kind in manifests.OTHERS_SCHEDULE:
        queued = manifests.build_with(kind, "cpu", "kueue", os.getcwd())
        for line in differences(by_name(queued), by_name(manifests.render_form(kind, "cpu", "--queue", "user-queue"))):
            print(f"k8s/{kind}/cpu with kueue: {line}")
            wrong += 1
    wrong += check_document() + check_refusals() + check_of_one_job() + check_token()
    # It can fail: forms do differ.
    if not differences(by_name(manifests.render_form("job", "gpu")), by_name(manifests.render_form("job", "cpu"))):
        print("the comparison itself finds nothing")
        wrong += 1
    sys.exit(1 if wrong else 0)


main()
