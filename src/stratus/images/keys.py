"""Whose key is this? Keys are made, loaded, named by fingerprint, and used to sign and verify.

A key's identity is the SHA-256 of its SubjectPublicKeyInfo (RFC 5280, section 4.1), in DER.
Accepted: Ed25519 (RFC 8032), ECDSA on P-256 with SHA-256 (signature in DER), and RSA of 3072
bits or more with PSS and SHA-256.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from stratus.images.refusal import invalid
from stratus.model.problem import Refused, refuse

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey

RSA_BITS_MIN: Final = 3072
RSA_BITS_MAX: Final = 8192
KEY_FILE_BYTES_MAX: Final = 64 * 1024
PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)


def key_file_make(path: Path) -> PrivateKey:
    """Make a new Ed25519 key in a file that only its owner can read; never replaces a file."""
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(part)  # fails when the name is taken, unlike a rename
    except FileExistsError as error:
        raise refuse(
            "conflict", f"There is a key already: {path}.", remedy="Use it, or name another file."
        ) from error
    finally:
        part.unlink()
    _directory_settle(path.parent)
    return key


def key_file_load(path: Path) -> PrivateKey:
    """Return the key in this file; refuses one that others can read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _key_unusable(path, error.strerror or str(error)) from error
    with os.fdopen(handle, "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise refuse(
                "configuration",
                f"Others can read the key {path}.",
                remedy=f"Take the right away: chmod 600 {path}",
            )
        pem = file.read(KEY_FILE_BYTES_MAX)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _key_unusable(path, "it is no unencrypted PEM key") from error
    if not isinstance(key, PrivateKey):
        raise _key_unusable(path, "its kind of key is not accepted")
    key_require(key.public_key())
    return key


def public_key_load(pem: str) -> PublicKey:
    """Return the public key in this PEM text, if it is of an accepted kind."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _key_unaccepted("it is no public key in PEM") from error
    if not isinstance(key, PublicKey):
        raise _key_unaccepted("its kind of key is not accepted")
    key_require(key)
    return key


def public_key_pem(key: PublicKey) -> str:
    """Return the public key as PEM text."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def fingerprint_of(key: PublicKey) -> str:
    """Return the key's identity: `sha256:` and 64 lower-case hex digits."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def key_require(key: PublicKey) -> None:
    """Refuse keys that are too weak or of a curve that we do not accept."""
    match key:
        case ed25519.Ed25519PublicKey():
            return
        case ec.EllipticCurvePublicKey():
            if not isinstance(key.curve, ec.SECP256R1):
                raise _key_unaccepted(f"its curve is {key.curve.name}, not P-256")
        case rsa.RSAPublicKey():
            if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
                raise _key_unaccepted(f"it is an RSA key of {key.key_size} bits")


def signature_make(key: PrivateKey, message: bytes) -> bytes:
    """Sign these bytes in the one way that belongs to the kind of key."""
    match key:
        case ed25519.Ed25519PrivateKey():
            return key.sign(message)
        case ec.EllipticCurvePrivateKey():
            return key.sign(message, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPrivateKey():
            return key.sign(message, PSS, hashes.SHA256())


def signature_verify(key: PublicKey, signature: bytes, message: bytes) -> None:
    """Return if the key signed these bytes, and refuse otherwise."""
    key_require(key)
    try:
        match key:
            case ed25519.Ed25519PublicKey():
                key.verify(signature, message)
            case ec.EllipticCurvePublicKey():
                key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(signature, message, PSS, hashes.SHA256())
    except InvalidSignature as error:
        raise invalid("The signature does not fit the document.") from error


def _directory_settle(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _key_unusable(path: Path, why: str) -> Refused:
    return refuse(
        "configuration",
        f"The key {path} cannot be used: {why}.",
        remedy="Name another key file, or make a new key.",
    )


def _key_unaccepted(why: str) -> Refused:
    return invalid(
        f"The key cannot be used: {why}.",
        remedy=f"Use Ed25519, ECDSA P-256, or RSA of {RSA_BITS_MIN} bits or more.",
    )
