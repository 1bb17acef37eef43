"""Step *assess*: the document's assertions, tried in the recovered pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blocks.handles import open_cluster
from blocks.redaction import redacted
from kube.asserting import assess as assess_all
from refloat.application import Assertion
from refloat.drill import AssertionResult
from refloat.target import ClusterRef
from tasks.step import note, step, warn


@step("assess")
def assess(
    assertions: Sequence[Assertion], namespaces: Mapping[str, str], cluster: ClusterRef
) -> list[AssertionResult]:
    """Try them all; a failed one is a result, and ends nothing."""
    found = [
        each.model_copy(update={"why": redacted(each.why), "said": redacted(each.said)})
        for each in assess_all(open_cluster(cluster), assertions, namespaces)
    ]
    for each in found:
        if each.passed:
            note("assess", f"{each.name}: passed")
        else:
            warn("assess", f"{each.name}: {each.why}")
    return found
