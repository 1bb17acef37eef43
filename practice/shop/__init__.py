"""The shop: a small application to practise on, that any cluster would accept too.

A web Deployment, and a database StatefulSet with two volumes that must be cut together: tables (SQLite, in WAL mode) on
one, a journal of every order on the other. Orders are placed and counted through exec.
"""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any

import yaml

NAMESPACE = "shop"
POD, CONTAINER = "db-0", "db"
WORKLOADS = (("StatefulSet.apps", "db"), ("Deployment.apps", "web"))
PROGRAM = "/program/store.py"
_FOLDER = Path(__file__).parent


def manifests(namespace: str = NAMESPACE) -> list[dict[str, Any]]:
    """The shop's objects, the namespace first; its password is new each time."""
    password = base64.b64encode(secrets.token_urlsafe(18).encode()).decode()
    text = (_FOLDER / "shop.yaml").read_text().replace("@NAMESPACE@", namespace).replace("@PASSWORD@", password)
    objects: list[dict[str, Any]] = [each for each in yaml.safe_load_all(text) if each]
    for obj in objects:
        if obj["kind"] == "ConfigMap" and obj["metadata"]["name"] == "db-program":
            obj["data"] = {"store.py": (_FOLDER / "store.py").read_text()}
        if obj["kind"] != "Namespace":
            obj["metadata"]["namespace"] = namespace
    return objects


def place(count: int) -> tuple[str, ...]:
    """The command that places so many orders, to be run in the database's container."""
    return ("python3", PROGRAM, "place", str(count))


COUNT = ("python3", PROGRAM, "count")
"""The command that prints ``{"orders", "journal", "files", "digest"}``; it fails when tables and journal disagree."""
