"""A volume's top folder as it is recorded: a tree lists only what is in a folder, yet the folder's owner matters too.

In a module of its own, for it is all of a recovery point's words that a mover needs, and loading the others takes long.
"""

from __future__ import annotations

from pydantic import Field

from refloat.values import Value


class FolderFacts(Value):
    """Mode, owner, time and extended attributes of a folder."""

    mode: int = Field(description="Permission bits, 0o7777.")
    uid: int
    gid: int
    mtime_ns: int = Field(description="Nanoseconds since 1970.")
    xattrs: dict[str, str] = Field(default_factory=dict, description="Extended attributes, values in base64.")
