# SPDX-License-Identifier: Apache-2.0
"""Numbers out of pytest's JUnit files: "PASSED FAILED SKIPPED", then a line per failed and skipped test."""
import sys
import xml.etree.ElementTree as ET

lines, counts = [], {"passed": 0, "failed": 0, "skipped": 0}
for case in (case for name in sys.argv[1:] for case in ET.parse(name).getroot().iter("testcase")):
    kinds = {child.tag: child for child in case}
    name = f"{case.get('classname')}.{case.get('name')}"
    result = "failed" if {"failure", "error"} & kinds.keys() else "skipped" if "skipped" in kinds else "passed"
    counts[result] += 1
    if result == "failed":
        lines.append(f"failed {name}")
    elif result == "skipped":
        lines.append(f"skipped {name}: {kinds['skipped'].get('message')}")
print(counts["passed"], counts["failed"], counts["skipped"])
print("\n".join(lines))
