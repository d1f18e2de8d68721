# SPDX-License-Identifier: Apache-2.0
"""
Schemas of Kubernetes' objects, closed: a field that they do not name is an error, as a typo must be. (The API server
drops such a field of a custom resource without a word.) The core schema comes closed; CRDs are closed here.
"""

import copy
import glob
import json
import os

import jsonschema
import yaml

from pods import kind_of

# Coscheduling's PodGroup, of which a few lines are used.
POD_GROUP = {
    "type": "object",
    "properties": {
        "apiVersion": {"const": "scheduling.x-k8s.io/v1alpha1"},
        "kind": {"const": "PodGroup"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "properties": {
                "minMember": {"type": "integer", "minimum": 1},
                "scheduleTimeoutSeconds": {"type": "integer", "minimum": 1},
                "minResources": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
    },
    "required": ["apiVersion", "kind", "metadata", "spec"],
}


# Volcano's Job, whose schema is not at hand: what is used of it, by its documentation.
VOLCANO_JOB = {
    "type": "object",
    "properties": {
        "apiVersion": {"const": "batch.volcano.sh/v1alpha1"},
        "kind": {"const": "Job"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "properties": {
                "schedulerName": {"type": "string"},
                "queue": {"type": "string"},
                "minAvailable": {"type": "integer", "minimum": 1},
                "plugins": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
                "maxRetry": {"type": "integer"},
                "ttlSecondsAfterFinished": {"type": "integer"},
                "policies": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"event": {"type": "string"}, "exitCode": {"type": "integer"}, "action": {"type": "string"}}},
                },
                "tasks": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}, "replicas": {"type": "integer"}, "template": {"type": "object"}},
                    },
                },
            },
        },
    },
    "required": ["apiVersion", "kind", "metadata", "spec"],
}


def close(schema, object_meta):
    """An OpenAPI v3 schema of a CRD as a JSON schema without unknown fields."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {k: v for k, v in schema.items() if not k.startswith("x-") and k not in ("description", "format", "default")}
    for combined in ("allOf", "anyOf", "oneOf"):
        # These only restrict what the schema around them names.
        closed.pop(combined, None)
    if "properties" in schema:
        closed["properties"] = {
            name: object_meta if name == "metadata" and "properties" not in part else close(part, object_meta)
            for name, part in schema["properties"].items()
        }
    if isinstance(schema.get("items"), dict):
        closed["items"] = close(schema["items"], object_meta)
    if isinstance(schema.get("additionalProperties"), dict):
        closed["additionalProperties"] = close(schema["additionalProperties"], object_meta)
    elif schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if schema.get("nullable"):
        closed["type"] = [schema["type"], "null"]
    return closed


class Schemas:
    """One for each version of the core, with the CRDs."""

    def __init__(self, folder, core_file):
        with open(core_file, encoding="utf-8") as file:
            core = json.load(file)
        definitions = core["definitions"]
        self.name = os.path.basename(core_file)
        self.validators = {}
        for kind, pointer in core["x-roots"].items():
            self._add(kind, {"$ref": pointer, "definitions": definitions})
        meta = {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
        for path in sorted(glob.glob(os.path.join(folder, "*.yaml"))):
            with open(path, encoding="utf-8") as file:
                crd = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
            for version in crd["versions"]:
                schema = close(version["schema"]["openAPIV3Schema"], meta)
                schema["properties"]["apiVersion"] = {"const": f"{crd['group']}/{version['name']}"}
                schema["properties"]["kind"] = {"const": crd["names"]["kind"]}
                schema["definitions"] = definitions
                self._add(crd["names"]["kind"], schema)
        group = close(POD_GROUP, meta)
        group["properties"]["metadata"] = meta
        group["definitions"] = definitions
        self._add("PodGroup", group)
        volcano = close(VOLCANO_JOB, meta)
        volcano["properties"]["metadata"] = meta
        template = {"$ref": "#/definitions/io.k8s.api.core.v1.PodTemplateSpec"}
        volcano["properties"]["spec"]["properties"]["tasks"]["items"]["properties"]["template"] = template
        volcano["definitions"] = definitions
        self._add("VolcanoJob", volcano)

    def _add(self, kind, schema):
        self.validators[kind] = jsonschema.Draft7Validator(schema)

    def complaints(self, thing):
        """What is wrong with an object, one text each."""
        validator = self.validators.get(kind_of(thing) if "apiVersion" in thing else None)
        if validator is None:
            return [f"no schema for the kind {thing.get('kind')}"]
        return [
            f"{thing['kind']}: /{'/'.join(str(part) for part in error.absolute_path)}: {error.message[:300]}"
            for error in validator.iter_errors(copy.deepcopy(thing))
        ]


def load(folder):
    """All versions of the core in this folder."""
    cores = sorted(glob.glob(os.path.join(folder, "kubernetes-core.*.schema.json")))
    assert cores, f"no core schema in {folder}"
    return [Schemas(folder, core) for core in cores]
