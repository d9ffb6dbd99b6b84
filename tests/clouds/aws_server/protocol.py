"""EC2's query protocol, read and written by botocore's model of the service.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from xml.sax.saxutils import escape

import botocore.session

MODEL = botocore.session.Session().get_service_model("ec2")


class Refusal(Exception):
    """An error as a service answers it; `reason` is for services that give one."""

    def __init__(self, code: str, message: str, status: int = 400, reason: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status, self.reason = code, message, status, reason


def read_request(action: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """The input of an action, as a client of botocore would have given it."""
    try:
        operation = MODEL.operation_model(action)
    except Exception as error:
        raise Refusal("InvalidAction", f"The action {action} is not valid") from error
    found = _read(operation.input_shape, fields, "")
    missing = [it for it in operation.input_shape.required_members if it not in found]
    if missing:
        raise Refusal("MissingParameter", f"The request must contain the parameter {missing[0]}")
    return dict(found)


def _read(shape: Any, fields: Mapping[str, str], prefix: str) -> Any:
    if shape.type_name == "structure":
        result = {}
        for name, member in shape.members.items():
            key = f"{prefix}.{_name(member, name)}" if prefix else _name(member, name)
            if any(field == key or field.startswith(f"{key}.") for field in fields):
                result[name] = _read(member, fields, key)
        return result
    if shape.type_name == "list":
        items, number = [], 1
        while any(
            it == f"{prefix}.{number}" or it.startswith(f"{prefix}.{number}.") for it in fields
        ):
            items.append(_read(shape.member, fields, f"{prefix}.{number}"))
            number += 1
        return items
    text = fields[prefix]
    if shape.type_name == "boolean":
        return text == "true"
    return int(text) if shape.type_name in ("integer", "long") else text


def _name(shape: Any, name: str) -> str:
    given = shape.serialization
    if "queryName" in given:
        return str(given["queryName"])
    written = str(given.get("name", name))
    return written[0].upper() + written[1:]


def write_answer(action: str, result: Mapping[str, Any]) -> bytes:
    """The XML of an action's output."""
    shape = MODEL.operation_model(action).output_shape
    inner = _write(shape, result) if shape is not None else "<return>true</return>"
    space = f"http://ec2.amazonaws.com/doc/{MODEL.api_version}/"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="{space}">'
        f"<requestId>goldimg-test</requestId>{inner}</{action}Response>"
    ).encode()


def _write(shape: Any, value: Any) -> str:
    if shape.type_name == "structure":
        unknown = set(value) - set(shape.members)
        assert not unknown, f"{shape.name} has no {unknown}"
        parts = []
        for name, member in shape.members.items():
            if value.get(name) is not None:
                tag = member.serialization.get("name", name)
                parts.append(f"<{tag}>{_write(member, value[name])}</{tag}>")
        return "".join(parts)
    if shape.type_name == "list":
        tag = shape.member.serialization.get("name", "item")
        return "".join(f"<{tag}>{_write(shape.member, item)}</{tag}>" for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return escape(str(value))
