"""Files for clusters: their syntax, and that the commands in them are commands of this version."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from ecg_vlm.cli import parse_arguments

_ROOT = Path(__file__).parents[1]
_DEPLOY = _ROOT / "deploy"


@pytest.mark.parametrize("path", sorted(_DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid(path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    subprocess.run([bash, "-n", str(path)], check=True)


def test_the_slurm_script_starts_ray_and_the_command_with_its_address(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    for name, text in (("scontrol", "printf 'node1\\nnode2\\n'"), ("srun", 'printf "%s\\n" "$RAY_AUTH_MODE" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7"}
    path = {"SLURM_CPUS_PER_TASK": "3", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    result = subprocess.run(
        ["bash", str(_DEPLOY / "slurm.sh"), "render", "simulated", "a folder"],
        env=slurm | path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    words = result.stdout.splitlines()
    assert " ".join(words[:9]) == "token ray symmetric-run --address node1:20007 --min-nodes 2 --num-cpus 3"
    assert words[9:11] == ["--", "ecg-vlm"]
    arguments = parse_arguments(words[11:])
    assert (arguments.engine, arguments.address, arguments.resume) == ("ray", "node1:20007", True)
    assert str(arguments.out) == "a folder"


def test_the_kubernetes_job_runs_this_command_on_nodes_of_one_image() -> None:
    job = yaml.safe_load((_DEPLOY / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "ecg-vlm" and parse_arguments(words).engine == "ray"
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    (head, worker) = (container for group in groups for container in group["template"]["spec"]["containers"])
    assert head["image"] == worker["image"] and head["envFrom"] == worker["envFrom"]
    for container in (head, worker):  # Ray counts cores and memory by the limits
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_machines_of_ones_own() -> None:
    machines = yaml.safe_load((_DEPLOY / "ray-up.yaml").read_text())
    assert machines["provider"]["type"] == "local" and machines["provider"]["head_ip"]
    extras = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any("'ecg-vlm[cluster]'" in command for command in machines["setup_commands"]) and "cluster" in extras
    assert any("ray start --head" in command for command in machines["head_start_ray_commands"])


def test_the_image_is_built_of_the_files_of_the_other_image() -> None:
    copies = [
        [line for line in path.read_text().splitlines() if line.startswith(("COPY", "FROM"))]
        for path in (_ROOT / "Dockerfile", _DEPLOY / "Dockerfile")
    ]
    assert copies[0] == copies[1]
    assert "RUN ecg-vlm doctor" in (_DEPLOY / "Dockerfile").read_text()
