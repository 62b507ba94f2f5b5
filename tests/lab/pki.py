"""A certificate authority of the lab's own, and what it signs."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = timedelta(days=3650)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Pair:
    """A key and its certificate, both PEM."""

    key: bytes
    certificate: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """NAME.crt and NAME.key below `folder`; the key for its owner only."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.touch(mode=0o600)
        key.write_bytes(self.key)
        return certificate, key


class Authority:
    """Signs certificates for servers and users."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        key = serialization.load_pem_private_key(pair.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(pair.certificate)

    @classmethod
    def new(cls, name: str, *, rsa_keys: bool = False) -> Authority:
        """An authority with a new key. RSA keys only for programs that cannot read others: making them takes long."""
        key = _new_key(rsa_keys)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(True, False, True, False, False, True, True, False, False)
        builder = _builder(subject, subject, key.public_key()).add_extension(x509.BasicConstraints(True, None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(name)]), critical=False)
        certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
        return cls(_pair(key, certificate))

    @classmethod
    def read(cls, folder: Path, name: str) -> Authority:
        """The authority that was written there with `Pair.write`."""
        return cls(Pair((folder / f"{name}.key").read_bytes(), (folder / f"{name}.crt").read_bytes()))

    def server(self, name: str, hosts: Sequence[str]) -> Pair:
        """For a server that clients reach under these names and addresses."""
        return self._sign(name, (), hosts, ExtendedKeyUsageOID.SERVER_AUTH)

    def user(self, name: str, groups: Sequence[str] = ()) -> Pair:
        """For a client: Kubernetes reads the user from the common name, the groups from the organizations."""
        return self._sign(name, groups, (), ExtendedKeyUsageOID.CLIENT_AUTH)

    def _sign(self, name: str, groups: Sequence[str], hosts: Sequence[str], purpose: x509.ObjectIdentifier) -> Pair:
        key = _new_key(isinstance(self._key, rsa.RSAPrivateKey))
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, self._certificate.subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        return _pair(key, builder.sign(self._key, hashes.SHA256()))


def signing_key() -> tuple[bytes, bytes]:
    """A private key and its public half, PEM: what signs service account tokens."""
    key = _new_key(False)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _pem(key), public


def _new_key(rsa_key: bool) -> Key:
    return rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now - timedelta(hours=1), now + VALID)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pair(key: Key, certificate: x509.Certificate) -> Pair:
    return Pair(_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def _pem(key: Key) -> bytes:
    # PKCS #1 for RSA keys, SEC 1 for others: what every program reads.
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
