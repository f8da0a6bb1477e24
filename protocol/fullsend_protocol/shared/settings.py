"""Configuration: TOML text to a pydantic model, with errors that name the key and the nearest known one."""

from __future__ import annotations

import math
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.units import parse_duration, parse_size

_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)\s*%")


@dataclass(frozen=True, slots=True)
class SizeOrShare:
    """An amount of something that has a total: `size` bytes, or a `share` (0 to 1) of that total."""

    size: int = 0
    share: float = 0.0

    def of(self, total: int) -> int:
        """Return the amount in bytes. `total`: in bytes."""
        return self.size + int(self.share * total)


def _size(value: Any) -> Any:  # noqa: ANN401 - any value that TOML has
    return _quantity(parse_size, value)


def _duration(value: Any) -> Any:  # noqa: ANN401 - any value that TOML has
    return _quantity(parse_duration, value)


def _size_or_share(value: Any) -> Any:  # noqa: ANN401 - any value that TOML has
    if isinstance(value, SizeOrShare):
        return value
    if isinstance(value, str) and value.rstrip().endswith("%"):
        share = _share(value.strip())
        if share > 1:
            msg = f"{value!r} is more than all of it"
            raise ValueError(msg)
        return SizeOrShare(share=share)
    size = _size(value)
    if type(size) is not int or size < 0:
        msg = 'a size or a share is wanted, such as "10G" or "5%"'
        raise ValueError(msg)
    return SizeOrShare(size=size)


def _quantity(parse: Callable[[str], float], value: Any) -> Any:  # noqa: ANN401 - any value that TOML has
    if isinstance(value, bool):
        msg = "a number is wanted"
        raise ValueError(msg)  # noqa: TRY004 - pydantic makes one line of a ValueError, and passes a TypeError on
    try:
        quantity = parse(value) if isinstance(value, str) else value
    except UsageError as error:
        raise ValueError(str(error)) from None
    if isinstance(quantity, float) and not math.isfinite(quantity):
        msg = "a finite number is wanted"
        raise ValueError(msg)
    return quantity


def _share(value: Any) -> Any:  # noqa: ANN401 - any value that TOML has
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        msg = f'{value!r} is not a share: write one such as "20%"'
        raise ValueError(msg)
    return float(match[1]) / 100


def _words(value: Any) -> Any:  # noqa: ANN401 - any value that TOML has
    return tuple(shlex.split(value)) if isinstance(value, str) else value


#: A command and its arguments, without a shell; in the file a list, or text that is split as a shell would split it.
CommandLine = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_words)]
#: Bytes; in the file a number, or text such as "512M".
Size = Annotated[int, Field(ge=0), BeforeValidator(_size)]
#: Bytes, or a share of a total; in the file a number, or text such as "10G" or "5%".
Portion = Annotated[SizeOrShare, BeforeValidator(_size_or_share)]
#: Seconds; in the file a number, or text such as "15m".
Duration = Annotated[float, Field(ge=0), BeforeValidator(_duration)]


#: From 0 to 1; in the file text such as "20%".
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(_share)]


def _metrics_file(text: str) -> str:
    if not text.startswith("/") or not text.endswith(".prom"):
        msg = f"{text!r} is not an absolute path that ends with .prom; node_exporter reads no other files"
        raise ValueError(msg)
    return text


#: The path of a file that node_exporter's textfile collector reads.
MetricsFile = Annotated[str, AfterValidator(_metrics_file)]


class Settings(BaseModel):
    """Base of both configurations: keys have hyphens, unknown ones are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )


_S = TypeVar("_S", bound=Settings)


def parse_settings(model: type[_S], text: str, name: str) -> _S:
    """Read the TOML text of the configuration file `name`.

    Raises: UsageError, one line: the file, the key, what is wrong, and the nearest known key for an unknown one.
    """
    try:
        keys = tomllib.loads(text)
        for key in keys:
            field = model.model_fields.get(key)
            if field is not None and field.alias not in {None, key}:  # the name in the code, not in the file
                msg = f"{name}: unknown key {key!r}; did you mean {field.alias!r}?"
                raise UsageError(msg)
        return model.model_validate(keys)
    except tomllib.TOMLDecodeError as error:
        msg = f"{name}: {error}"
        raise UsageError(msg) from None
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        # A mistyped key is the cause where its correct spelling is reported as missing.
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        path = [str(part) for part in first["loc"]]
        key = ".".join(path)
        if first["type"] != "extra_forbidden":
            where = f"{name}: {key}" if path else name
            msg = f"{where}: {first['msg'].removeprefix('Value error, ')}"
            raise UsageError(msg) from None
        import difflib  # every command reads its settings, and few are wrong: this saves the import

        near = difflib.get_close_matches(path[-1], _keys(model, path[:-1]), n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if path[:-1] and path[-1] in _keys(model, []):
            hint = f"; {path[-1]!r} belongs above the first [table]"
        msg = f"{name}: unknown key {key!r}{hint}"
        raise UsageError(msg) from None


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys that are allowed in the table at `path`."""
    for part in path:
        for name, field in model.model_fields.items():
            if part in {name, field.alias}:
                inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
                models = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
                model = models[0] if models else model
    return [field.alias or name for name, field in model.model_fields.items()]
