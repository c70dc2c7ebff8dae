"""From a file and ``--set`` overrides to a `Spec`, or to everything that is wrong with them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, tzinfo
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter, ValidationError

from readout.errors import Problem, SpecError
from readout.spec import cross
from readout.spec.designs import KINDS
from readout.spec.fields import parse_name
from readout.spec.methods import METHODS, Estimator, parse_estimator
from readout.spec.metrics import Metric, MetricKeys
from readout.spec.model import Sections, Spec
from readout.spec.overrides import override
from readout.spec.problems import (
    Finding,
    KeyPath,
    Source,
    from_pydantic,
    keys,
    show,
    sort_problems,
    suggest,
    unknown_key,
)
from readout.spec.yaml import Document, YamlSyntaxError, parse
from readout.text import visible

MAX_BYTES = 1 << 20
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # as YAML counts lines


def load(path: Path | str, overrides: Sequence[str] = (), *, experiment: bool = True) -> Spec:
    """Read, override and validate a spec.

    Args:
        path: The YAML file; relative paths in it start from its folder.
        overrides: ``dotted.key=value`` each; the value is YAML, list items are addressed by index.
        experiment: Whether design and metrics are needed. Where not, one that is left out is stood in for by a test of
            two arms on a metric that nobody reads.

    Returns:
        The spec, frozen, with every default filled in.

    Raises:
        SpecError: Everything that is wrong, in the order in which it stands in the file.
    """
    content = _read(path)
    text = _decode(content, str(path))
    lines = tuple(_LINE_END.split(text))
    try:
        document = parse(text)
    except YamlSyntaxError as error:
        source = Source(str(path), lines)
        at = (error.line, error.column) if error.line else None
        raise SpecError(sort_problems(source, [Finding((), error.message, at=at)])) from None
    if document.data is None and not document.findings:
        raise SpecError(
            [Problem(visible(str(path)), "the file is empty; expected a spec", "`readout init` writes one")]
        )
    marks, overridden, wrong = override(document, overrides)
    source = Source(str(path), lines, marks, overridden)
    if not experiment and isinstance(document.data, dict):
        document = replace(document, data={**_NO_EXPERIMENT, **document.data})
    parts, findings = _sections(document, Path(path))
    problems = sort_problems(source, [*document.findings, *findings]) + wrong
    if problems:
        raise SpecError(problems)
    return Spec(**parts, path=Path(path), base=Path(path).parent, sha256=_sha256(content, overrides), source=source)


def _read(path: Path | str) -> bytes:
    where = visible(str(path))
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        problem = Problem(where, "no such file", "`readout init` writes a spec to start from")
    except IsADirectoryError:
        problem = Problem(where, "is a directory; expected a spec file", "name the YAML file in it")
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        problem = Problem(where, f"cannot be read: {reason[:1].lower()}{reason[1:]}")
    else:
        if len(content) <= MAX_BYTES:
            return content
        problem = Problem(where, "is larger than 1 MiB; expected a spec", "it names the logs, it does not hold them")
    raise SpecError([problem])


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        lines = content[: error.start].decode("utf-8-sig", "replace").split("\n")
        message = f"byte 0x{content[error.start]:02X} is not UTF-8"
        where = f"{visible(name)}:{len(lines)}:{len(lines[-1]) + 1}"
        raise SpecError([Problem(where, message, "save the file as UTF-8 text")]) from None


def _sha256(content: bytes, overrides: Sequence[str]) -> str:
    digest = hashlib.sha256(content)
    for given in overrides:
        digest.update(b"\0--set " + given.encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _sections(document: Document, path: Path) -> tuple[dict[str, Any], list[Finding]]:
    """The sections that are right, and everything wrong with the others and between them."""
    data = document.data
    if not isinstance(data, dict):
        return {}, [Finding((), f"expected a mapping with logs, design and metrics, got {show(data)}")]
    known = keys(Sections)
    findings = [unknown_key((key,), list(known)) for key in data if key not in known]
    findings += [Finding((key,), "needed, and not there", _NEEDED[key]) for key in _NEEDED if key not in data]
    zone = _zone(data)
    parts: dict[str, Any] = {}
    for key in known:
        if key in data and key not in ("design", "estimator", "metrics"):
            _validate(key, data[key], (key,), zone, parts, findings)
    _default_name(data, path, parts, findings)
    _design(data, zone, parts, findings)
    _estimator(data, parts, findings)
    _metrics(document, zone, parts, findings)
    return parts, findings + list(cross.check(data, parts))


_NEEDED = {
    "logs": "where the decision logs are, such as logs: {path: logs/*.parquet}",
    "design": "what was randomized, such as design: {kind: switchback, …}",
    "metrics": "at least one metric with role: primary",
}


_NO_EXPERIMENT: Mapping[str, Any] = {
    "design": {"kind": "user_rct", "control": "control", "treatment": "treatment", "shared_state": False},
    "metrics": {"requests": {"expr": "1", "role": "primary", "better": "higher"}},
}


@cache
def _type(name: str) -> Any:
    """The type of a top-level key, of a design (``design.did``) or of one metric (``metrics.*``)."""
    if name == "metrics.*":
        return MetricKeys
    return KINDS[name.removeprefix("design.")] if name.startswith("design.") else keys(Sections)[name]


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_type(name))


def _validate(
    name: str, value: Any, path: KeyPath, zone: tzinfo, parts: dict[str, Any], findings: list[Finding]
) -> None:
    """Put what ``value`` becomes into ``parts`` under its own key, or what is wrong with it into ``findings``."""
    try:
        parts[str(path[-1])] = _adapter(name).validate_python(value, context={"timezone": zone})
    except ValidationError as error:
        findings.extend(from_pydantic(error, value, _type(name), path))


def _zone(data: Mapping[str, Any]) -> tzinfo:
    """The zone of times without one; a wrong name is found when the logs section is read."""
    logs = data.get("logs")
    name = logs.get("timezone") if isinstance(logs, dict) else None
    try:
        return ZoneInfo(name) if isinstance(name, str) and name else UTC
    except (ValueError, OSError, KeyError):
        return UTC


def _default_name(data: Mapping[str, Any], path: Path, parts: dict[str, Any], findings: list[Finding]) -> None:
    if "name" in data:
        return
    try:
        parts["name"] = parse_name(path.stem)
    except ValueError:
        findings.append(Finding(("name",), "needed: the file's own name cannot be the name of a folder"))


def _design(data: Mapping[str, Any], zone: tzinfo, parts: dict[str, Any], findings: list[Finding]) -> None:
    given = data.get("design")
    if "design" not in data:
        return
    if not isinstance(given, dict):
        findings.append(Finding(("design",), f"expected a mapping of keys, got {show(given)}"))
        return
    kind = given.get("kind")
    if "kind" not in given:
        findings.append(Finding(("design", "kind"), "needed, and not there", f"one of {', '.join(KINDS)}"))
    elif not isinstance(kind, str) or kind not in KINDS:
        message = f"expected one of {', '.join(KINDS)}, got {show(kind)}{suggest(kind, KINDS)}"
        findings.append(Finding(("design", "kind"), message))
    else:
        before = len(findings)
        _validate(f"design.{kind}", given, ("design",), zone, parts, findings)
        findings[before:] = [_name_owner(f, kind) for f in findings[before:]]


def _name_owner(finding: Finding, kind: str) -> Finding:
    """Of a key that another design has, say which."""
    key = finding.path[-1]
    owners = [other for other, section in KINDS.items() if key in keys(section)]
    if len(finding.path) != 2 or not finding.on_key or not owners:
        return finding
    message = f"unknown key for {kind}; it belongs to {', '.join(owners)}"
    return Finding(finding.path, message, finding.hint, on_key=True)


def _estimator(data: Mapping[str, Any], parts: dict[str, Any], findings: list[Finding]) -> None:
    design, given = data.get("design"), data.get("estimator", "auto")
    kind = design.get("kind") if isinstance(design, dict) else None
    if not isinstance(given, str | dict):
        findings.append(Finding(("estimator",), f"expected auto, a name, or {{method: NAME, …}}, got {show(given)}"))
    elif isinstance(kind, str) and kind in METHODS:
        estimator, wrong = parse_estimator(given, kind)
        findings.extend(wrong)
        if isinstance(estimator, Estimator):
            parts["estimator"] = estimator


def _metrics(document: Document, zone: tzinfo, parts: dict[str, Any], findings: list[Finding]) -> None:
    given = document.data.get("metrics")
    if "metrics" not in document.data:
        return
    if not isinstance(given, dict) or not given:
        what = "an empty mapping" if given == {} else show(given)
        findings.append(Finding(("metrics",), f"expected at least one metric by name, got {what}"))
        return
    metrics: dict[str, Metric] = {}
    for name, raw in given.items():
        path: KeyPath = ("metrics", name)
        if not str(name).strip():
            findings.append(Finding(path, "a metric needs a name", on_key=True))
        read: dict[str, Any] = {}
        _validate("metrics.*", _keep_signs(document, path, raw), path, zone, read, findings)
        if name in read:
            findings.extend(cross.metric(path, read[name]))
            keys_of = cross.unsigned(read[name])
            metrics[name] = Metric(name=name, **{key: getattr(keys_of, key) for key in keys(MetricKeys)})
    parts["metrics"] = metrics


def _keep_signs(document: Document, path: KeyPath, raw: Any) -> Any:
    """``+25`` is 25 to YAML; as an effect its sign is to be compared with ``better``."""
    if not isinstance(raw, dict):
        return raw
    signed = {
        key: document.marks[(*path, key)].text
        for key in ("minimum_effect", "margin")
        if isinstance(raw.get(key), int | float)
        and (*path, key) in document.marks
        and document.marks[(*path, key)].text.startswith("+")
    }
    return {**raw, **signed}
