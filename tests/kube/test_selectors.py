"""Selectors: our own evaluation is the API server's, and text that is none is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kube.cluster import Cluster
from kube.selectors import matches, parse
from refloat.errors import ConfigError
from tests.contract.given import config_map, names

LABELS = [{}, {"app": "pg"}, {"app": "web"}, {"app": "pg", "tier": "db"}, {"tier": "db"}, {"app": ""}]
SELECTORS = [
    "", "app", "!app", "app=pg", "app==pg", "app!=pg", "app in (pg, web)", "app notin (pg)", "app=pg,tier", "app=",
    "app=pg,!tier", "app in (pg),tier notin (db)", "tier!=db,app!=web",
]  # fmt: skip


def test_we_choose_what_the_server_chooses(cluster: Cluster, namespace: str) -> None:
    """Every selector over every set of labels, absent keys included."""
    for number, labels in enumerate(LABELS):
        cluster.create(config_map(namespace, f"set-{number}", labels | {"of": "the-test"}))
    for text in SELECTORS:
        chosen = names(cluster.list("ConfigMap", namespace, labels=f"{text},of=the-test" if text else "of=the-test"))
        assert chosen == [f"set-{n}" for n, labels in enumerate(LABELS) if parse(text)(labels)], text


@pytest.mark.parametrize("text", ["=x", "app=a b", "app in pg", "app in (pg", "a=b=c", "app,,tier", "app notin"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    """A selector that is misread protects the wrong things."""
    with pytest.raises(ConfigError, match="no label selector"):
        parse(text)


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ({"operator": "In", "values": ["pg"]}, [1, 3]),
        ({"operator": "NotIn", "values": ["pg"]}, [0, 2, 4, 5]),
        ({"operator": "Exists"}, [1, 2, 3, 5]),
        ({"operator": "DoesNotExist"}, [0, 4]),
        ({"operator": "Unheard"}, []),
    ],
)
def test_structured_expressions(expression: dict[str, Any], chosen: list[int]) -> None:
    """meta/v1 LabelSelector; an operator nobody knows chooses nothing."""
    selector = {"matchExpressions": [{"key": "app", **expression}]}
    assert [n for n, labels in enumerate(LABELS) if matches(selector, labels)] == chosen
    assert not matches(selector | {"matchLabels": {"no": "such"}}, LABELS[1])


WORDS = st.text("abc", min_size=1, max_size=2)


@settings(deadline=None)
@given(labels=st.dictionaries(WORDS, WORDS, max_size=3), key=WORDS, value=WORDS)
def test_a_requirement_and_its_negation_share_the_world(labels: dict[str, str], key: str, value: str) -> None:
    """Of each pair exactly one holds."""
    for yes, no in (("{k}={v}", "{k}!={v}"), ("{k} in ({v})", "{k} notin ({v})"), ("{k}", "!{k}")):
        assert parse(yes.format(k=key, v=value))(labels) is not parse(no.format(k=key, v=value))(labels)
