"""Settings are complete, checked, frozen, and misspelt ones are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from switchyard.server.calls.quotas import NO_QUOTA, Quota
from switchyard.server.config import ServerConfig, read_config
from switchyard.server.engine.limits import FairnessRules, TenantPolicy
from switchyard.server.protection import TlsFiles

MINIMAL: dict[str, Any] = {"base": "somewhere", "registry": "reg"}


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("base: from-file\nregistry: reg\nmax_queue: 7\nquantization: none\n")
    config = read_config(file, {"base": "from-flag", "max_queue": None})
    assert (config.base, config.max_queue, config.quantization) == ("from-flag", 7, "none")
    assert config.registry == Path("reg")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"max_que": 1}, "max_que"),
        ({"host": "0.0.0.0"}, "other machines could reach it"),  # noqa: S104
        ({"host": "10.1.2.3"}, "other machines could reach it"),
        ({"host": "::"}, "other machines could reach it"),
        ({"host": "10.1.2.3", "access": "tokens"}, "that needs TLS"),
        ({"host": "10.1.2.3", "tls_certificate": "c", "tls_key": "k"}, "that needs access control"),
        ({"host": "example.org"}, "not an IP address"),
        ({"tls_certificate": "c"}, "belong together"),
        ({"tls_client_ca": "c"}, "need TLS"),
        ({"tls_certificate": "c", "tls_key": "k", "tls_client_required": True}, "needs tls_client_ca"),
        ({"port": 70000}, "65535"),
        ({"port": 5000, "http_port": 5000}, "must differ"),
        ({"max_sequences": 0}, "greater than or equal to 1"),
        ({"max_rank": 4097}, "4096"),
        ({"drain_grace_s": float("nan")}, "finite"),
        ({"max_request_s": float("inf")}, "finite"),
        ({"write_stall_s": 0}, "greater than 0"),
        ({"quantization": "int3"}, "nf4"),
        ({"base": ""}, "at least 1"),
    ],
)
def test_a_bad_setting_says_what_is_allowed(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServerConfig.model_validate(MINIMAL | changes)


def test_all_faults_are_told() -> None:
    with pytest.raises(ValidationError) as failure:
        ServerConfig.model_validate({"port": -1, "max_rank": 0, "unknown": 1})
    assert {fault["loc"][0] for fault in failure.value.errors()} == {
        "base",
        "registry",
        "port",
        "max_rank",
        "unknown",
    }


def test_a_file_that_is_no_mapping(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("- base\n")
    with pytest.raises(ValueError, match="expected a mapping"):
        read_config(file, MINIMAL)
    file.write_text("base: [")
    with pytest.raises(ValueError, match="not YAML"):
        read_config(file, MINIMAL)


def test_a_protected_server_may_listen_to_others_but_tells_them_no_metrics() -> None:
    protected = {"host": "10.1.2.3", "access": "tokens", "tls_certificate": "c", "tls_key": "k"}
    config = ServerConfig.model_validate(MINIMAL | protected)
    assert config.tls == TlsFiles(Path("c"), Path("k"))
    assert config.http_host == "127.0.0.1"
    plain = ServerConfig.model_validate(MINIMAL | {"host": "::1"})
    assert (plain.tls, plain.http_host) == (None, "::1")


def test_settings_do_not_change() -> None:
    config = ServerConfig.model_validate(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        config.port = 1  # type: ignore[misc]


def test_addresses_of_both_families() -> None:
    assert ServerConfig.model_validate(MINIMAL).address(1) == "127.0.0.1:1"
    assert ServerConfig.model_validate(MINIMAL | {"host": "::1"}).address(1) == "[::1]:1"
    assert ServerConfig.model_validate(MINIMAL | {"host": "localhost"}).address(1) == "127.0.0.1:1"


def test_every_setting_is_documented() -> None:
    documented = ServerConfig.__doc__ or ""
    assert [name for name in ServerConfig.model_fields if f"        {name}: " not in documented] == []


def test_tenants_get_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(
        "base: b\nregistry: r\ntenants: {gold: {weight: 3}}\nother_tenants: {max_running: 2, max_waiting: 0}\n"
    )
    rules = read_config(file, {}).fairness
    assert rules.policy("gold") == TenantPolicy(3.0)
    assert rules.policy("anybody") == TenantPolicy(1.0, 2, 0)
    assert ServerConfig.model_validate(MINIMAL).fairness == FairnessRules()


def test_quotas_are_those_of_the_file() -> None:
    config = ServerConfig.model_validate(
        MINIMAL
        | {
            "tenants": {"gold": {"tokens_per_minute": 5000}},
            "other_tenants": {"requests_per_minute": 60, "max_live": 2},
            "adapters": {"team/a": {"max_live": 1}},
        }
    )
    assert config.tenant_quota("gold") == Quota(None, 5000, None)
    assert config.tenant_quota("") == config.tenant_quota("anybody") == Quota(60, None, 2)
    assert config.adapter_quota("team/a") == Quota(None, None, 1)
    assert config.adapter_quota("team/b") == ServerConfig.model_validate(MINIMAL).tenant_quota("x") == NO_QUOTA
    with pytest.raises(ValidationError, match="'team/a@prod', 'a': expected names of adapters, like ns/name"):
        ServerConfig.model_validate(MINIMAL | {"adapters": {"team/a@prod": {}, "a": {}, "team/b": {}}})


@pytest.mark.parametrize(
    "settings",
    [
        {"weight": 0},
        {"weight": "inf"},
        {"max_running": 0},
        {"max_runing": 1},
        {"tokens_per_minute": 0},
        {"max_live": 0},
    ],
)
def test_a_tenant_that_could_never_be_served_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServerConfig.model_validate({**MINIMAL, "tenants": {"t": settings}})
