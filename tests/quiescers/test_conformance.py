"""Every recipe by the conformance suite: on real servers under writes, on real fsfreeze, and on strict state machines.

The short form leaves out, for some engines, checks of what is the holder's own; REFLOAT_TORTURE=1 runs all on all.
"""

from __future__ import annotations

import pytest

from refloat.conformance.quiescer import Finding
from tests.quiescers.conftest import checks_for
from tests.quiescers.engines import SERVERS
from tests.quiescers.frozen_group import HIERARCHIES
from tests.quiescers.machines import MACHINES

CASES = [(name, check.__name__) for name in (*SERVERS, *MACHINES, *HIERARCHIES) for check in checks_for(name)]


@pytest.mark.parametrize(("name", "check"), CASES)
@pytest.mark.timeout(240)
def test_keeps_the_contract(findings: dict[str, dict[str, Finding] | str], name: str, check: str) -> None:
    """As the suite says; what it measured is shown with -s."""
    found = findings[name]
    if isinstance(found, str):
        pytest.skip(found)
    assert found[check].is_kept, found[check].wrong
    if found[check].seconds is not None:
        print(f"{name}: {check}: {found[check].seconds:.2f} s")
