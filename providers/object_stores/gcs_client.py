"""Who asks Google Cloud Storage: credentials, the client made of them, and what is handed on to a mover."""

from __future__ import annotations

import json
import os
import warnings
from typing import Any

import google.auth
import google.oauth2.credentials
from google.auth import identity_pool
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage

from providers.object_stores.gcs import Settings
from providers.object_stores.sessions import session

SCOPES = ("https://www.googleapis.com/auth/devstorage.full_control",)
"""Retention needs the full scope; what the account may do is its roles' matter."""
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
"""Else, beside every first call, the client asks for the bucket's metadata: a right that refloat does not need."""
_PORTABLE = ("service_account", "authorized_user")
"""Credentials that need nothing of the machine they are used on."""


def connect(settings: Settings) -> tuple[storage.Client, Any]:
    """The client and its credentials; no request is sent unless the machine's own identity must be found.

    Raises:
        ValueError: The credentials' JSON lacks something.
        google.auth.exceptions.GoogleAuthError: There are no credentials.
    """
    words = {"REQUESTS_CA_BUNDLE": settings.ca_file} if settings.ca_file else {}
    asking = Request(session(words))
    found = credentials(settings, asking)
    authorized = AuthorizedSession(found, auth_request=asking)
    authorized.adapters = session(words).adapters
    options = {"api_endpoint": settings.endpoint} if settings.endpoint else None
    client = storage.Client(project="refloat", credentials=found, _http=authorized, client_options=options)
    return client, found


def credentials(settings: Settings, asking: Request) -> Any:
    """The credentials named, or those of this machine (a user's, a pod's or an instance's identity)."""
    if settings.credentials is not None:
        if settings.credentials["type"] == "external_account" and "file" in _source(settings):
            # the loader below would ask another service for the project's name
            return identity_pool.Credentials.from_info(settings.credentials, scopes=SCOPES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of documents from strangers; this one is the operator's
            return google.auth.load_credentials_from_dict(settings.credentials, scopes=SCOPES, request=asking)[0]
    if settings.token is not None:
        return google.oauth2.credentials.Credentials(settings.token)
    if settings.is_emulator:
        return AnonymousCredentials()
    return google.auth.default(scopes=SCOPES, request=asking)[0]


def _source(settings: Settings) -> dict[str, Any]:
    return dict((settings.credentials or {}).get("credential_source") or {})


def handed_on(settings: Settings, found: Any) -> dict[str, str]:
    """The variables for a mover elsewhere: a key's JSON where there is one, else a token, good for at most an hour.

    Raises:
        google.auth.exceptions.GoogleAuthError: No token can be had.
    """
    words = settings.words()
    if settings.credentials is not None and settings.credentials["type"] in _PORTABLE:
        return {**words, "GOOGLE_CREDENTIALS": json.dumps(settings.credentials)}
    if isinstance(found, AnonymousCredentials):
        return words
    if settings.token is None:
        found.refresh(Request(session({"REQUESTS_CA_BUNDLE": settings.ca_file or ""})))
    return {**words, "GOOGLE_ACCESS_TOKEN": str(found.token)}
