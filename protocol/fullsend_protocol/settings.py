"""Configuration: TOML text to a pydantic model, with errors that name the key and the nearest right one."""

from __future__ import annotations

import difflib
import tomllib
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from fullsend_protocol.errors import UsageError
from fullsend_protocol.units import parse_duration, parse_size


def _size(value: Any) -> Any:  # noqa: ANN401 - whatever TOML holds
    return _parsed(parse_size, value)


def _duration(value: Any) -> Any:  # noqa: ANN401 - whatever TOML holds
    return _parsed(parse_duration, value)


def _parsed(parse: Any, value: Any) -> Any:  # noqa: ANN401 - whatever TOML holds
    try:
        return parse(value) if isinstance(value, str) else value
    except UsageError as error:
        raise ValueError(str(error)) from None


#: Bytes; in the file a number, or text such as "512M".
Size = Annotated[int, BeforeValidator(_size)]
#: Seconds; in the file a number, or text such as "15m".
Duration = Annotated[float, BeforeValidator(_duration)]


class Settings(BaseModel):
    """Base of both configurations: keys are written with hyphens, unknown ones are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )


_S = TypeVar("_S", bound=Settings)


def parse_settings(model: type[_S], text: str, name: str) -> _S:
    """Read the TOML text of the configuration file `name`.

    Raises: UsageError, one line: the file, the key, what is wrong, and the nearest right key for an unknown one.
    """
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        msg = f"{name}: {error}"
        raise UsageError(msg) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = [str(part) for part in first["loc"]]
        key = ".".join(path)
        if first["type"] != "extra_forbidden":
            msg = f"{name}: {key}: {first['msg'].removeprefix('Value error, ')}"
            raise UsageError(msg) from None
        near = difflib.get_close_matches(path[-1], _keys(model, path[:-1]), n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        msg = f"{name}: unknown key {key!r}{hint}"
        raise UsageError(msg) from None


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys that may stand in the table at `path`."""
    for part in path:
        for name, field in model.model_fields.items():
            if part in {name, field.alias}:
                inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
                models = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
                model = models[0] if models else model
    return [field.alias or name for name, field in model.model_fields.items()]
