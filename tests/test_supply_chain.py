"""What is handed out: licences of all that comes along."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.licences import licence_of, run_time_licences

ROOT = Path(__file__).parents[1]


def installed_package(folder: Path, metadata: str, licence: str = "MIT License") -> Distribution:
    """A distribution of this metadata and the text of its licence file."""
    info = folder / "made_up-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: made-up\nVersion: 1.0\n{metadata}\n")
    (info / "LICENSE").write_text(licence)
    (info / "RECORD").write_text("made_up-1.0.dist-info/LICENSE,,\n")
    return PathDistribution(info)


@pytest.mark.parametrize(
    ("metadata", "expression"),
    [
        ("License-Expression: MIT AND (Zlib OR ISC)", None),
        ("License-Expression: Apache-2.0 OR GPL-3.0-only", "Apache-2.0 OR GPL-3.0-only"),
        ("License: Apache 2.0 License", "Apache-2.0"),
        ("License: Copyright 2015 of someone\nClassifier: License :: OSI Approved :: BSD License", "BSD"),
        ("License-Expression: GPL-3.0-only", None),
        ("License-Expression: MIT AND GPL-3.0-only", None),
        ("License: AGPL-3.0", None),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)", None),
        ("License: free for friends", None),
        ("", None),
    ],
)
def test_licence_of_a_package(tmp_path: Path, metadata: str, expression: str | None) -> None:
    licence = licence_of("made-up", installed_package(tmp_path, metadata))
    assert (licence.expression if not licence.problem else None) == expression


@pytest.mark.parametrize("text", ["  GNU GENERAL PUBLIC LICENSE\n  Version 3", "Name: x265\nLicense: GPLv2\n"])
def test_gpl_parts_of_a_permissive_wheel_need_an_explanation(tmp_path: Path, text: str) -> None:
    licence = licence_of("made-up", installed_package(tmp_path, "License-Expression: MIT", text))
    assert "GPL_PARTS does not explain" in licence.problem
    assert not licence._replace(name="scipy").problem


def test_every_package_of_every_extra_has_a_compatible_licence() -> None:
    licences = run_time_licences(ROOT / "pyproject.toml")
    assert len(licences) > 60
    assert [f"{name}: {licence.problem}" for name, (licence, _) in licences.items() if licence.problem] == []


def test_licences_page_lists_what_pyproject_requires() -> None:
    rows = re.findall(r"^\| ([\w.-]+) \| ", (ROOT / "docs" / "licences.md").read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    texts = [
        *project["dependencies"],
        *(text for extra in extras if extra not in ("dev", "docs") for text in extras[extra]),
    ]
    names = {canonicalize_name(Requirement(text).name) for text in texts} - {"ecg-vlm"}
    assert len(names) > 20 and names <= set(rows)
