"""Takes out of a clone of github.com/ocsf/ocsf-schema what the tests of `egret logs --output ocsf` hold its events against:
names, types, requirements, numbers and constraints of the classes that Egret writes, and of all objects that these may have.

usage: git -C CLONE checkout v1.8.0 && python3 extract.py CLONE > schema.json
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(sys.argv[1])
CLASSES = ["network_activity", "http_activity", "dns_activity", "detection_finding", "application_lifecycle"]
PROFILES = {"security_control", "host"}


def read(path):
    return json.loads((ROOT / path).read_text())


DICTIONARY = read("dictionary.json")
CATEGORIES = read("categories.json")["attributes"]
ALL = {}
for kind in ["events", "objects"]:
    for path in (ROOT / kind).rglob("*.json"):
        definition = json.loads(path.read_text())
        ALL[kind, definition.get("name", path.stem)] = definition


def merged(definition, kind):
    """A definition with all that it takes from others; of two, the nearer counts."""
    attributes, constraints, uid, category = {}, {}, None, None
    if "extends" in definition and ("events", definition["extends"]) != (kind, definition.get("name")):
        attributes, constraints, _, category = merged(ALL[kind, definition["extends"]], kind)
    own = dict(definition.get("attributes", {}))
    for include in own.pop("$include", []):
        profile = read(include)
        if profile.get("meta") == "profile" and profile["name"] not in PROFILES:
            continue
        for name, attribute in profile["attributes"].items():
            attributes[name] = {**attributes.get(name, {}), **attribute}
    for name, attribute in own.items():
        before = attributes.get(name, {})
        enum = {**before.get("enum", {}), **attribute.get("enum", {})}
        attributes[name] = {**before, **attribute, **({"enum": enum} if enum else {})}
    constraints = definition.get("constraints", constraints)
    return attributes, constraints, definition.get("uid"), definition.get("category", category)


def base(name):
    """What a type is made of, in the end."""
    types = DICTIONARY["types"]["attributes"]
    while "type" in types.get(name, {}):
        name = types[name]["type"]
    return name


def described(definition, kind):
    attributes, constraints, uid, category = merged(definition, kind)
    fields = {}
    for name, attribute in sorted(attributes.items()):
        known = {**DICTIONARY["attributes"].get(name, {}), **attribute}
        enum = {**DICTIONARY["attributes"].get(name, {}).get("enum", {}), **attribute.get("enum", {})}
        field = {"type": known["type"], "base": base(known["type"])}
        if known.get("requirement") == "required":
            field["required"] = True
        if known.get("is_array"):
            field["array"] = True
        if enum:
            field["enum"] = sorted(enum)
        if ("objects", known["type"]) in ALL:
            field = {**field, "base": "object", "object": known["type"]}
        del field["type"]
        fields[name] = field
    category = category and CATEGORIES[category]["uid"]
    if kind == "events":
        # Which the published schema fills in for each class.
        fields["category_uid"]["enum"] = [str(category)]
        fields["class_uid"]["enum"] = [str(category * 1000 + uid)]
    return {"uid": uid, "category": category, "constraints": constraints, "attributes": fields}


# Of the objects only those that Egret's events have.
OBJECTS = [
    "metadata", "product", "network_endpoint", "network_connection_info", "network_traffic", "http_request", "url",
    "dns_query", "finding_info", "firewall_rule", "policy", "actor", "object",
]

classes = {name: described(ALL["events", name], "events") for name in CLASSES}
objects = {name: described(ALL["objects", name], "objects") for name in OBJECTS}
print(json.dumps({"version": read("version.json")["version"]})[:-1] + ",")
for last, (kind, things) in enumerate([("classes", classes), ("objects", objects)]):
    print(f'"{kind}": {{')
    print(",\n".join(f"{json.dumps(name)}: {json.dumps(thing, sort_keys=True)}" for name, thing in things.items()))
    print("}}" if last else "},")
