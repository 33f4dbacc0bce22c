#!/usr/bin/env python3
"""Makes icann.txt and private.txt from the Public Suffix List: update.py public_suffix_list.dat

One rule a line in its ASCII form, sorted by octets, comments left out. The rules stay as the list has them: `*.` in
front of a wildcard rule, `!` in front of an exception.
"""
import sys


def ascii_form(rule):
    label = lambda text: text if text.isascii() else "xn--" + text.encode("punycode").decode()
    return ".".join(label(text) for text in rule.lower().split("."))


sections = {"ICANN": [], "PRIVATE": []}
section = None
for line in open(sys.argv[1], encoding="utf-8"):
    line = line.strip()
    if line.startswith("// ===BEGIN"):
        section = "ICANN" if "ICANN" in line else "PRIVATE"
    elif line.startswith("// ===END"):
        section = None
    elif line and not line.startswith("//") and section:
        sections[section].append(ascii_form(line.split()[0]))
for name, rules in sections.items():
    with open(f"{name.lower()}.txt", "w", encoding="ascii") as out:
        out.write("".join(f"{rule}\n" for rule in sorted(set(rules))))
