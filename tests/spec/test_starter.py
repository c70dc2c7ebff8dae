"""Every starter is valid as it stands and fits its design."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from readout.errors import SpecError
from readout.spec import Spec
from readout.spec.designs import KINDS
from readout.spec.starter import STARTERS, starter

Loader = Callable[..., Spec]


def test_there_is_one_for_every_design() -> None:
    assert tuple(KINDS) == STARTERS


@pytest.mark.parametrize("kind", STARTERS)
def test_it_loads(loaded: Loader, kind: str) -> None:
    spec = loaded(starter(kind))
    assert spec.design.kind == kind
    (path,) = spec.logs.path
    assert path.startswith("sample://router_")
    assert [m.role for m in spec.metrics.values()].count("primary") == 1
    assert any(m.role == "guardrail" for m in spec.metrics.values())


@pytest.mark.parametrize("kind", STARTERS)
def test_it_tells_what_to_replace(kind: str) -> None:
    text = starter(kind)
    assert text.count("<-") >= 10
    assert max(map(len, text.splitlines())) <= 120


def test_an_unknown_design_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(SpecError, match="did you mean 'switchback'"):
        starter("switchbak")
