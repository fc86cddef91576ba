"""Settings come from where they should, in order, and a wrong one is named where it stands."""

from pathlib import Path

import pytest

from dreamprm_cli import config
from dreamprm_cli.aggregate import AGGREGATIONS
from dreamprm_cli.config import Settings, load_settings, settings_from_json
from dreamprm_cli.errors import ConfigError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A project folder as the current directory, with an empty user configuration and no DREAMPRM_* variables."""
    for key in config.KEYS:
        monkeypatch.delenv(f"DREAMPRM_{key.upper()}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


def user_file(tmp_path, text):
    path = tmp_path / "xdg" / "dreamprm" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_defaults():
    settings = load_settings()
    assert settings == Settings()
    assert (settings.policy, settings.n, settings.aggregation) == ("qwen2.5-coder-1.5b", 8, "mean")
    assert settings.runs_dir == Path(".dreamprm/runs")
    assert settings.origin == {}


def test_each_source_beats_the_one_below(place, tmp_path, monkeypatch):
    user = user_file(tmp_path, 'n = 2\nseed = 2\ntop_p = 0.2\npolicy = "user"\n')
    (place / "dreamprm.toml").write_text("n = 3\nseed = 3\ntop_p = 0.3\n")
    monkeypatch.setenv("DREAMPRM_N", "4")
    monkeypatch.setenv("DREAMPRM_SEED", "4")
    settings = load_settings({"n": 5, "seed": None, "temperature": None})
    assert (settings.n, settings.seed, settings.top_p, settings.policy) == (5, 4, 0.3, "user")
    assert settings.origin == {
        "n": "flag",
        "seed": "environment",
        "top_p": str(place / "dreamprm.toml"),
        "policy": str(user),
    }


def test_the_nearest_project_file_counts(place, monkeypatch):
    (place / "pyproject.toml").write_text("[tool.dreamprm]\nn = 3\nseed = 9\n")
    inner = place / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert load_settings().n == 3
    (place / "a" / "pyproject.toml").write_text("[tool.other]\nn = 4\n")  # no word about dreamprm
    assert load_settings().n == 3
    (place / "a" / "dreamprm.toml").write_text("n = 5\n")
    assert (load_settings().n, load_settings().seed) == (5, 0)


def test_another_folders_project_file_counts_when_it_is_asked_for(place, tmp_path):
    (place / "dreamprm.toml").write_text("n = 3\n")
    other = tmp_path / "other"
    (other / "own").mkdir(parents=True)
    (other / "own" / "dreamprm.json").touch()
    (other / "dreamprm.toml").write_text('prm = "own"\n')
    settings = load_settings({}, other)
    assert (settings.n, settings.prm) == (8, str(other / "own"))


def test_what_mining_reads_of_a_project_file_is_none_of_the_settings(place):
    (place / "dreamprm.toml").write_text('n = 3\n[sandbox]\nrequirements = ["a"]\n')
    assert load_settings().n == 3


def test_a_runs_folder_in_a_project_file_lies_beside_it(place, monkeypatch):
    (place / "dreamprm.toml").write_text('runs_dir = "out/runs"\n')
    (place / "inner").mkdir()
    monkeypatch.chdir(place / "inner")
    assert load_settings().runs_dir == place / "out" / "runs"
    assert load_settings({"runs_dir": "here"}).runs_dir == Path("here")


def test_variables_have_the_types_of_their_settings(monkeypatch):
    for name, text in {"TEMPERATURE": "0", "MAX_TOKENS": "64", "BASE_URL": "http://localhost:8000/v1"}.items():
        monkeypatch.setenv(f"DREAMPRM_{name}", text)
    settings = load_settings()
    assert (settings.temperature, settings.max_tokens, settings.base_url) == (0.0, 64, "http://localhost:8000/v1")
    assert isinstance(settings.temperature, float)


def test_variables_of_other_parts_and_empty_ones_are_left_alone(monkeypatch):
    monkeypatch.setenv("DREAMPRM_CACHE", "/somewhere")
    monkeypatch.setenv("DREAMPRM_N", "")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("polcy = 'x'", "unknown setting 'polcy'", "did you mean policy?"),
        ("zzz = 1", "unknown setting 'zzz'", "settings are policy, prm"),
        ("n = '8'", "n must be a whole number, not '8'", ""),
        ("n = 8.5", "n must be a whole number, not 8.5", ""),
        ("n = true", "n must be a whole number, not True", ""),
        ("policy = 3", "policy must be a string, not 3", ""),
        ("runs_dir = 3", "runs_dir must be a path, not 3", ""),
        ("n = 0", "n must be at least 1, not 0", ""),
        ("max_tokens = -1", "max_tokens must be at least 1", ""),
        ("temperature = -0.1", "temperature must be 0 or more", ""),
        ("temperature = inf", "temperature must be 0 or more", ""),
        ("temperature = nan", "temperature must be 0 or more", ""),
        (f"temperature = {'9' * 400}", "temperature cannot be 9", ""),
        ("top_p = 0", "top_p must be above 0 and at most 1", ""),
        ("top_p = 1.1", "top_p must be above 0 and at most 1", ""),
        ("aggregation = 'max'", "aggregation must be one of mean, min, last, product, log-odds, not 'max'", ""),
        ("device = 'tpu'", "device must be auto, cpu, cuda", ""),
        ("base_url = 'localhost'", "base_url must begin with http:// or https://", ""),
        ("input_price = -1", "input_price must be 0 or more", ""),
        ("reasoning_effort = 'a lot'", "reasoning_effort must be a word that the model knows", ""),
        ("policy = ''", "policy must not be empty", ""),
        ("n =", "not valid TOML", ""),
    ],
)
def test_a_wrong_setting_names_the_file_and_the_key(place, text, message, hint):
    (place / "dreamprm.toml").write_text(text + "\n")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert caught.value.message.startswith(f"{place / 'dreamprm.toml'}: {message}")
    assert caught.value.hint.startswith(hint)
    assert caught.value.exit_code == 2


def test_files_that_cannot_be_read(place):
    (place / "pyproject.toml").write_text("[tool]\ndreamprm = 3\n")
    with pytest.raises(ConfigError, match=r"tool\.dreamprm must be a table"):
        load_settings()
    (place / "dreamprm.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_settings()


def test_a_wrong_variable_or_flag_is_named(monkeypatch):
    with pytest.raises(ConfigError, match="--top-p must be above 0 and at most 1, not 2"):
        load_settings({"top_p": 2.0})
    with pytest.raises(ConfigError, match="flags: unknown setting 'colour'"):
        load_settings({"colour": "red"})
    monkeypatch.setenv("DREAMPRM_MAX_TOKENS", "many")
    with pytest.raises(ConfigError, match="DREAMPRM_MAX_TOKENS must be a whole number, not 'many'"):
        load_settings()
    monkeypatch.delenv("DREAMPRM_MAX_TOKENS")
    monkeypatch.setenv("DREAMPRM_TEMPRATURE", "0")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert (caught.value.message, caught.value.hint) == (
        "unknown variable DREAMPRM_TEMPRATURE",
        "did you mean DREAMPRM_TEMPERATURE?",
    )


def test_settings_survive_json():
    settings = load_settings({"n": 3, "runs_dir": "x", "base_url": "https://example.org"})
    assert settings_from_json(settings.to_json()) == settings
    assert settings_from_json({**Settings().to_json(), "later": 1}) == Settings()
    with pytest.raises(ConfigError, match="recorded setting n must be a whole number"):
        settings_from_json({"n": "x"})


def test_aggregations_are_those_there_are():
    assert set(config.AGGREGATIONS) == set(AGGREGATIONS)
