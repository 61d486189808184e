"""Sources: every form of a text, what it names, and the form that a lock keeps."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cvs.store.errors import InputError
from cvs.versions import sources
from cvs.versions.sources import S3, Civitai, Gcs, HuggingFace, Local, Source, Stored, Web

HUB = "https://huggingface.co"
SITE = "https://civitai.com"
WHERE = "versions/x.json: models[0].source"
CANARY = "canary0123456789"


def file(path: str, revision: str = "main", kind: str = "models", repo: str = "o/r") -> HuggingFace:
    """A file of a repository."""
    return HuggingFace(kind, repo, revision, path, False)


def folder(path: str, revision: str = "main", repo: str = "o/r") -> HuggingFace:
    """A folder of a repository."""
    return HuggingFace("models", repo, revision, path, True)


@pytest.mark.parametrize(
    ("text", "source", "public"),
    [
        ("hf://o/r/a/b.st", file("a/b.st"), "o/r/resolve/main/a/b.st"),
        ("hf://o/r@v1/a b#c.st", file("a b#c.st", "v1"), "o/r/resolve/v1/a%20b%23c.st"),
        ("hf://o/r/b.st?rev=v1", file("b.st", "v1"), "o/r/resolve/v1/b.st"),
        ("hf://o/r/b.st?revision=v1", file("b.st", "v1"), "o/r/resolve/v1/b.st"),
        ("hf://o/r@v1/b.st?rev=v1", file("b.st", "v1"), "o/r/resolve/v1/b.st"),
        ("huggingface://o/r/b@c.st", file("b@c.st"), "o/r/resolve/main/b%40c.st"),
        ("hf://o/r@refs/pr/1/b.st", file("b.st", "refs/pr/1"), "o/r/resolve/refs%2Fpr%2F1/b.st"),
        ("hf://o/r@x%2Fy/b.st", file("b.st", "x/y"), "o/r/resolve/x%2Fy/b.st"),
        ("hf://models/o/r/b.st", file("b.st"), "o/r/resolve/main/b.st"),
        (
            "hf://datasets/o/r/b.st",
            file("b.st", kind="datasets"),
            "datasets/o/r/resolve/main/b.st",
        ),
        ("HF://o/r/b%20.st", file("b%20.st"), "o/r/resolve/main/b%2520.st"),
        ("hf://o/r", folder(""), "o/r/tree/main"),
        ("hf://o/r@v1", folder("", "v1"), "o/r/tree/v1"),
        ("hf://o/r/unet/", folder("unet"), "o/r/tree/main/unet"),
        (f"{HUB}/o/r/resolve/main/b.st?download=true", file("b.st"), "o/r/resolve/main/b.st"),
        (f"{HUB}/o/r/blob/v1/a%20b.st", file("a b.st", "v1"), "o/r/resolve/v1/a%20b.st"),
        (f"{HUB}/o/r/raw/main/b.json", file("b.json"), "o/r/resolve/main/b.json"),
        (f"{HUB}/o/r/blob/refs%2Fpr%2F2/b", file("b", "refs/pr/2"), "o/r/resolve/refs%2Fpr%2F2/b"),
        (f"{HUB}/o/r/blob/refs/pr/2/b", file("b", "refs/pr/2"), "o/r/resolve/refs%2Fpr%2F2/b"),
        (f"{HUB}/gpt2/resolve/main/b.st", file("b.st", repo="gpt2"), "gpt2/resolve/main/b.st"),
        (f"{HUB}/o/r/tree/main/unet", folder("unet"), "o/r/tree/main/unet"),
        (f"{HUB}/o/r/tree/main", folder(""), "o/r/tree/main"),
        (f"{HUB}/o/r", folder(""), "o/r/tree/main"),
        ("https://hf.co/o/r/resolve/main/b.st", file("b.st"), "o/r/resolve/main/b.st"),
    ],
)
def test_huggingface(text: str, source: HuggingFace, public: str) -> None:
    """Paths of `hf://` are literal, those of pages are of a URL, as with the site's own client."""
    found = sources.parse(text, WHERE)

    assert found == source
    assert found.public == f"{HUB}/{public}"
    assert sources.parse(found.public, WHERE) == source


_FILE = (("type", "Model"), ("format", "SafeTensor"), ("size", "pruned"), ("fp", "fp16"))


@pytest.mark.parametrize(
    ("text", "source", "public"),
    [
        ("civitai://models/12", Civitai("12", ""), "/models/12"),
        ("civitai://api/download/models/34", Civitai("", "34"), "/api/download/models/34"),
        ("civitai:34", Civitai("", "34"), "/api/download/models/34"),
        (f"{SITE}/models/12", Civitai("12", ""), "/models/12"),
        (f"{SITE}/models/12/a-slug", Civitai("12", ""), "/models/12"),
        (f"{SITE}/models/12?modelVersionId=34", Civitai("", "34"), "/api/download/models/34"),
        (
            f"{SITE}/api/download/models/34?fp=fp16&size=pruned&format=SafeTensor&type=Model",
            Civitai("", "34", _FILE),
            "/api/download/models/34?type=Model&format=SafeTensor&size=pruned&fp=fp16",
        ),
        (
            "https://www.civitai.com/api/download/models/34?type=Text%20Encoder",
            Civitai("", "34", (("type", "Text Encoder"),)),
            "/api/download/models/34?type=Text+Encoder",
        ),
        (
            "civitai:34?fileId=5",
            Civitai("", "34", (("fileId", "5"),)),
            "/api/download/models/34?fileId=5",
        ),
    ],
)
def test_civitai(text: str, source: Civitai, public: str) -> None:
    """A version, or a model whose newest one is meant."""
    found = sources.parse(text, WHERE)

    assert found == source
    assert found.public == f"{SITE}{public}"
    assert sources.parse(found.public, WHERE) == source


_ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "source", "public"),
    [
        ("gs://b-1/a/b c.st", Gcs("b-1", "a/b c.st"), "gs://b-1/a/b c.st"),
        ("gs://bkt/a.st#12", Gcs("bkt", "a.st", "12"), "gs://bkt/a.st#12"),
        (f"gs://bkt/a#{2**63 - 1}", Gcs("bkt", "a", str(2**63 - 1)), f"gs://bkt/a#{2**63 - 1}"),
        ("gs://bkt/a#b?c.st", Gcs("bkt", "a#b?c.st"), "gs://bkt/a#b?c.st"),
        ("gs://bkt/a/", Gcs("bkt", "a/"), "gs://bkt/a/"),
        ("gs://bkt", Gcs("bkt", ""), "gs://bkt/"),
        ("s3://bkt/a/b.st", S3("bkt", "a/b.st"), "s3://bkt/a/b.st"),
        (
            "s3://bkt/a%20b.st?versionId=x1&region=eu-1&endpoint=https://h:9/x",
            S3("bkt", "a%20b.st", "https://h:9/x", "eu-1", "x1"),
            "s3://bkt/a%20b.st?endpoint=https://h:9/x&region=eu-1&versionId=x1",
        ),
        ("s3://bkt/a/", S3("bkt", "a/"), "s3://bkt/a/"),
        (f"cvs:{_ID}", Stored(_ID), f"cvs:{_ID}"),
        ("cvs:0123ABCD", Stored("0123abcd"), "cvs:0123abcd"),
        ("https://h/a.st", Web("https://h/a.st"), "https://h/a.st"),
        (f"{HUB}/docs", Web(f"{HUB}/docs"), f"{HUB}/docs"),
        (f"{SITE}/images/1", Web(f"{SITE}/images/1"), f"{SITE}/images/1"),
        (f"{HUB}:8443/o/r", Web(f"{HUB}:8443/o/r"), f"{HUB}:8443/o/r"),
        ("/a/b.st", Local("/a/b.st"), ""),
        ("file:///a/b%20.st", Local("/a/b .st"), ""),
    ],
)
def test_other_sources(text: str, source: Source, public: str) -> None:
    """Buckets, entries, any server, and files of this machine, which have no public form."""
    found = sources.parse(text, WHERE)

    assert found == source
    assert found.public == public
    if public:
        assert sources.parse(public, WHERE) == source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf:o/r/x", "the source is not like hf://org/repo@revision/path"),
        ("hf://o", "'o/' is not a repository like 'org/repo'"),
        ("hf://models", "the source is not like hf://org/repo@revision/path"),
        ("hf://o/r@/x", "the source names two revisions, or an empty one"),
        ("hf://o/r@a/x?rev=b", "the source names two revisions, or an empty one"),
        ("hf://o/r/x?rev=a&revision=b", "the source names two revisions"),
        ("hf://o/r/x?rev=a&rev=b", "the source has the parameter rev twice"),
        ("hf://o/r/x?ref=a", "the source has the parameter 'ref', which is not known"),
        ("hf://o/r/../x", "'../x' cannot be a path of a repository"),
        ("hf://o/r/a//x", "'a//x' cannot be a path of a repository"),
        ("hf://o/r@../x", "'..' cannot be a revision"),
        ("hf://o/../x", "'o/..' is not a repository like 'org/repo'"),
        (f"{HUB}/o/r/resolve/main", "the address names no file of the repository"),
        (f"{HUB}/o/r/resolve/main/%2e%2e/x", "'../x' cannot be a path of a repository"),
        (f"{HUB}/o/r/resolve/main/a%0ab", r"'a\nb' cannot be a path of a repository"),
        ("civitai:", "the source is not like civitai:<version>, civitai://models/<model> or"),
        ("civitai:models/1", "the source is not like civitai:<version>"),
        ("civitai://models/x", "'x' is not the number of a model"),
        ("civitai://models/1/a/b", "the source is not like civitai:<version>"),
        (f"{SITE}/models/1?modelVersionId=x", "'x' is not the number of a version"),
        (f"{SITE}/models/1?type=a%0ab", "the parameters of the source cannot be used"),
        ("gs:bkt/x", "the source is not like gs://bucket/name"),
        ("gs:///x", "'' cannot be a bucket"),
        ("gs://user:pass@bkt/x", "'user:pass@bkt' cannot be a bucket"),
        ("gs://bkt/a/#12", "a folder has no generation"),
        ("s3://bkt/a?part=1", "the source has the parameter 'part', which is not known"),
        ("s3://bkt/a/?versionId=1", "a folder has no version"),
        ("s3://bkt/a?endpoint=h", "the endpoint is not like https://s3.example.org"),
        ("s3://bkt/a?endpoint=https://u:p@h", "the endpoint is not like https://s3.example.org"),
        ("cvs:0123", "'0123' is not the id of an entry"),
        ("cvs:xyz", "'xyz' is not the id of an entry"),
        ("https://h:99999/x", "the https: URL is not one"),
        ("a\tb", r"'a\tb' cannot be used"),
    ],
)
def test_sources_that_are_none(text: str, message: str) -> None:
    """Each is refused in one sentence that begins with its place."""
    with pytest.raises(InputError) as caught:
        sources.parse(text, WHERE)

    assert caught.value.message.startswith(f"{WHERE}: ")
    assert caught.value.message.removeprefix(f"{WHERE}: ").startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{CANARY}@h/a?token={CANARY}&x=1#{CANARY}",
        f"https://me:{CANARY}@huggingface.co/o/r/resolve/main/a?token={CANARY}",
        f"{SITE}/api/download/models/1?token={CANARY}&type=Model",
        f"civitai:1?token={CANARY}",
    ],
)
def test_secrets_are_not_public(text: str) -> None:
    """What a source says of who asks is used, and stands in no lock."""
    found = sources.parse(text, WHERE)

    assert CANARY in repr(tuple(found))
    assert CANARY not in found.public


_texts = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
_pieces = st.lists(
    st.sampled_from(
        [
            *("hf:", "huggingface:", "civitai:", "gs:", "s3:", "cvs:", "https:", "file:"),
            *("//", "/", "@", "?", "#", "&", "=", ":", "%2F", "%00", "..", "[", "]", "a", "1"),
            *("huggingface.co", "civitai.com", "datasets", "models", "resolve", "tree", "main"),
            *("api/download/models", "refs/pr/1", "rev", "endpoint", "versionId", "token"),
            *("https://huggingface.co/o/r/", "hf://o/r", "s3://bkt/", "gs://bkt/"),
            *("https://civitai.com/models/1", "modelVersionId=", "0123abcd"),
        ]
    ),
    max_size=8,
).map("".join)


@given(_texts | _pieces)
@example("https://[")
@example("s3://bkt/1?endpoint=https:[")
def test_any_text(text: str) -> None:
    """Whatever the text: a source whose public form is a source of the same, or one sentence."""
    try:
        found = sources.parse(text, WHERE)
    except InputError as error:
        assert error.message.startswith(WHERE)
        return
    if isinstance(found, Local):
        assert found.public == ""
        return
    again = sources.parse(found.public, WHERE)
    assert again.public == found.public
    if isinstance(found, HuggingFace | Civitai):
        found = found._replace(token="")
    if not isinstance(found, Web):
        assert again == found
