"""What is handed out: licences of all that comes along, a wheel that anyone can build again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.licences import licence_of, run_time_licences
from benchmarks.sbom import keep_only
from recipes.config import load_recipe
from recipes.export import Agreement
from recipes.model_card import model_card
from recipes.run_folder import RunFacts, write_run_card

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


@pytest.mark.parametrize(
    ("name", "is_llama"),
    [("llama32-11b-paper", True), ("nano", False), ("quickstart", False), ("qwen3-vl-4b-24gb", False)],
)
def test_cards_of_what_is_tuned_from_llama_carry_its_notice(tmp_path: Path, name: str, is_llama: bool) -> None:
    recipe = load_recipe(name)
    numbers = {"pages": 1, "parameters": 1, "trained_parameters": 1, "seconds": 1.0, "steps": 1, "losses": ()}
    facts = RunFacts(name=name, base=recipe.model.base, base_sha256="", records=(), patients=(), versions={}, **numbers)
    agreement = Agreement(largest=0.0, same_token=1.0, tokens=1)
    write_run_card(recipe, facts, tmp_path)
    notice = (
        "Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright © Meta Platforms, Inc. All Rights "
        "Reserved."
    )
    cards = (
        (tmp_path / "README.md").read_text(encoding="utf-8"),
        model_card(recipe, facts, {"merged": False, "agreement": agreement, "dtype": "bfloat16"}, None),
    )
    for card in cards:
        for part in ("license: llama3.2", "Built with Llama", notice):
            assert (part in card) == is_llama
        assert ("license: apache-2.0" in card) != is_llama
    assert f'"{notice}"' in (ROOT / "NOTICE").read_text(encoding="utf-8")


def test_notice_names_the_tables_that_come_from_others() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:render|recipes|ecg_vlm|docs)/[\w./]+\w", notice):
        assert (ROOT / path).is_file(), path
    tables = ("render/statements.csv", "render/simulator/cooccurrence.csv", "recipes/nano/calibration.json")
    assert all(path in notice for path in (*tables, "render/sources/snomed.csv", "render/sources/mimic_phrases.csv"))


def build_wheel(folder: Path, *, mask: int, seconds: int, zone: str) -> Path:
    """The wheel of a copy of the sources, whose files have this umask's permissions and this time of change."""
    folder.mkdir(parents=True)
    for name in ("pyproject.toml", ".gitignore", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder)
    for package in ("ecg_vlm", "render", "recipes", "eval"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.pyc", "*.nbi", "*.nbc"))
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
        os.utime(path, (seconds, seconds))
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"} | {"TZ": zone}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, umask=mask)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def test_wheel_is_the_same_from_another_folder_at_another_time(tmp_path: Path) -> None:
    one = build_wheel(tmp_path / "one", mask=0o022, seconds=1_500_000_000, zone="UTC")
    other = build_wheel(tmp_path / "a folder" / "of another", mask=0o077, seconds=1_700_000_001, zone="Asia/Tokyo")
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as archive:
        names = archive.namelist()
        assert {item.date_time for item in archive.infolist()} == {(2020, 2, 2, 0, 0, 0)}
    assert {"recipes/nano/model.safetensors", "render/simulator/cooccurrence.csv"} <= set(names)
    assert names == list(dict.fromkeys(names)) and any(name.endswith(".dist-info/licenses/NOTICE") for name in names)


def test_lock_has_the_tested_versions_with_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text, "the lock names a host"
    blocks = re.findall(r"^([\w.-]+)==(\S+)[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)$", text, re.MULTILINE)
    assert len(blocks) == len(re.findall(r"^\w", text, re.MULTILINE)) > 60, "a package has no hash"
    versions: dict[str, str] = {canonicalize_name(name): version for name, version, _ in blocks}
    constraints = re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    pins: dict[str, str] = {canonicalize_name(name): version for name, version in constraints}
    packages = run_time_licences(ROOT / "pyproject.toml").keys()
    assert {name: versions.get(name) for name in packages} == {name: pins.get(name) for name in packages}


def test_bill_of_materials_is_of_what_an_install_brings() -> None:
    mit = [{"license": {"id": "MIT"}}]
    bill = {
        "metadata": {"component": {"bom-ref": "root", "name": "ecg-vlm"}},
        "components": [
            {"bom-ref": "Py_Yaml==1", "name": "Py_Yaml"},
            {"bom-ref": "rich==2", "name": "rich", "licenses": mit},
            {"bom-ref": "pytest==3", "name": "pytest", "licenses": mit},
        ],
        "dependencies": [
            {"ref": "root", "dependsOn": ["Py_Yaml==1", "pytest==3"]},
            {"ref": "Py_Yaml==1", "dependsOn": ["rich==2"]},
            {"ref": "pytest==3", "dependsOn": ["rich==2"]},
            {"ref": "rich==2"},
        ],
    }
    result = keep_only(bill, {"py-yaml": "ISC", "rich": "ISC"}, "1.2")
    assert result["metadata"]["component"]["version"] == "1.2"
    assert [(item["name"], item["licenses"]) for item in result["components"]] == [
        ("Py_Yaml", [{"expression": "ISC"}]),
        ("rich", mit),
    ]
    assert {item["ref"]: item["dependsOn"] for item in result["dependencies"]} == {
        "root": ["Py_Yaml==1"],
        "Py_Yaml==1": ["rich==2"],
        "rich==2": [],
    }
    with pytest.raises(ValueError, match="not in the bill: numpy"):
        keep_only(bill, {"numpy": "MIT", "rich": "MIT"}, "1.2")


def docker_instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, lines that go on put together."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def test_the_image_is_built_of_files_that_are_here_and_runs_as_an_ordinary_user():
    instructions = docker_instructions()
    assert {word for word, _ in instructions} <= {
        "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT",
    }  # fmt: skip
    (image,) = (rest for word, rest in instructions if word == "FROM")
    name, _, tag = image.partition(":")
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert name == "python" and tag == f"{python}-slim"  # a version, never the latest
    sources = [source for word, rest in instructions if word == "COPY" for source in rest.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    lets_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources) == lets_through
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert {*built, "README.md", "LICENSE", "NOTICE", "pyproject.toml", "constraints.txt"} == set(sources)
    last = [word for word, _ in instructions]
    users = [rest for word, rest in instructions if word == "USER"]
    assert users == ["10001"] and f"useradd --uid {users[0]}" in " ".join(rest for _, rest in instructions)
    assert last.index("USER") > max(i for i, word in enumerate(last) if word == "RUN")  # nothing is installed by it
    start = next(rest for word, rest in instructions if word == "ENTRYPOINT")
    assert (
        json.loads(start)[:2] == ["sh", "-c"] and "exec python -m ecg_vlm serve --host 0.0.0.0" in json.loads(start)[2]
    )
    subprocess.run(["sh", "-n", "-c", json.loads(start)[2]], check=True)
    for word, rest in instructions:
        if word == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)
