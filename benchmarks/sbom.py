"""The bill of materials of an install: `python -m benchmarks.sbom FILE` (or `make sbom`, which makes FILE first).

FILE is CycloneDX JSON by `cyclonedx-py environment`, of all that is installed here. What only developers install is
taken out: the core with all its extras remains. Filled in are ecg-vlm's version, which pyproject.toml does not hold,
and licences that the tool does not recognise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from benchmarks.licences import run_time_licences
from ecg_vlm import __version__


def keep_only(bill: dict[str, Any], licences: Mapping[str, str], version: str) -> dict[str, Any]:
    """The bill with the components of these canonical names alone, as that of this version of its subject.

    Args:
        licences: name -> SPDX expression, for components without a licence in the bill.

    Raises:
        ValueError: When one of the names is no component.
    """
    components = [
        {"licenses": [{"expression": licences[name]}]} | item
        for item in bill["components"]
        if (name := canonicalize_name(item["name"])) in licences
    ]
    if missing := licences.keys() - {canonicalize_name(item["name"]) for item in components}:
        raise ValueError(f"not in the bill: {', '.join(sorted(missing))}")
    subject = bill["metadata"]["component"] | {"version": version, "purl": f"pkg:pypi/ecg-vlm@{version}"}
    references = {item["bom-ref"] for item in (*components, subject)}
    dependencies = [
        item | {"dependsOn": [reference for reference in item.get("dependsOn", ()) if reference in references]}
        for item in bill["dependencies"]
        if item["ref"] in references
    ]
    metadata = bill["metadata"] | {"component": subject}
    return bill | {"metadata": metadata, "components": components, "dependencies": dependencies}


def main(path: Path) -> None:
    """Rewrite the file."""
    licences = run_time_licences(Path(__file__).parents[1] / "pyproject.toml")
    expressions = {name: licence.expression for name, (licence, _) in licences.items()}
    bill = keep_only(json.loads(path.read_text(encoding="utf-8")), expressions, __version__)
    path.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{path}: {len(bill['components'])} components of ecg-vlm {__version__}, CycloneDX {bill['specVersion']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
