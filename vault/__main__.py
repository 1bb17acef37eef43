"""`python -m vault`: a mover, as its Job runs it.

Usage: python -m vault --spec FILE_OR_JSON --path FOLDER_OR_DEVICE [--result FILE]. The exit code is 0 or that of
the error.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from pathlib import Path

from refloat.errors import RefloatError
from vault.opening import begin_opening


def main() -> int:
    """Read the command line and be a mover."""
    parser = argparse.ArgumentParser(prog="python -m vault", description="Moves one volume into or out of a vault.")
    parser.add_argument("--spec", required=True, help="a MoverSpec: a file, or its JSON text")
    parser.add_argument("--path", required=True, type=Path, help="where the volume is: its folder, or its device")
    parser.add_argument("--result", type=Path, default=Path("/dev/termination-log"), help="where the result goes")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    opening = begin_opening(given.spec, os.environ)
    from vault.mover import serve  # while the vault is being opened

    gc.freeze()  # nothing of what was loaded will ever be garbage
    gc.enable()
    try:
        return serve(given.spec, given.path, given.result, os.environ, opening)
    except RefloatError as error:  # the result could not be left
        sys.stderr.write(f"{error.code}: {error.message}\n")
        return error.exit_code


if __name__ == "__main__":
    gc.disable()  # until all is loaded
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking every object apart takes 25 ms
