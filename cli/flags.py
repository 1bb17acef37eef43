"""The options commands share, each declared once with its help."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Form(StrEnum):
    """How a result is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Name = Annotated[
    str | None, typer.Argument(show_default=False, help="The application's name; default: the namespace's.")
]
Namespaces = Annotated[
    list[str] | None,
    typer.Option("-n", "--namespace", metavar="NS", help="Its namespace; may be repeated."),
]
Selector = Annotated[
    str,
    typer.Option("-l", "--selector", metavar="LABELS", help="Label selector, as kubectl's."),
]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="KIND[/NAME]", help="Only these; shell patterns."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="KIND[/NAME]", help="Not these; shell patterns."),
]
File = Annotated[
    str | None,
    typer.Option("-f", "--file", metavar="FILE", help="YAML documents; - is standard input."),
]
BlockName = Annotated[
    str | None,
    typer.Option("--block", metavar="NAME", help="Documents saved as Prefect blocks."),
]

VaultUrl = Annotated[
    str | None,
    typer.Option(
        "--vault",
        metavar="URL",
        help="s3://bucket/prefix; default: the document's, then REFLOAT_VAULT.",
    ),
]
PasswordFile = Annotated[
    str | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="Holds the vault password; default: the document's source, then the variable REFLOAT_PASSWORD.",
    ),
]
PasswordSecret = Annotated[
    str | None,
    typer.Option(
        "--password-secret",
        metavar="NS/NAME[/KEY]",
        help="The Kubernetes Secret that holds it.",
    ),
]
Wrapper = Annotated[
    str | None,
    typer.Option(
        "--wrapper",
        metavar="URL",
        help="Opens the vault: file:///KEY, passphrase://env/NAME, passphrase://file/PATH; default: REFLOAT_WRAPPER.",
    ),
]

Kubeconfig = Annotated[
    str | None,
    typer.Option("--kubeconfig", metavar="FILE", help="Default: KUBECONFIG, as for kubectl."),
]
Context = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="A context of it; default: the current."),
]

Accept = Annotated[
    str | None,
    typer.Option("--accept", metavar="LABEL", help="Lowest consistency label that is sealed, e.g. crash-consistent."),
]
Rpo = Annotated[str | None, typer.Option("--rpo", metavar="DURATION", help="Tolerated loss of data, e.g. 1h.")]
Rto = Annotated[str | None, typer.Option("--rto", metavar="DURATION", help="Tolerated downtime, e.g. 15m.")]

Explain = Annotated[
    bool, typer.Option("--explain", help="Show what proves the label of one point: the latest, or --point, or --at.")
]
Point = Annotated[
    str | None, typer.Option("--point", metavar="ID", help="A recovery point's id, or how it begins; default: latest.")
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="The newest point not later, e.g. 2026-11-24T09:41 (UTC) or '2h ago'."),
]
ToKubeconfig = Annotated[
    str | None,
    typer.Option("--to-kubeconfig", metavar="FILE", help="The target cluster's."),
]
ToContext = Annotated[
    str | None,
    typer.Option("--to-context", metavar="NAME", help="The target cluster's context."),
]
ToNamespace = Annotated[
    str | None, typer.Option("--to-namespace", metavar="NS", help="For an application of one namespace: its new name.")
]
MapNamespace = Annotated[
    list[str] | None, typer.Option("--map-namespace", metavar="OLD=NEW", help="New name of one; may be repeated.")
]
StorageClasses = Annotated[
    list[str] | None, typer.Option("--storage-class", metavar="OLD=NEW", help="Another class; may be repeated.")
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")]
Output = Annotated[Form, typer.Option("-o", "--output", help="How to write the result.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say every step, and an error's whole cause.")]
