"""Errors written for the person who has to mend them.

Every error carries its exit code and one or more problems; a command collects all problems
of a file before it raises, so that one run shows them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: Where it stands: ``spec.yaml:14:5`` for a spec, a file's path for logs, or the option.
        message: What is wrong and what was expected, in one sentence, lower-case start.
        hint: What to do about it; empty when the message says it.
        source: The source line, with a caret line below it; empty outside a text file.
    """

    where: str
    message: str
    hint: str = ""
    source: str = ""


class ReadoutError(Exception):
    """An error that ends a command: its problems and its exit code (70: a fault of readout's own)."""

    code = 70

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.where}: {p.message}" for p in self.problems))


class SpecError(ReadoutError):
    """The command line or the spec is wrong (exit code 2)."""

    code = 2


class NotAvailableYet(SpecError):
    """The contract names it, this version does not have it (exit code 2)."""

    def __init__(self, where: str, what: str, hint: str = "") -> None:
        super().__init__([Problem(where, f"{what}: not available yet", hint)])


class LogError(ReadoutError):
    """The logs cannot support the readout (exit code 3)."""

    code = 3
