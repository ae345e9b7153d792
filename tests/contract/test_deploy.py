"""What `deploy/` starts exists: the unit's, the image's and the Job's commands are ones that `switchyard` takes."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from switchyard.server.commands import serve
from switchyard.server.config import ServerConfig
from switchyard.trainer.job.commands import _AGAIN, _FAILED, _USAGE, job

DEPLOY = Path(__file__).parents[2] / "deploy"
PROJECT = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
JOB = yaml.safe_load((DEPLOY / "trainer-job.yaml").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())


def test_unit_starts_a_server_with_settings_that_are_valid() -> None:
    unit = (DEPLOY / "switchyard.service").read_text().replace("\\\n", " ")
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    program, command, *flags = shlex.split(line.removeprefix("ExecStart="))
    assert Path(program).name == "switchyard"
    assert command == "serve"
    check_settings(flags)
    app = typer.Typer()
    app.command()(serve)
    known = {option for parameter in get_command(app).params for option in parameter.opts}
    assert {flag for flag in flags if flag.startswith("--")} <= known


def check_settings(flags: list[str]) -> None:
    """Flags that `serve` takes."""
    app = typer.Typer()
    app.command()(serve)
    result = CliRunner().invoke(app, [*flags, "--check-config"])
    assert result.exit_code == 0, result.output


def test_compose_starts_servers_that_take_their_settings_and_mounts_what_is_there() -> None:
    services = COMPOSE["services"]
    check_settings(services["server"]["command"])
    for service in services.values():
        mounted = [volume.partition(":")[0] for volume in service.get("volumes", []) if volume.startswith("./")]
        assert all((DEPLOY / path).exists() for path in mounted), mounted
        named = {volume.partition(":")[0] for volume in service.get("volumes", [])} - set(mounted)
        assert {name for name in named if not name.startswith("${")} <= COMPOSE["volumes"].keys()
        assert service.get("network_mode", "service:namespace") == "service:namespace"
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/switchyard.yml").read_text())
    (place,) = [one["options"]["path"] for one in provider["providers"]]
    assert any(f":{place}/" in volume for volume in services["grafana"]["volumes"])
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    (url,) = [one["url"] for one in source["datasources"]]
    assert any(f"listen-address={url.removeprefix('http://')}" in flag for flag in services["prometheus"]["command"])


def test_a_stop_leaves_time_for_the_drain() -> None:
    grace_s = int(COMPOSE["services"]["server"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > ServerConfig.model_fields["drain_grace_s"].default


@pytest.mark.parametrize("image", ["trainer", "server"])
def test_an_image_is_built_of_what_is_there(image: str) -> None:
    lines = (DEPLOY / f"{image}.Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    packages = {name.split(".")[1] for name in PROJECT["tool"]["setuptools"]["packages"]}
    assert packages <= set(copied)
    assert all((DEPLOY.parent / name).exists() for name in copied)
    (torch,) = [line.partition("=")[2] for line in lines if line.startswith("ARG TORCH=")]
    assert f"torch=={torch}" in (DEPLOY.parent / "constraints.txt").read_text().splitlines()
    stages = [line.split(" AS ") for line in lines if line.startswith("FROM ")]
    assert {stage[1] for stage in stages if len(stage) == 2} >= {"cpu", "cuda"}
    assert stages[-1] == ["FROM ${VARIANT}"]
    (extras,) = [line for line in lines if "constraints.txt" in line and line.startswith("RUN")]
    assert set(extras.split("[")[1].split("]")[0].split(",")) <= PROJECT["project"]["optional-dependencies"].keys()


def test_the_servers_image_runs_without_root() -> None:
    lines = (DEPLOY / "server.Dockerfile").read_text().splitlines()
    (user,) = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert all(int(number) > 0 for number in user.split(":"))


def test_the_trainers_image_and_job_run_without_root() -> None:
    lines = (DEPLOY / "trainer.Dockerfile").read_text().splitlines()
    (user,) = [line.split()[1] for line in lines if line.startswith("USER ")]
    pod = JOB["spec"]["template"]["spec"]
    context = pod["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert context["runAsNonRoot"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert {one["name"] for one in pod["volumes"]} == mounts.keys()
    assert set(mounts.values()) == {"/scratch", "/tmp"}  # noqa: S108 - paths in the pod


def test_the_jobs_variables_and_exit_codes_are_the_commands() -> None:
    app = typer.Typer()
    app.command()(job)
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    known = {parameter.envvar for parameter in get_command(app).params}
    assert {one["name"] for one in container["env"]} <= known
    ending, *_ = JOB["spec"]["podFailurePolicy"]["rules"]
    assert ending["onExitCodes"]["values"] == [_FAILED, _USAGE]
    assert _AGAIN not in ending["onExitCodes"]["values"]
    assert ending["onExitCodes"]["containerName"] == container["name"]
