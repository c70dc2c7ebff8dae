"""Keeping help and completion light.

Typer builds a pydantic adapter for every parameter that it meets, also for one that was not given, and during
completion, where nothing is run; importing pydantic then doubles the time that a shell waits for its suggestions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def leave_unset_values_alone(command: Any) -> Any:
    """``command`` and its subcommands, with no conversion of what is not given or only completed."""
    parameters_of = command.get_params

    def get_params(context: Any) -> list[Any]:
        parameters: list[Any] = parameters_of(context)  # the help option joins them only here
        for parameter in parameters:
            if "process_value" not in vars(parameter):
                parameter.process_value = _process_given(parameter, parameter.process_value)
        return parameters

    command.get_params = get_params
    for subcommand in getattr(command, "commands", {}).values():
        leave_unset_values_alone(subcommand)
    return command


def _process_given(parameter: Any, process: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def process_value(context: Any, value: Any) -> Any:
        if context.resilient_parsing:
            return value
        if value is None and not parameter.required and not parameter.multiple:
            return parameter.callback(context, parameter, None) if parameter.callback else None
        return process(context, value)

    return process_value
