"""Quiescer of Elasticsearch: a refusal, since copies of its files cannot be restored, and its own snapshots can.

https://www.elastic.co/docs/deploy-manage/tools/snapshot-and-restore
(a copy of the data folders of running nodes is no backup: it may be corrupt, or lose data silently).
"""

from __future__ import annotations

from providers.quiescers.refused import RefusedSearchEngine


def open_quiescer() -> RefusedSearchEngine:
    """The entry point's factory."""
    return RefusedSearchEngine("elasticsearch", "Elasticsearch")
