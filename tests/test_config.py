"""Settings from the environment, and the processors a process may use."""

import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from app import processors
from app.config import ConfigError, Settings, unknown_variables

DOCS = Path(__file__).parent.parent / "docs"


def test_defaults_when_nothing_is_set():
    settings = Settings.from_env({})
    assert settings == Settings()
    assert settings.max_length == 8192
    assert settings.pooling == "mean"
    assert settings.served_name == "bge-m3"


def test_the_environment_overrides_the_defaults():
    settings = Settings.from_env(
        {
            "EMBED_MODEL_PATH": "/srv/models/demo/",
            "EMBED_MODEL_ALIASES": "a, b,,c",
            "EMBED_MAX_LENGTH": "512",
            "EMBED_POOLING": "CLS",
        }
    )
    assert settings.served_name == "demo"
    assert settings.model_aliases == ("a", "b", "c")
    assert settings.max_length == 512
    assert settings.pooling == "cls"


def test_an_empty_variable_is_not_set():
    assert Settings.from_env({"EMBED_POOLING": "", "EMBED_MAX_TEXTS": ""}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EMBED_POOLING", "max"),
        ("EMBED_MAX_LENGTH", "long"),
        ("EMBED_MAX_LENGTH", "2"),
        ("EMBED_MAX_LENGTH", "-5"),
        ("EMBED_MAX_TEXTS", "0"),
        ("EMBED_MAX_BODY_BYTES", "1.5"),
        ("EMBED_MODEL_NAME", "  "),
        ("EMBED_RERANKER_PATH", "  "),
        ("EMBED_RERANKER_MAX_LENGTH", "31"),
        ("OMP_NUM_THREADS", "many"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_variable(variable, value):
    with pytest.raises(ConfigError, match=f"^{variable} is {value!r}, it must ") as error:
        Settings.from_env({variable: value})
    assert "\n" not in str(error.value)


def test_a_reranker_is_called_as_its_folder_unless_it_has_a_name():
    environ = {"EMBED_RERANKER_PATH": "/srv/models/cross/", "EMBED_RERANKER_ALIASES": "a, b"}
    settings = Settings.from_env(environ)
    assert (settings.reranker_served_name, settings.reranker_aliases) == ("cross", ("a", "b"))
    assert Settings.from_env(environ | {"EMBED_RERANKER_NAME": "c"}).reranker_served_name == "c"
    assert Settings.from_env({}).reranker_served_name == ""


@pytest.mark.parametrize(
    "names",
    [
        {"EMBED_MODEL_NAME": "Cross"},
        {"EMBED_MODEL_ALIASES": "x,cross"},
        {"EMBED_RERANKER_ALIASES": "y,BGE-m3"},
        {"EMBED_RERANKER_ALIASES": "x", "EMBED_MODEL_ALIASES": "x"},
    ],
)
def test_a_name_means_one_model(names):
    with pytest.raises(ConfigError, match="names both models: set another EMBED_RERANKER_NAME"):
        Settings.from_env({"EMBED_RERANKER_PATH": "/srv/models/cross", **names})
    Settings.from_env(names)  # without a reranker nothing is ambiguous


@pytest.mark.parametrize("value", [" , ", ",", " ", "\t,\n"])
def test_keys_that_are_none_do_not_open_the_server(value):
    """As "${A},${B}" gives where both are unset."""
    with pytest.raises(ConfigError, match="EMBED_API_KEYS contains no key"):
        Settings.from_env({"EMBED_API_KEYS": value})


@pytest.mark.parametrize("key", ["schlüssel", "a\x00b", "ключ", "\ufeffkey"])
def test_a_key_that_no_client_can_send_is_refused_and_not_shown(key, tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"good\n{key}\n")
    for settings in (
        lambda: Settings.from_env({"EMBED_API_KEYS": f"good,{key}"}),
        lambda: Settings.from_env({"EMBED_API_KEYS_FILE": str(file)}).keys,
    ):
        with pytest.raises(ConfigError, match="characters other than ASCII's") as error:
            settings()
        assert key not in str(error.value)
        assert "good" not in str(error.value)


def test_a_file_of_keys_may_begin_with_a_mark(tmp_path):
    (file := tmp_path / "keys").write_bytes(b"\xef\xbb\xbffirst\r\nsecond\r\n")
    assert Settings(api_keys_file=file).keys == ("first", "second")


def test_a_misspelt_setting_is_told_with_the_nearest_one():
    environ = {"EMBED_API_KEY": "secret", "EMBED_POOLING": "cls", "EMBED_X": "1", "PATH": "/bin"}
    near, far = unknown_variables(environ)
    assert near == "EMBED_API_KEY is not a setting and has no effect: did you mean EMBED_API_KEYS?"
    assert far == "EMBED_X is not a setting and has no effect"
    assert "secret" not in near


@pytest.mark.parametrize("page", ["settings.md", "zh/settings.md"])
def test_the_docs_have_every_setting_with_its_default(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \|(?: `([^`]*)`)? \|", text, re.MULTILINE))
    defaults = Settings()
    for setting in fields(Settings):
        value = getattr(defaults, setting.name)
        if value in ("", (), 0, None):
            assert setting.metadata["env"] in rows
        else:
            shown = ",".join(value) if isinstance(value, tuple) else str(value)
            assert rows[setting.metadata["env"]] == shown
    assert len(rows) == len(fields(Settings)), f"{page} names a setting that is none"


def cgroups(tmp_path: Path, membership: str, files: dict[str, str]) -> float:
    (tmp_path / "self").write_text(membership)
    for name, content in files.items():
        file = tmp_path / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return processors._cgroup_quota(tmp_path / "self", tmp_path / "fs")


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, float("inf")),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, 4.0),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "300000 100000\n"}, 2.0),
        ("0::/not/mounted/here\n", {"cpu.max": "300000 100000\n"}, 3.0),
        (
            "3:memory:/x\n2:cpu,cpuacct:/docker/1\n",
            {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        (
            "2:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            float("inf"),
        ),
        ("0::/\n", {}, float("inf")),
    ],
)
def test_the_cgroups_quota_is_read(tmp_path, membership, files, quota):
    assert cgroups(tmp_path, membership, files) == quota


def test_no_cgroups_no_quota(tmp_path):
    assert processors._cgroup_quota(tmp_path / "absent", tmp_path) == float("inf")


@pytest.mark.parametrize(
    ("allowed", "quota", "workers", "threads"),
    [
        (8, float("inf"), 1, 8),
        (8, float("inf"), 3, 2),
        (8, 2.9, 1, 2),
        (8, 0.5, 1, 1),
        (2, 6.0, 1, 2),
        (2, float("inf"), 4, 1),
    ],
)
def test_threads_are_what_the_machine_grants_divided_by_the_workers(
    monkeypatch, allowed, quota, workers, threads
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)))
    monkeypatch.setattr(processors, "_cgroup_quota", lambda *paths: quota)
    assert processors.thread_budget(workers) == threads
