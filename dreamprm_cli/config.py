"""Settings: a flag, else DREAMPRM_*, else the project's file, else the user's file, else the default.

The project's file is the nearest, going up from the current directory, `dreamprm.toml` or `pyproject.toml` with a
table `[tool.dreamprm]`; the user's is `config.toml` in the XDG configuration directory of dreamprm.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ConfigError

PRM_ENGINES = ("auto", "torch", "llama")
AGGREGATIONS = ("mean", "min", "last", "product", "log-odds")
_PREFIX = "DREAMPRM_"
_PROJECT_FILES = ("dreamprm.toml", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is to use. `origin` tells for each setting that is not a default where it came from."""

    policy: str = "qwen2.5-coder-1.5b"
    prm: str = "default"  # or the address of a scoring server; "none" for no PRM
    n: int = 8
    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 1024
    seed: int = 0
    aggregation: str = "mean"
    prm_engine: str = "auto"  # what computes the PRM; "auto": see `dreamprm_cli.prm.open.pick_engine`
    device: str = "auto"  # "auto", "cpu", "cuda" or "cuda:1"
    base_url: str | None = None
    reasoning_effort: str | None = None  # for remote models that think first: "low", "medium", "high", ...
    input_price: float | None = None  # of a remote model, US dollars per million tokens; both, or the cost is unknown
    output_price: float | None = None
    runs_dir: Path = Path(".dreamprm/runs")
    origin: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def price(self) -> tuple[float, float] | None:
        """US dollars per million tokens, (input, output); None when not both are known."""
        return None if self.input_price is None or self.output_price is None else (self.input_price, self.output_price)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without `origin`."""
        values = {key: getattr(self, key) for key in KEYS}
        return {**values, "runs_dir": str(self.runs_dir)}


KEYS = tuple(f.name for f in dataclasses.fields(Settings) if f.name != "origin")
_TYPES: dict[str, type] = {
    **dict.fromkeys(("policy", "prm", "aggregation", "prm_engine", "device", "base_url", "reasoning_effort"), str),
    **dict.fromkeys(("n", "max_tokens", "seed"), int),
    **dict.fromkeys(("temperature", "top_p", "input_price", "output_price"), float),
    "runs_dir": Path,
}


def load_settings(overrides: Mapping[str, object] | None = None, project: Path | None = None) -> Settings:
    """The settings in force in the folder `project` (this one). `overrides` are the flags; None means that a flag was
    not given.

    Raises ConfigError for an unknown key, a wrong type or a value out of range, naming the file, variable or flag.
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, found in _sources(overrides or {}, project or Path.cwd()):
        for key, value in found.items():
            values[key], origin[key] = value, source
    return Settings(**values, origin=origin)


def guard_key(settings: Settings) -> None:
    """A project's file may not send the user's key to an address of its choice: the repository may be a stranger's.

    Raises ConfigError.
    """
    origin = settings.origin.get("base_url", "")
    if os.environ.get("OPENAI_API_KEY") and origin.endswith(_PROJECT_FILES):
        raise ConfigError(
            f"{origin} would send your OPENAI_API_KEY to {settings.base_url}",
            "give --base-url yourself if you trust that address, or unset the key",
        )


def guard_token(settings: Settings) -> None:
    """As `guard_key`, for the scoring server's token. Raises ConfigError."""
    origin = settings.origin.get("prm", "")
    if os.environ.get("DREAMPRM_PRM_TOKEN") and "://" in settings.prm and origin.endswith(_PROJECT_FILES):
        raise ConfigError(
            f"{origin} would send your DREAMPRM_PRM_TOKEN to {settings.prm}",
            "give --prm yourself if you trust that address, or unset the token",
        )


def settings_from_json(row: Mapping[str, Any]) -> Settings:
    """The inverse of `Settings.to_json`. Keys that this version does not know are ignored (a newer version's run).

    Raises ConfigError for a value that cannot be.
    """
    known = {key: row[key] for key in KEYS if row.get(key) is not None}
    return Settings(**{key: _value(key, value, f"recorded setting {key}") for key, value in known.items()})


def _sources(overrides: Mapping[str, object], project: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where settings come from, weakest first."""
    user = _user_file()
    if user.is_file():
        yield str(user), _checked(_read_toml(user), str(user))
    if (found_at := _project_table(project.absolute())) is not None:
        file, table = found_at
        # What mining reads of the project's file, and nothing else does.
        found = _checked({key: value for key, value in table.items() if key != "sandbox"}, str(file))
        if "runs_dir" in found:  # a path in a file is meant from where the file is
            found["runs_dir"] = file.parent / found["runs_dir"]
        if "prm" in found and (file.parent / found["prm"] / "dreamprm.json").is_file():
            found["prm"] = str(file.parent / found["prm"])
        yield str(file), found
    yield "environment", _environment()
    flags = {key: value for key, value in overrides.items() if value is not None}
    yield "flag", {key: _value(key, value, _flag(key)) for key, value in flags.items() if _known(key, "flags")}


def _user_file() -> Path:
    import platformdirs

    return platformdirs.user_config_path("dreamprm") / "config.toml"


def _project_table(here: Path) -> tuple[Path, Mapping[str, Any]] | None:
    for folder in (here, *here.parents):
        if (own := folder / "dreamprm.toml").is_file():
            return own, _read_toml(own)
        if (shared := folder / "pyproject.toml").is_file():
            tool = _read_toml(shared).get("tool")
            table = tool.get("dreamprm") if isinstance(tool, dict) else None
            if isinstance(table, dict):
                return shared, table
            if table is not None:
                raise ConfigError(
                    f"{shared}: tool.dreamprm must be a table", "write [tool.dreamprm] and the keys below it"
                )
    return None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from None


def _checked(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {key: _value(key, value, f"{where}: {key}") for key, value in table.items() if _known(key, where)}


def _environment() -> dict[str, Any]:
    """DREAMPRM_* variables. Other parts read some of their own, so only a near miss is taken for a mistake."""
    found = {}
    for variable, text in os.environ.items():
        key = variable.removeprefix(_PREFIX).lower()
        if not variable.startswith(_PREFIX) or not text:
            continue
        if key in KEYS:
            found[key] = _value(key, _parse(key, text, variable), variable)
        elif close := difflib.get_close_matches(key, KEYS, n=1, cutoff=0.8):
            raise ConfigError(f"unknown variable {variable}", f"did you mean {_PREFIX}{close[0].upper()}?")
    return found


def _parse(key: str, text: str, where: str) -> object:
    """A variable's text as the setting's type."""
    if _TYPES[key] not in (int, float):
        return text
    try:
        return _TYPES[key](text)
    except ValueError:
        raise ConfigError(f"{where} must be {_TYPE_NAMES[_TYPES[key]]}, not {text!r}") from None


def _known(key: str, where: str) -> bool:
    if key in KEYS:
        return True
    close = difflib.get_close_matches(key, KEYS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"settings are {', '.join(KEYS)}"
    raise ConfigError(f"{where}: unknown setting {key!r}", hint)


_TYPE_NAMES = {str: "a string", Path: "a path", int: "a whole number", float: "a number"}


def _value(key: str, value: object, where: str) -> Any:
    """The value, checked; `where` names it in the error."""
    kind = _TYPES[key]
    accepted = {str: str, Path: (str, Path), int: int, float: (int, float)}[kind]
    if isinstance(value, bool) or not isinstance(value, accepted):  # type: ignore[arg-type]
        raise ConfigError(f"{where} must be {_TYPE_NAMES[kind]}, not {value!r}")
    try:
        converted = Path(str(value)).expanduser() if kind is Path else kind(value)
    except (OverflowError, RuntimeError):  # a number beyond floats; a `~` without a home
        raise ConfigError(f"{where} cannot be {value!r}") from None
    if wrong := _complaint(key, converted):
        raise ConfigError(f"{where} {wrong}, not {value!r}")
    return converted


def _complaint(key: str, value: Any) -> str:
    """Why the value cannot be; empty when it can."""
    if key in ("n", "max_tokens") and value < 1:
        return "must be at least 1"
    if key in ("temperature", "input_price", "output_price") and not (value >= 0 and math.isfinite(value)):
        return "must be 0 or more"
    if key == "top_p" and not 0 < value <= 1:
        return "must be above 0 and at most 1"
    if key == "aggregation" and value not in AGGREGATIONS:
        return f"must be one of {', '.join(AGGREGATIONS)}"
    if key == "prm_engine" and value not in PRM_ENGINES:
        return f"must be one of {', '.join(PRM_ENGINES)}"
    if key == "device" and not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        return "must be auto, cpu, cuda or cuda:NUMBER"
    if key == "base_url" and not re.match(r"https?://[^/\s]", value):
        return "must begin with http:// or https://"
    if key == "reasoning_effort" and not re.fullmatch(r"[a-z]+", value):
        return "must be a word that the model knows, such as low, medium or high"
    if key in ("policy", "prm") and not value.strip():
        return "must not be empty"
    return ""


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"
