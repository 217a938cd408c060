"""Certificates for tests: an authority, and nodes' certificates by it."""

import datetime
import ipaddress
import socket

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from acr_ray.cli.private_head import LOOPBACK


def issue(folder, name, authority=None):
    """A key, and a certificate by an authority, or by itself: a new authority."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    day, subject = datetime.timedelta(days=1), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, issuer = authority or (key, subject)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - day).not_valid_after(now + day)
    builder = builder.add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    if authority:
        names = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(a)) for a in (LOOPBACK, _address()))]
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    kind, form = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    (folder / f"{name}.key").write_bytes(key.private_bytes(form, kind, serialization.NoEncryption()))
    return key, subject


def _address():
    """This machine's address as Ray finds it, whatever ``--node-ip-address`` says."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))  # of a datagram socket: nothing is sent
            return probe.getsockname()[0]
        except OSError:
            return LOOPBACK


def tls_environment(folder):
    """What Ray is told of a node's certificate in this folder, made with its authority."""
    issue(folder, "node", issue(folder, "authority"))
    files = {"SERVER_CERT": "node.crt", "SERVER_KEY": "node.key", "CA_CERT": "authority.crt"}
    return {"RAY_USE_TLS": "1"} | {f"RAY_TLS_{name}": str(folder / file) for name, file in files.items()}
