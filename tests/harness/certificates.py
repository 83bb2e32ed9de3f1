"""An authority of our own, and what it signs."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_authority(at: Path, address: str = "127.0.0.1") -> Path:
    """Fill the directory with ca.crt, ca.key and, for the address, server.crt, server.key; returns it."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=at, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    openssl(*new, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    (at / "names").write_text(f"subjectAltName=IP:{address}")
    sign = ("x509", "-req", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    openssl(*sign, "-in", "server.csr", "-out", "server.crt", "-extfile", "names")
    return at
