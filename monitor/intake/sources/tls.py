"""Why brokers and this client do not agree on TLS, found by a handshake of our own.

Neither client library says it: kafka-python tries again in silence, librdkafka tells a wrong host name and an unknown
authority by the same words.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from monitor.intake.sources.base import SourceError, SourceUnavailable

_UNTRUSTED = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's codes of a chain that ends at no authority that is trusted."""
_NO_REVOCATIONS = frozenset({3, 12})
_OTHER_NAME = frozenset({62, 64})
_ALERTS = ("bad certificate", "unknown ca", "certificate required", "certificate unknown", "certificate expired")
_ALERT_SECONDS = 0.5


def context_of(options: Mapping[str, Any]) -> ssl.SSLContext | None:
    """TLS as `options` (by kafka-python's names) want it, None without TLS. SourceError when a file is of no use."""
    if options.get("security_protocol") not in ("SSL", "SASL_SSL"):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = bool(options.get("ssl_check_hostname", True))
    name = "ssl_cafile"
    try:
        if options.get("ssl_cafile"):
            context.load_verify_locations(options["ssl_cafile"])
        else:
            context.load_default_certs()
        name = "ssl_crlfile"
        if options.get("ssl_crlfile"):
            context.load_verify_locations(options["ssl_crlfile"])
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        name = "ssl_certfile"
        if options.get("ssl_certfile"):
            # without a password OpenSSL would ask for it on the terminal
            password = options.get("ssl_password") or ""
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), password)
        name = "ssl_ciphers"
        if options.get("ssl_ciphers"):
            context.set_ciphers(options["ssl_ciphers"])
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SourceError(f"kafka.security.{name}: {_unusable(name, error, options)}") from error
    return context


class Fault(NamedTuple):
    """What is wrong, with its mend. `passing`: a broker that starts or goes down may look the same."""

    sentence: str
    passing: bool = False


@contextmanager
def explained(servers: Iterable[str], options: Mapping[str, Any], timeout: float) -> Iterator[None]:
    """Turns SourceUnavailable into a SourceError where TLS is the reason and waiting does not mend it."""
    try:
        yield
    except SourceUnavailable as error:
        fault = tls_fault(servers, options, timeout)
        if fault is None:
            raise
        if fault.passing:
            raise SourceUnavailable(f"{error}; {fault.sentence}") from error
        raise SourceError(fault.sentence) from error


def tls_fault(servers: Iterable[str], options: Mapping[str, Any], timeout: float) -> Fault | None:
    """The first server's reason why TLS with it does not work; None if none is found.

    A server that cannot be reached gives no reason. `timeout` is seconds for each server.
    """
    try:
        context = context_of(options)
    except SourceError as error:
        return Fault(str(error))
    if context is None:
        return None
    return next((fault for server in servers if (fault := _fault(server, context, timeout))), None)


def _fault(server: str, context: ssl.SSLContext, timeout: float) -> Fault | None:
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    try:
        raw = socket.create_connection((host, int(port)), timeout)
    except (OSError, ValueError):
        return None
    with raw:
        try:
            with context.wrap_socket(raw, server_hostname=host) as channel:
                return _alert(server, channel)
        except ssl.SSLCertVerificationError as error:
            return _distrust(server, host, error)
        except ssl.SSLError as error:
            if error.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"):
                return _no_tls(server)
            return _refused(server, error)
        except ConnectionError:
            return _no_tls(server)
        except OSError:  # too slow an answer
            return None


def _alert(server: str, channel: ssl.SSLSocket) -> Fault | None:
    """With TLS 1.3 a server refuses the client's certificate after the handshake; one that does not is silent."""
    channel.settimeout(_ALERT_SECONDS)
    try:
        channel.recv(1)
    except ssl.SSLError as error:
        return _refused(server, error)
    except OSError:
        return None
    return None


def _distrust(server: str, host: str, error: ssl.SSLCertVerificationError) -> Fault:
    code, text = error.verify_code, error.verify_message
    if code in _OTHER_NAME:
        what = f"the broker's certificate does not name {host}"
        mend = "Use a name that it has in kafka.bootstrap_servers, or set kafka.security.ssl_check_hostname: false"
    elif code in _UNTRUSTED:
        what = f"no trusted authority has signed the broker's certificate ({text})"
        mend = "Name its authority in kafka.security.ssl_cafile"
    else:
        what = f"the broker's certificate is not valid ({text})"
        mend = "Renew kafka.security.ssl_crlfile" if code in _NO_REVOCATIONS else "Renew the certificate"
    return Fault(f"{server}: {what}. {mend}")


def _refused(server: str, error: ssl.SSLError) -> Fault | None:
    reason = (error.reason or "no reason").replace("_", " ").lower()
    if any(alert in reason for alert in _ALERTS):
        what = f"the broker refuses this client's certificate, or misses one ({reason})"
        return Fault(f"{server}: {what}. Check kafka.security.ssl_certfile and ssl_keyfile")
    return Fault(f"{server}: TLS cannot be agreed on ({reason}). Check kafka.security", passing=True)


def _no_tls(server: str) -> Fault:
    sentence = f"{server} does not speak TLS. Check kafka.security.security_protocol and the port"
    return Fault(sentence, passing=True)


def _unusable(name: str, error: Exception, options: Mapping[str, Any]) -> str:
    reason = getattr(error, "reason", None) or error.__class__.__name__
    if isinstance(error, FileNotFoundError | PermissionError):
        return f"the file cannot be read ({error.strerror}). Check path and permissions"
    if name == "ssl_ciphers":
        return "OpenSSL knows none of these ciphers. Correct or remove the setting"
    if name == "ssl_certfile":
        return (
            f"certificate and key cannot be used ({reason}). Check that they are PEM, belong together, and ssl_password"
        )
    return f"{options[name]} holds nothing usable ({reason}). It must be PEM"
