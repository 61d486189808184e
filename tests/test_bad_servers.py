"""Models from servers that misbehave: each is survived with the right bytes, or told in one clear
sentence and nothing is stored."""

import hashlib
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from badserver import NAME, WAYS, BadServer
from faults import assert_whole, leftovers

from cvs.store.entries import Store
from cvs.store.errors import CvsError
from cvs.store.volume import Volume
from cvs.versions import http, locate, models, ranges, retry, transfer
from cvs.versions.access import Access
from cvs.versions.lock import Model
from cvs.versions.spec import Model as Wanted
from cvs.versions.tokens import Token, Tokens

WHERE = "versions/x.json: models[0]"


def safetensors(size: int) -> bytes:
    """A file of one tensor."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + os.urandom(size)


#: More than one range.
DATA = safetensors(3 << 20)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would be waited between tries, which takes no time; a short patience with stalls."""
    waits: list[float] = []
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(retry, "pause", lambda seconds, stop: waits.append(seconds))
    monkeypatch.setattr(transfer, "_STALL_SECONDS", 0.4)
    monkeypatch.setattr(http, "TIMEOUTS", (5.0, 0.5))
    # Several ranges even of a small file.
    for name in ("SMALLEST", "LARGEST"):
        monkeypatch.setattr(ranges, name, 512 << 10)
    return waits


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def other() -> Iterator[BadServer]:
    """Another host."""
    with BadServer(DATA) as made:
        yield made


@pytest.fixture
def server(other: BadServer) -> Iterator[BadServer]:
    """A server."""
    with BadServer(DATA, other) as made:
        yield made


def fetch(store: Store, url: str, sha256: str | None = None, access: Access | None = None) -> Model:
    """Stores a model from an address."""
    path = f"checkpoints/{NAME}"
    wanted = Wanted(name=NAME, source=url, path=path, sha256=sha256, where=WHERE)
    model = locate.describe(store, wanted, Access(offline=True))
    return models.ensure(store, wanted, model, access or Access())


def message(store: Store, url: str, sha256: str | None = None, access: Access | None = None) -> str:
    """What is said of a model that cannot be had; nothing is stored then."""
    with pytest.raises(CvsError) as caught:
        fetch(store, url, sha256, access)
    error = caught.value
    assert error.exit_code == 2
    assert list(store.ids()) == []
    assert leftovers(store.volume) == []
    # One sentence that names the place in the spec, and the file or its address.
    text = error.message
    assert text.startswith(f"{WHERE}: ")
    assert NAME in text
    assert text.isprintable()
    assert not text.endswith(".")
    assert "?" not in text
    return text.removeprefix(f"{WHERE}: ")


# Survived

SURVIVED = (
    *("good", "chunked", "relative", "elsewhere", "signs", "slow"),
    *("no-etag", "weak-etag", "no-ranges", "ignores-ranges", "no-length"),
    *("negative-length", "garbled-length", "many-cookies"),
    *("breaks", "breaks-once", "stalls", "stalls-once", "503-twice", "429-once"),
    *("few-429", "few-503"),
)


@pytest.mark.parametrize("sha256", [None, SHA256], ids=["unknown", "known"])
@pytest.mark.parametrize("way", SURVIVED)
def test_survived(store: Store, server: BadServer, way: str, sha256: str | None) -> None:
    """The right bytes come nevertheless."""
    server.piece = 1 << 20

    model = fetch(store, server.at(way), sha256)

    assert model.sha256 == SHA256
    assert [model.entry] == list(store.ids())
    assert_whole(store)


# Told


class Told(NamedTuple):
    """What is said where nothing, and where a digest, is known of the file; {} is the address."""

    unknown: str | None
    """None where nobody could tell."""
    known: str | None = "same"
    """None where the right bytes come; "same" where the same is said."""


ANOTHER = "{} answers another range than was asked for"
DIGEST = f"{NAME} has the digest "

TOLD = {
    "wrong-content-range": Told(ANOTHER),
    "other-range": Told(ANOTHER),
    "other-total": Told("{} changed while it was fetched"),
    "other-bytes": Told(None, DIGEST),
    "no-content-range": Told(ANOTHER),
    "garbled-content-range": Told(ANOTHER),
    "unbounded-content-range": Told(ANOTHER),
    "endless-range": Told(ANOTHER),
    "multipart": Told(ANOTHER),
    "206": Told(ANOTHER),
    "416": Told("{} answered 416"),
    "announces-more": Told("{} broke off, 5 times in a row"),
    "announces-less": Told(f"{NAME} is cut: it has ", DIGEST),
    "enormous-length": Told("{} broke off, 5 times in a row"),
    "two-lengths": Told("{} contradicts itself in its answer"),
    "endless": Told(f"{NAME} has a header that is not one of safetensors", DIGEST),
    "empty": Told(f"{NAME} is empty", DIGEST),
    "no-content": Told("{} answered 204"),
    "breaks-at-once": Told("{} broke off, 5 times in a row"),
    "breaks-no-etag": Told("{} broke off and cannot be resumed", None),
    "breaks-no-ranges": Told("{} broke off, 5 times in a row"),
    "stalls-at-once": Told("{} did not answer in time, 5 times in a row"),
    "drips": Told("{} broke off, 5 times in a row"),
    "resets": Told("{} cannot be reached, 5 times in a row"),
    "chunked-cut": Told("{} broke off, 5 times in a row"),
    "changes": Told("{} changed while it was fetched"),
    "changes-always": Told("{} changed while it was fetched"),
    "changes-silently": Told(None, DIGEST),
    "other-file": Told(None, DIGEST),
    "page": Told("{} gives a web page instead of the file"),
    "page-as-file": Told(f"{NAME} is a web page and no model", DIGEST),
    "error-as-file": Told(f"{NAME} is a JSON document and no model", DIGEST),
    "pointer": Told(f"{NAME} is a pointer of Git LFS and no model", DIGEST),
    "gzip": Told("{} gives the file compressed, which was not asked for"),
    "304": Told("{} answered 304"),
    "no-http": Told("{} cannot be reached, 5 times in a row"),
    "no-status": Told("{} cannot be reached, 5 times in a row"),
    "many-headers": Told("{} cannot be reached, 5 times in a row"),
    "long-header": Told("{} cannot be reached, 5 times in a row"),
    "continues": Told("{} cannot be reached, 5 times in a row"),
    "401": Told("{} was refused (answer 401)"),
    "403": Told("{} was refused (answer 403)"),
    "signed": Told("{} was refused (answer 403)"),
    "token": Told("{} was refused (answer 401)"),
    "404": Told("{} does not exist (answer 404)"),
    "410": Told("{} does not exist (answer 410)"),
    "451": Told("{} answered 451"),
    "500": Told("{} answered 500, 5 times in a row"),
    "503": Told("{} answered 503, 5 times in a row"),
    "429": Told("{} answered 429, 5 times in a row"),
    "429-for-ever": Told("{} answered 429, 5 times in a row"),
    "429-someday": Told("{} answered 429, 5 times in a row"),
    "loop": Told("{} leads to no file"),
    "to-file": Told("{} leads to no file"),
    "to-nothing": Told("{} answered 302"),
    "to-no-address": Told("{} is not an address that can be fetched"),
    "to-no-host": Told("{} does not exist (answer 404)"),
    "to-script": Told("{} leads to no file"),
    "to-no-port": Told("{} is not an address that can be fetched"),
}


@pytest.mark.parametrize("way", [way for way, told in TOLD.items() if told.unknown])
def test_told(store: Store, server: BadServer, way: str) -> None:
    """Where nothing is known of the file."""
    expected = TOLD[way].unknown
    assert expected is not None

    assert message(store, server.at(way)).startswith(expected.format(server.at(way)))


@pytest.mark.parametrize("way", list(TOLD))
def test_told_of_a_digest(store: Store, server: BadServer, way: str) -> None:
    """Where its digest is known: all that is no error is the right file."""
    expected = TOLD[way].unknown if TOLD[way].known == "same" else TOLD[way].known
    if expected is None:
        assert fetch(store, server.at(way), SHA256).sha256 == SHA256
        return

    text = message(store, server.at(way), SHA256)

    assert text.startswith(expected.format(server.at(way)))
    if expected == DIGEST:
        assert text.endswith(f"expected is {SHA256}: nothing was kept")


#: What ends in one way or another, by chance.
EITHER = ("sizes", "resets-midway", "changes-without-etag")


@pytest.mark.parametrize("way", EITHER)
def test_either(store: Store, server: BadServer, way: str) -> None:
    """The right bytes, or an error."""
    try:
        model = fetch(store, server.at(way), SHA256)
    except CvsError as error:
        assert error.message.startswith(WHERE)
        assert list(store.ids()) == []
    else:
        assert model.sha256 == SHA256
        assert_whole(store)


def test_all_ways_are_tried() -> None:
    """None is forgotten, and they are many."""
    assert set(SURVIVED) | set(TOLD) | set(EITHER) == set(WAYS)
    assert len(TOLD) >= 30


# What else must hold


def test_a_failure_is_gone_on_with(store: Store, server: BadServer) -> None:
    """What came before an error is not fetched again when the server is well."""
    server.piece = 1 << 20
    message(store, server.at("signed"), SHA256)
    before = sum(one.sent for one in server.requests)
    assert before > 0

    # The digest says what is wanted, so another address will do.
    model = fetch(store, server.at("good"), SHA256)

    assert model.sha256 == SHA256
    asked = [one.range for one in server.asked("good")]
    assert None not in asked
    assert all(asked and one[0] > 0 for one in asked if one)


def test_a_redirect_that_expires(store: Store, server: BadServer) -> None:
    """The origin is asked anew, and not for each range."""
    server.few = 2

    fetch(store, server.at("signs"))

    assert len({one.path for one in server.asked("signed")}) >= 2
    refused = sum(one.status == 403 for one in server.asked("signed"))
    assert len(server.asked("signs")) <= refused + 1


def test_a_server_that_wants_few_connections(store: Store, server: BadServer) -> None:
    """It gets no more than it serves, once it has said so."""
    server.few = 1

    fetch(store, server.at("few-429"))

    refused = sum(one.status == 429 for one in server.asked("few-429"))
    assert refused <= 8


def test_what_a_server_wants_waited(store: Store, server: BadServer, patience: list[float]) -> None:
    """Retry-After is heard, within reason."""
    message(store, server.at("429-for-ever"))
    assert max(patience) <= retry.LONGEST_WAIT
    fetch(store, server.at("429-once"))
    assert patience[-1] == 1.0


# Tokens


def with_token(server: BadServer) -> Access:
    """What has the token of a server."""
    return Access(tokens=Tokens([Token(server.host, server.token, "CANARY")]))


def everything(store: Store) -> bytes:
    """All names and bytes on the volume."""
    found = []
    for folder, folders, files in os.walk(store.volume.root):
        found += [os.fsencode(name) for name in (*folders, *files)]
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    found.append(file.read())
    return b"\n".join(found)


def test_a_token_goes_to_its_host(store: Store, server: BadServer) -> None:
    """It is what opens the file, and is nowhere afterwards."""
    server.token = "canary-5f3a"
    model = fetch(store, server.at("token"), access=with_token(server))

    assert model.sha256 == SHA256
    assert b"canary" not in everything(store)
    assert "canary" not in repr(model) + repr(with_token(server))


def test_a_wrong_token_is_not_shown(store: Store, server: BadServer) -> None:
    """The message names it by what it is called."""
    access = with_token(server)
    server.token = "another"
    with pytest.raises(CvsError) as caught:
        fetch(store, server.at("token"), access=access)

    assert "answer 403" in caught.value.message
    assert "CANARY" in caught.value.message + str(caught.value.hint)
    assert "secret" not in caught.value.message + str(caught.value.hint)


@pytest.mark.parametrize("user", ["", "me:canary-5f3a@"])
def test_no_secret_goes_elsewhere(
    store: Store, server: BadServer, other: BadServer, user: str
) -> None:
    """Neither token, password nor cookie follows a redirect to another host."""
    server.token = "canary-5f3a"
    url = server.at("elsewhere").replace("://", f"://{user}")

    model = fetch(store, url, access=with_token(server))

    assert model.sha256 == SHA256
    assert all("authorization" in one.headers for one in server.requests)
    assert other.requests
    for one in other.requests:
        assert "canary" not in one.path + repr(one.headers)
        assert not one.headers.keys() & {"authorization", "cookie", "referer"}
    assert b"canary" not in everything(store)
    assert "canary" not in repr(model)


def test_a_secret_in_an_address_is_not_shown(store: Store, server: BadServer) -> None:
    """Not the password, nor a signature in the query."""
    url = server.at("404").replace("://", "://me:canary-5f3a@") + "?token=canary-5f3a"
    text = message(store, url)

    assert "canary" not in text
    assert b"canary" not in everything(store)
