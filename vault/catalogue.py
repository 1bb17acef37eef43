"""The catalogue: the recovery points of a vault, read from the vault alone, and sealing, which adds one to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from refloat.errors import ConfigError, IntegrityError
from refloat.recovery_point import DESCRIPTOR, OBJECTS, CataloguedPoint, RecoveryPoint, VolumeCopy
from vault.blobs import BlobKind
from vault.disk import apply_facts
from vault.files import FileKind, stored
from vault.instants import to_nanoseconds
from vault.nodes import DIR, FILE, Node, encode_node, encode_tree, walk
from vault.reading import BlobReader
from vault.repository import REQUESTS, OpenVault
from vault.snapshots import SnapshotRecord, decode_descriptor, decode_record, encode_record
from vault.writing import BlobWriter

_FILE_MODE, _FOLDER_MODE = 0o600, 0o700
_Folder = dict[str, "bytes | VolumeCopy | _Folder"]
"""A folder to be sealed: a file's bytes, a volume's copy, or a folder, by name."""


def points(vault: OpenVault, application: str | None = None) -> list[CataloguedPoint]:
    """Every sealed recovery point, of one application or of all, oldest cut first.

    Costs two small reads per point: the descriptor's place stands in its snapshot record. Where that no longer holds
    (after a prune, a copy, ``restic tag --set``), the index is read. Snapshots of other programs are no points.

    Raises:
        IntegrityError: A snapshot record or a descriptor is damaged; the message names it.
    """
    found = records(vault, application)
    unique = {each.point.id: each for each in reversed(found)}  # a seal that was repeated, or a tag half changed
    return sorted(unique.values(), key=lambda each: (each.point.cut_at, each.point.sealed_at, each.point.id))


def records(vault: OpenVault, application: str | None = None) -> list[CataloguedPoint]:
    """Like ``points``, but every snapshot record: a point exists as long as one of its records does.

    Raises:
        IntegrityError: A snapshot record or a descriptor is damaged; the message names it.
    """
    sizes = {name: found.size_bytes for name, found in stored(vault.store, FileKind.SNAPSHOT)}
    decoded = [
        record
        for name, text in vault.read_many(FileKind.SNAPSHOT, sizes, sizes)
        if text is not None and (record := decode_record(name, text)) is not None
        if application is None or record.application in (None, application)
    ]
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="read descriptors") as pool:
        found = [each for each in pool.map(lambda record: _read_point(vault, record), decoded) if each is not None]
    return [each for each in found if application is None or each.point.application == application]


def _read_point(vault: OpenVault, record: SnapshotRecord) -> CataloguedPoint | None:
    """The point behind a record; None when its tree holds no descriptor."""
    text = _shortcut(vault, record)
    if text is None:
        text = _descriptor(vault, record)
    if text is None:
        return None
    point = decode_descriptor(text, f"{DESCRIPTOR} of snapshots/{record.name}")
    return CataloguedPoint(point=point, snapshot_id=record.name, tree=record.tree.hex())


def _shortcut(vault: OpenVault, record: SnapshotRecord) -> bytes | None:
    if record.descriptor is not None:
        pack, blob = record.descriptor
        with suppress(IntegrityError):  # moved since; if it is damaged, the way through the index will say so
            return vault.files.codec.open(vault.files.read_part(pack, blob.offset, blob.sealed_bytes), blob)
    return None


def _descriptor(vault: OpenVault, record: SnapshotRecord) -> bytes | None:
    reader = BlobReader(vault.files, vault.index())
    try:
        for node in reader.tree(record.tree):
            if node.name == DESCRIPTOR.encode() and node.type == FILE:
                return b"".join(reader.read(BlobKind.DATA, blob_id) for blob_id in node.blobs)
    except IntegrityError as wrong:
        raise IntegrityError(f"the recovery point of snapshots/{record.name} cannot be read: {wrong}") from wrong
    return None


def manifests(vault: OpenVault, point: CataloguedPoint) -> dict[str, bytes]:
    """The point's manifests, by path inside the point.

    Raises:
        IntegrityError: One is missing or damaged.
    """
    reader = BlobReader(vault.files, vault.index(is_fresh=True))
    try:
        found = dict(_files_below(reader, bytes.fromhex(point.tree)))
    except IntegrityError as wrong:
        raise IntegrityError(f"the manifests of point {point.point.id} cannot be read: {wrong}") from wrong
    missing = sorted({copy.path for copy in point.point.objects} - set(found))
    if missing:
        raise IntegrityError(f"point {point.point.id} lacks {len(missing)} of its manifests, the first is {missing[0]}")
    return found


def _files_below(reader: BlobReader, root: bytes) -> Iterator[tuple[str, bytes]]:
    top = next((node for node in reader.tree(root) if node.name == OBJECTS.encode() and node.type == DIR), None)
    if top is None:
        return
    files = [(path, node) for path, node in walk(top.subtree, reader.tree) if node.type == FILE]
    places = [reader.place(BlobKind.DATA, blob_id) for _, node in files for blob_id in node.blobs]
    bodies = {blob.id: plain for part in reader.ranges(places) for blob, plain in reader.read_range(part)}
    for path, node in files:
        yield f"{OBJECTS}/" + b"/".join(path).decode(), b"".join(bodies[blob_id] for blob_id in node.blobs)


def seal(vault: OpenVault, point: RecoveryPoint, manifests: Mapping[str, bytes]) -> CataloguedPoint:
    """Make a point exist: a root tree over descriptor, manifests and the movers' trees, then one snapshot record.

    Whatever happens before the record is stored leaves nothing but blobs that no point refers to.

    Raises:
        IntegrityError: The vault does not hold a tree that a mover said it stored; or a manifest is missing.
        ConfigError: A path cannot stand in a tree.
    """
    index = vault.index(is_fresh=True)
    for volume in point.volumes:
        if not index.has(BlobKind.TREE, bytes.fromhex(volume.tree)):
            raise IntegrityError(
                f"the vault does not hold the copy of {volume.namespace}/{volume.claim} (tree {volume.tree}); "
                "nothing was sealed",
                guidance="Protect again. If this repeats, look for somebody who prunes the vault during runs.",
            )
    missing = sorted({copy.path for copy in point.objects} - set(manifests))
    if missing:
        raise IntegrityError(f"there is no manifest for {missing[0]}; nothing was sealed")
    descriptor = point.model_dump_json(indent=2).encode()
    writer = BlobWriter(vault.files, index)
    try:
        tree = _save(writer, _layout(point, manifests, descriptor), to_nanoseconds(point.sealed_at))
        descriptor_id = writer.save(BlobKind.DATA, descriptor)
        writer.finish()
    finally:
        writer.close()
    place = BlobReader(vault.files, index).place(BlobKind.DATA, descriptor_id)
    files = len(manifests) + 1 + sum(volume.files for volume in point.volumes)
    data_bytes = len(descriptor) + sum(map(len, manifests.values())) + point.data_bytes
    record = encode_record(point, tree, place, files=files, data_bytes=data_bytes)
    name = vault.files.write(FileKind.SNAPSHOT, record)
    written = RecoveryPoint.model_validate_json(descriptor)  # text has fewer digits of a duration than memory
    return CataloguedPoint(point=written, snapshot_id=name, tree=tree.hex())


def _layout(point: RecoveryPoint, manifests: Mapping[str, bytes], descriptor: bytes) -> _Folder:
    root: _Folder = {}
    for path, body in {**manifests, DESCRIPTOR: descriptor}.items():
        _put(root, path, body)
    for volume in point.volumes:
        _put(root, volume.path, volume)
    return root


def _put(root: _Folder, path: str, leaf: bytes | VolumeCopy) -> None:
    *above, name = path.split("/")
    if not all(part not in ("", ".", "..") and "\0" not in part for part in (*above, name)):
        raise ConfigError(f"{path!r} cannot be a path inside a recovery point")
    here = root
    for part in above:
        below = here.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{path!r} lies below a file of the recovery point")
        here = below
    if name in here:
        raise ConfigError(f"{path!r} is twice in the recovery point")
    here[name] = leaf


def _save(writer: BlobWriter, folder: _Folder, at: int) -> bytes:
    """Store a folder's tree, and before it everything in it; its id."""
    nodes = []
    for name in sorted(folder, key=str.encode):
        leaf = folder[name]
        node = Node(name.encode(), DIR, _FOLDER_MODE, uid=0, gid=0, mtime=at, ctime=at)
        if isinstance(leaf, VolumeCopy):
            node.subtree = bytes.fromhex(leaf.tree)
            if leaf.top is not None:
                apply_facts(node, leaf.top)
        elif isinstance(leaf, dict):
            node.subtree = _save(writer, leaf, at)
        else:
            node.type, node.mode, node.size, node.links = FILE, _FILE_MODE, len(leaf), 1
            node.content = writer.save(BlobKind.DATA, leaf) if leaf else b""
        nodes.append(encode_node(node))
    return writer.save(BlobKind.TREE, encode_tree(nodes))
