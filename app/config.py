"""Every setting: its environment variable, default, meaning and check."""

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal


class ConfigError(ValueError):
    """A setting has a value that cannot be used; the message names the variable."""


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def _path(value: str) -> Path:
    return Path(_text(value))


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _keys(names: Iterable[str]) -> tuple[str, ...]:
    keys = tuple(name.strip() for name in names if name.strip())
    if not keys:
        raise ValueError("contains no key: leave it unset to serve without keys")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise ValueError("contains a key with characters other than ASCII's, which no client can send")
    return keys


def _whole(least: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not value.strip().isdecimal() or int(value) < least:
            raise ValueError(f"must be a whole number of at least {least}")
        return int(value)

    return read


def _listed(*choices: str) -> Callable[[str], tuple[str, ...]]:
    def read(value: str) -> tuple[str, ...]:
        names = _names(value.lower())
        if names != ("none",) and set(names) - set(choices):
            raise ValueError(f"must be none or some of {', '.join(choices)}")
        return () if names == ("none",) else names

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value.strip().lower() not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")
        return value.strip().lower()

    return read


def _setting(
    default: Any, variable: str, read: Callable[[str], Any], meaning: str, secret: bool = False
) -> Any:
    metadata = {"env": variable, "read": read, "meaning": meaning}
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True)
class Settings:
    """What an operator can choose, with the defaults; `from_env` reads the environment once."""

    model_path: Path = _setting(Path("models/bge-m3"), "EMBED_MODEL_PATH", _path, "the model folder")
    model_name: str = _setting("", "EMBED_MODEL_NAME", _text, "name in answers; the folder's name if unset")
    model_aliases: tuple[str, ...] = _setting(
        (), "EMBED_MODEL_ALIASES", _names, "more names clients may use, with commas between"
    )
    reranker_path: Path | None = _setting(
        None,
        "EMBED_RERANKER_PATH",
        _path,
        "a cross-encoder's folder, to rank by; unset, the hybrid score ranks",
    )
    reranker_name: str = _setting(
        "", "EMBED_RERANKER_NAME", _text, "its name in answers; its folder's name if unset"
    )
    reranker_aliases: tuple[str, ...] = _setting(
        (), "EMBED_RERANKER_ALIASES", _names, "more names clients may use for it, with commas between"
    )
    reranker_max_length: int = _setting(
        512,
        "EMBED_RERANKER_MAX_LENGTH",
        _whole(32),
        "tokens of a query and a passage together, special tokens included",
    )
    max_length: int = _setting(
        8192,
        "EMBED_MAX_LENGTH",
        _whole(3),
        "tokens of one text, special tokens included; never more than the model's own limit",
    )
    pooling: Literal["mean", "cls"] = _setting(
        "mean", "EMBED_POOLING", _one_of("mean", "cls"), "`mean` or `cls`, see the note on pooling"
    )
    engine: Literal["auto", "native", "openvino", "torch"] = _setting(
        "auto",
        "EMBED_ENGINE",
        _one_of("auto", "native", "openvino", "torch"),
        "`auto` (the fastest here), `native`, `openvino`, or `torch`, the reference",
    )
    precision: Literal["auto", "fp32", "bf16", "int8", "w8a16"] = _setting(
        "auto",
        "EMBED_PRECISION",
        _one_of("auto", "fp32", "bf16", "int8", "w8a16"),
        "`auto` (the fastest that loses nothing to speak of), `fp32`, `bf16`, `w8a16` or `int8`",
    )
    native_isa: str = _setting(
        "",
        "EMBED_NATIVE_ISA",
        _one_of("avx2", "avx512", "avx_vnni", "avx512_vnni"),
        "hold the engine to older instructions (`avx2`, `avx_vnni`, `avx512`, `avx512_vnni`), to compare",
    )
    cache_dir: Path | None = _setting(
        None, "EMBED_CACHE_DIR", _path, "where exports go if the model folder is read-only"
    )
    cache_texts: int = _setting(
        0,
        "EMBED_CACHE_TEXTS",
        _whole(0),
        "recent texts whose dense vectors and lexical weights a worker keeps, 4 KB and more each; 0: none",
    )
    queue_tokens: int = _setting(
        262144,
        "EMBED_QUEUE_TOKENS",
        _whole(1),
        "tokens that may wait, and an eighth more of questions; after that requests get 503",
    )
    request_timeout: int = _setting(
        600, "EMBED_REQUEST_TIMEOUT", _whole(1), "seconds a request may wait; after that it fails with 504"
    )
    max_texts: int = _setting(2048, "EMBED_MAX_TEXTS", _whole(1), "texts in one request")
    max_characters: int = _setting(1_000_000, "EMBED_MAX_CHARACTERS", _whole(1), "characters of one text")
    max_body_bytes: int = _setting(32 * 2**20, "EMBED_MAX_BODY_BYTES", _whole(1), "size of a request's body")
    max_output_numbers: int = _setting(
        2**25, "EMBED_MAX_OUTPUT_NUMBERS", _whole(1), "numbers in one answer: multi-vectors are large"
    )
    api_keys: tuple[str, ...] = _setting(
        (),
        "EMBED_API_KEYS",
        lambda value: _keys(value.split(",")),
        "keys of which a request must bring one, with commas between",
        secret=True,
    )
    api_keys_file: Path | None = _setting(
        None, "EMBED_API_KEYS_FILE", _path, "a file of such keys, one to a line, for mounted secrets"
    )
    open_paths: tuple[str, ...] = _setting(
        ("docs",), "EMBED_OPEN", _listed("docs", "metrics"), "`docs`, `metrics`: what needs no key; `none`"
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "EMBED_CORS_ORIGINS", _names, "pages on other hosts that may call from a browser"
    )
    log_format: Literal["text", "json"] = _setting(
        "text", "EMBED_LOG_FORMAT", _one_of("text", "json"), "`text` for people, or `json`, an object a line"
    )
    otlp_endpoint: str = _setting(
        "",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        _text,
        "where OpenTelemetry's spans go by HTTP; its other variables are its own",
    )
    batch_dir: Path | None = _setting(
        None, "EMBED_BATCH_DIR", _path, "where OpenAI's files and batches are kept; unset, there are none"
    )
    threads: int = _setting(
        0,
        "OMP_NUM_THREADS",
        _whole(1),
        "threads of one worker's encoder; the machine's share of processors if unset",
    )

    @cached_property  # each request asks, and a path takes a dozen system calls to resolve
    def served_name(self) -> str:
        """The model's name in answers."""
        return self.model_name or self.model_path.resolve().name

    @cached_property
    def reranker_served_name(self) -> str:
        """The cross-encoder's name in answers; empty where none is served."""
        return self.reranker_name or (self.reranker_path.resolve().name if self.reranker_path else "")

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that opens the server; none: it is open. Their file is read each time.

        ConfigError if it cannot be read, or contains no key or an unusable one.
        """
        file = self.api_keys_file
        if file is None:
            return self.api_keys
        try:
            text = file.read_text(encoding="utf-8-sig")  # editors on Windows begin it with a mark
        except (OSError, ValueError) as error:
            raise ConfigError(f"EMBED_API_KEYS_FILE cannot be read: {error}") from error
        try:
            return self.api_keys + _keys(text.splitlines())
        except ValueError as error:
            raise ConfigError(f"EMBED_API_KEYS_FILE is {str(file)!r}, it {error}") from None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the environment; ConfigError is one sentence that names the variable."""
        values: dict[str, Any] = {}
        for setting in fields(cls):
            variable = setting.metadata["env"]
            # An empty variable is how compose files say "not set".
            if raw := environ.get(variable, ""):
                try:
                    values[setting.name] = setting.metadata["read"](raw)
                except ValueError as error:
                    shown = f" is {raw!r}, it" if setting.repr else ""  # a log is no place for secrets
                    raise ConfigError(f"{variable}{shown} {error}") from None
        found = cls(**values)
        found._tell_apart()
        return found

    def _tell_apart(self) -> None:
        """ConfigError where a name means both models."""
        if self.reranker_path is None:
            return
        encoder = {plain_name(name) for name in (self.served_name, *self.model_aliases)}
        for name in (self.reranker_served_name, *self.reranker_aliases):
            if plain_name(name) in encoder:
                raise ConfigError(
                    f"{name!r} names both models: set another EMBED_RERANKER_NAME or EMBED_RERANKER_ALIASES"
                )


def set_default(variable: str, value: object, override: bool = False) -> None:
    """Give a variable that is unset or empty a value, for this process and those that it starts."""
    if override or not os.environ.get(variable):
        os.environ[variable] = str(value)


def plain_name(model: str) -> str:
    """A model's name in small letters, without a tag that says nothing."""
    return model.lower().removesuffix(":latest")


def unknown_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable that looks like a setting but is not one, such as a misspelt name."""
    prefix = "EMBED_"
    known = [setting.metadata["env"].removeprefix(prefix) for setting in fields(Settings)]
    found = []
    for variable in sorted(environ):
        name = variable.removeprefix(prefix)
        if variable.startswith(prefix) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {prefix}{near[0]}?" if near else ""
            found.append(f"{variable} is not a setting and has no effect{hint}")
    return found
