"""HTTPS for image drivers: whom to trust, proxies, redirects, bounded documents, and failures in one line."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3 import exceptions

from pylxc import __version__
from pylxc.drivers.image.base import Cancelled
from pylxc.drivers.image.guarded import GuardedPoolManager
from pylxc.drivers.image.proxies import Setting, proxy_for
from pylxc.drivers.image.reach import follow
from pylxc.errors import BadRequest, Internal, NotFound

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10
SILENT_SECONDS = 30
"""How long a server may send nothing."""
DOCUMENT_BYTES = 128 << 20
"""Of an index or another document, at most."""
MAX_REDIRECTS = 10
_ANSWER_BYTES = 1 << 20
"""Of an answer to what was sent, at most."""
TRIES = 4
"""How often in a row something may break before it is given up."""
_PAUSE_SECONDS = 0.5
"""After the first break; doubled with each further one."""
_ENOUGH_BYTES = 16 << 20
"""What has to come between two breaks for the second not to count as one in a row."""
_WATCH_SECONDS = 0.2
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (429, 500, 502, 503, 504)

Response = urllib3.BaseHTTPResponse


class Broken(Internal):
    """It failed in a way that may be over in a moment."""


class Unreachable(Broken):
    """There is no connection at all."""


@dataclass(frozen=True, slots=True)
class Document:
    """A small answer. `content` is None where the server says that it is what the caller has already."""

    content: bytes | None
    validators: dict[str, str]


class Web:
    """Requests to one place; a context manager, for one thread.

    Args:
        setting: gives the proxy settings.
        check_cancelled: is called often; what it raises ends whatever goes on.
        certificate: PEM of the one certificate that the server may have; "" trusts what the system trusts.
    """

    def __init__(self, setting: Setting, check_cancelled: Cancelled, certificate: str = "") -> None:
        self.check_cancelled = check_cancelled
        self._setting = setting
        self._pinned = pinned(certificate) if certificate else ""
        self._managers: dict[str, urllib3.PoolManager] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for manager in self._managers.values():
            manager.clear()

    def document(self, url: str, validators: Mapping[str, str] | None = None) -> Document:
        """Return what is at `url`, tried again when it breaks; not when there is no connection, as people wait for it.

        Args:
            url: https.
            validators: of the copy that the caller has.

        Raises:
            NotFound: there is nothing.
            PylxcError: it cannot be had, or is too large.
        """
        known = validators or {}
        headers = {"Accept-Encoding": "gzip"}
        headers |= {"If-None-Match": known["ETag"]} if "ETag" in known else {}
        headers |= {"If-Modified-Since": known["Last-Modified"]} if "Last-Modified" in known else {}
        tries = Tries(self.check_cancelled)
        while True:
            try:
                return self._document(url, headers)
            except Unreachable:
                raise
            except Broken as error:
                tries.pause(error)

    def _document(self, url: str, headers: Mapping[str, str]) -> Document:
        with self.open("GET", url, headers) as response:
            found = {name: response.headers[name] for name in ("ETag", "Last-Modified") if name in response.headers}
            if response.status == 304:
                return Document(None, found)
            content = bytearray()
            for chunk in body(response, url, decode=True):
                content += chunk
                if len(content) > DOCUMENT_BYTES:
                    raise Internal(f"{_host(url)} sends more than can be right for {_name(url)!r}")
            return Document(bytes(content), found)

    @contextmanager
    def open(self, method: str, url: str, headers: Mapping[str, str]) -> Iterator[Response]:
        """Send a request and give its answer, redirects followed: status 200, 206 or 304.

        While the block runs, a cancel breaks the connection off.

        Raises:
            BadRequest: an URL other than https, here or in a redirect.
            NotFound: there is nothing at `url`.
            Broken: the server cannot be reached or is overloaded.
            Internal: it cannot be trusted, sends on without end, or answers something else.
        """
        response = self._follow(method, url, headers)
        try:
            with self._watched(response):
                yield response
            self.check_cancelled()
        except BaseException:
            response.close()
            raise
        if method == "HEAD" or response.status == 304:
            response.drain_conn()  # of nothing
        if response.closed:
            response.release_conn()
        else:
            response.close()  # what nobody has asked for may have no end

    def send(self, url: str, headers: Mapping[str, str], chunks: Iterable[bytes]) -> Document:
        """POST a body of the length that `headers` tell, once and to this URL only; return the answer.

        While it goes on, a cancel ends it with the next chunk.

        Raises:
            Internal: the server cannot be reached or trusted, or does not take it.
        """

        def timely() -> Iterator[bytes]:
            for chunk in chunks:
                self.check_cancelled()
                yield chunk

        response = self._begin("POST", url, headers, timely())
        try:
            with self._watched(response):
                content = b"".join(itertools.islice(body(response, url, chunk_bytes=_ANSWER_BYTES), 1))
        finally:
            response.close()
        if response.status not in (200, 202):
            raise Internal(f"{_host(url)} does not take it: {_told(content) or response.status}")
        return Document(content, {})

    def _follow(self, method: str, url: str, headers: Mapping[str, str]) -> Response:
        asked = url
        for _ in range(MAX_REDIRECTS + 1):
            response = self._begin(method, asked, headers, None)
            if response.status not in _REDIRECTS:
                _check_status(response, url)
                return response
            response.close()
            asked = follow(asked, response.headers.get("Location", ""))
        raise Internal(f"{_host(url)} redirects more than {MAX_REDIRECTS} times for {_name(url)!r}")

    def _begin(self, method: str, url: str, headers: Mapping[str, str], content: Iterable[bytes] | None) -> Response:
        """Send a request in a thread of its own, which a cancel leaves to itself: resolving and connecting block."""
        self.check_cancelled()
        future: Future[Response] = Future()

        def run() -> None:
            try:
                future.set_result(self._request(method, url, headers, content))
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                future.set_exception(error)

        threading.Thread(target=run, name="download-begin", daemon=True).start()
        while True:
            try:
                return future.result(_WATCH_SECONDS)
            except TimeoutError:
                if future.done():
                    continue
            try:
                self.check_cancelled()
            except BaseException:
                future.add_done_callback(_close)
                raise

    def _request(self, method: str, url: str, headers: Mapping[str, str], content: Iterable[bytes] | None) -> Response:
        check_url(url)
        with _explained(url):
            return self._manager(proxy_for(url, self._setting)).request(
                method,
                url,
                body=content,
                headers={"User-Agent": f"pylxc/{__version__}", "Accept-Encoding": "identity", **headers},
                preload_content=False,
                redirect=False,
                retries=False,
            )

    def _manager(self, proxy: str) -> urllib3.PoolManager:
        if proxy not in self._managers:
            timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=SILENT_SECONDS)
            trust: dict[str, Any] = {"ssl_context": _system_trust()}
            if self._pinned:
                trust = {"cert_reqs": "CERT_NONE", "assert_fingerprint": self._pinned}
            if proxy:
                parts = urlsplit(proxy)
                login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
                self._managers[proxy] = urllib3.ProxyManager(
                    proxy, timeout=timeout, proxy_headers=urllib3.make_headers(proxy_basic_auth=login), **trust
                )
            else:
                self._managers[proxy] = GuardedPoolManager(timeout=timeout, **trust)
        return self._managers[proxy]

    @contextmanager
    def _watched(self, response: Response) -> Iterator[None]:
        """Shut the connection down on a cancel, so that nobody waits for a server that is silent."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_WATCH_SECONDS):
                try:
                    self.check_cancelled()
                except Exception:  # noqa: BLE001 - whatever it raises, the reader raises it too
                    try:
                        response.shutdown()
                    except (OSError, RuntimeError, ValueError) as error:
                        log.debug("Failed breaking off a download: %s", error)
                    return

        watcher = threading.Thread(target=watch, name="download-watch", daemon=True)
        watcher.start()
        try:
            yield
        except Broken:
            self.check_cancelled()
            raise
        finally:
            done.set()
            watcher.join()


class Tries:
    """Counts the tries of one thing."""

    def __init__(self, check_cancelled: Cancelled) -> None:
        self._check_cancelled = check_cancelled
        self._left = TRIES
        self._seconds = _PAUSE_SECONDS
        self._came = 0

    def pause(self, error: Broken) -> None:
        """Wait for the next try after one that broke.

        Raises:
            Broken: `error`, after the last one.
        """
        self._left -= 1
        if self._left <= 0:
            raise error
        log.debug("Trying again in %.1f s: %s", self._seconds, error)
        for _ in range(round(self._seconds / _WATCH_SECONDS) + 1):
            self._check_cancelled()
            time.sleep(_WATCH_SECONDS)
        self._seconds *= 2

    def came(self, count: int) -> None:
        """Note that bytes have come through; after enough of them counting begins anew."""
        self._came += count
        if self._came >= _ENOUGH_BYTES:
            self._left, self._seconds, self._came = TRIES, _PAUSE_SECONDS, 0


def body(response: Response, url: str, *, decode: bool = False, chunk_bytes: int = 1 << 18) -> Iterator[bytes]:
    """Yield an answer's body.

    Raises:
        Broken: it ends too early, or nothing comes.
    """
    with _explained(url):
        yield from response.stream(chunk_bytes, decode_content=decode)


def check_url(url: str) -> None:
    """Refuse what is not reached over TLS.

    Raises:
        BadRequest: another scheme, or no host.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not url.isprintable() or " " in url:
        raise BadRequest(f"Images come and go by https:// URLs only, not by {url[:200]!r}")


def _told(content: bytes) -> str:
    """Return what an LXD server says of an error, in a line."""
    try:
        text = str(json.loads(content)["error"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    return "".join(c for c in text if c.isprintable())[:200]


def _close(future: Future[Response]) -> None:
    if not future.exception():
        future.result().close()


def _check_status(response: Response, url: str) -> None:
    if response.status in (200, 206, 304):
        return
    response.close()
    if response.status in (404, 410):
        raise NotFound(f"{_host(url)} has no {_name(url)!r}")
    kind = Broken if response.status in _PASSING else Internal
    raise kind(f"{_host(url)} answers {response.status} {response.reason or ''}".rstrip() + f" for {_name(url)!r}")


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except exceptions.HTTPError as error:
        raise _explain(error, url) from error


def _explain(error: exceptions.HTTPError, url: str) -> Internal:
    host = _host(url)
    if isinstance(error, exceptions.ProxyError):
        return Unreachable(f"Failed reaching {host} through the proxy: {_reason(error)}")
    if isinstance(error, exceptions.SSLError):
        return Internal(f"{host} cannot be trusted: {_reason(error)}")
    if isinstance(error, exceptions.NameResolutionError):
        return Unreachable(f"Failed reaching {host}: its name cannot be resolved")
    if isinstance(error, exceptions.NewConnectionError):
        return Unreachable(f"Failed reaching {host}: {_reason(error)}")
    if isinstance(error, exceptions.ConnectTimeoutError):
        return Unreachable(f"Failed reaching {host}: it does not answer within {CONNECT_SECONDS} s")
    if isinstance(error, exceptions.ReadTimeoutError):
        return Broken(f"{host} has sent nothing for {SILENT_SECONDS} s")
    if isinstance(error, exceptions.ProtocolError):
        return Broken(f"The connection to {host} broke off")
    return Internal(f"Failed asking {host}: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """Return what lies at the bottom of an error, in a line."""
    while nested := error.__cause__ or error.__context__:
        error = nested
    text = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error) or type(error).__name__
    return str(text).split("\n", 1)[0][:200]


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2][:100]


def _name(url: str) -> str:
    return urlsplit(url).path[-150:]


@cache
def _system_trust() -> ssl.SSLContext:
    return ssl.create_default_context()  # reading the system's certificates takes longer than a request


def pinned(certificate: str) -> str:
    """Return the fingerprint that the server of a certificate in PEM must show; raises BadRequest when it is none."""
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.strip())).hexdigest()
    except ValueError as error:
        raise BadRequest("Invalid certificate: it is no PEM") from error
