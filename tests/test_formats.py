"""The format of a model file: told from its first bytes, and what is cut or no model is refused."""

import os
from pathlib import Path
from typing import Any

import modelmaker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvs.store.errors import CvsError, InputError, IntegrityError, SourceError
from cvs.versions import formats
from cvs.versions.formats import Format, NotModel

BITS = {"F4": 4, "F6_E2M3": 6, "BOOL": 8, "F8_E4M3": 8, "BF16": 16, "F32": 32, "I64": 64}


def look(tmp_path: Path, data: bytes, name: str, *, allow_pickle: bool = True) -> Format:
    """Checks a file with these bytes."""
    path = tmp_path / "file"
    path.write_bytes(data)
    return formats.check(str(path), name, allow_pickle=allow_pickle)


@st.composite
def headers(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """The items of a header, in any order, and the bytes of all tensors."""
    end = 0
    items: list[tuple[str, Any]] = []
    for name in draw(st.lists(st.text(max_size=8), max_size=6, unique=True)):
        if name == "__metadata__":
            continue
        dtype = draw(st.sampled_from(sorted(BITS)))
        # In groups of eight numbers every type fills whole bytes.
        shape = [*draw(st.lists(st.integers(0, 5), max_size=3)), 8]
        size = BITS[dtype]
        for length in shape[:-1]:
            size *= length
        begin, end = end, end + size
        items.append((name, {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}))
    if draw(st.booleans()):
        items.append(("__metadata__", draw(st.dictionaries(st.text(max_size=5), st.text()))))
    return dict(draw(st.permutations(items))), end


@given(headers())
def test_a_header_is_read(made: tuple[dict[str, Any], int]) -> None:
    """Tensors, types with their bytes and metadata are those that were written."""
    items, size = made
    file = modelmaker.with_header(items, b"\1" * size)
    length = formats.header_length(file[:8], len(file))
    found = formats.header(file[8 : 8 + length], len(file))
    metadata = items.pop("__metadata__", {})
    assert (found.kind, found.tensors) == ("safetensors", len(items))
    assert sum(found.dtypes.values()) == size
    assert set(found.dtypes) == {item["dtype"] for item in items.values()}
    assert found.metadata == metadata


@given(headers(), st.data())
def test_another_size_is_refused(made: tuple[dict[str, Any], int], data: st.DataObject) -> None:
    """A file of any other size than its header says is no model."""
    items, content = made
    file = modelmaker.with_header(items, b"\1" * content)
    size = data.draw(st.integers(0, len(file) + 100).filter(lambda size: size != len(file)))
    with pytest.raises(NotModel, match=r"is cut|is too long|no safetensors"):
        cut = file[:size].ljust(size, b"\1")
        length = formats.header_length(cut[:8], size)
        formats.header(cut[8 : 8 + length], size)


@given(st.binary(max_size=200), st.integers(0, 1 << 66))
def test_any_header_gives_a_sentence(data: bytes, size: int) -> None:
    """Whatever a header is, it is read or refused."""
    try:
        found = formats.header(data, size)
    except NotModel:
        return
    assert found.kind == "safetensors"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "F32"]), inner
        )
    ),
)


@given(_VALUES)
def test_any_json_gives_a_sentence(value: Any) -> None:
    """So it is of all that is JSON, and of what has the names of a header."""
    file = modelmaker.with_header(value)
    try:
        found = formats.header(file[8:], len(file))
    except NotModel:
        return
    assert found.kind == "safetensors"


_TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (b"no json", "not one of safetensors"),
        (b"\xff\xfe{}", "not one of safetensors"),
        (b"[" * 5000, "not one of safetensors"),
        (b'{"a": ' * 3000, "not one of safetensors"),
        ([], "not one of safetensors"),
        ({"a": 1}, "not one of safetensors"),
        ({"a": {}}, "not one of safetensors"),
        ({"a": {**_TENSOR, "shape": [-1]}}, "not one of safetensors"),
        ({"a": {**_TENSOR, "shape": [1 << 64]}}, "not one of safetensors"),
        ({"a": {**_TENSOR, "data_offsets": [0]}}, "not one of safetensors"),
        ({"__metadata__": {"a": 1}}, "not one of safetensors"),
        ({"a": {**_TENSOR, "data_offsets": [8, 0]}}, "the place of 'a' cannot be"),
        ({"a": {**_TENSOR, "data_offsets": [4, 12]}}, "the place of 'a' cannot be"),
        ({"a": _TENSOR, "b": _TENSOR}, "the place of 'b' cannot be"),
        ({"a": {**_TENSOR, "shape": [3]}}, "'a' has not the size of its shape"),
        ({"a": {**_TENSOR, "shape": [1 << 62] * 9}}, "'a' has not the size of its shape"),
        ({"a": {**_TENSOR, "dtype": "F4", "shape": [15]}}, "'a' has not the size of its shape"),
    ],
)
def test_a_hostile_header(tmp_path: Path, items: Any, text: str) -> None:
    """What no header can say is refused in one sentence that names the file."""
    with pytest.raises(IntegrityError, match=text) as caught:
        look(tmp_path, modelmaker.with_header(items, b"\1" * 8), "a/x.safetensors")
    assert caught.value.message.startswith("a/x.safetensors has a header")
    assert caught.value.hint == "fetch x.safetensors again, or look at what its source has"


def test_a_type_of_later_is_taken(tmp_path: Path) -> None:
    """A type that is not known yet is not measured; that the file is whole is still known."""
    items = {"a": {**_TENSOR, "dtype": "F2_NEW"}}
    file = modelmaker.with_header(items, b"\1" * 8)
    assert look(tmp_path, file, "x.safetensors").dtypes == {"F2_NEW": 8}
    with pytest.raises(IntegrityError, match="is cut: it has"):
        look(tmp_path, file[:-1], "x.safetensors")


def test_limits_of_a_header(tmp_path: Path) -> None:
    """A header may have 100 MB, and be no more complex than memory allows."""
    start = (formats.HEADER_LIMIT + 1).to_bytes(8, "little") + b"{"
    with pytest.raises(IntegrityError, match="would have 100000001 bytes, 100000000 are the most"):
        look(tmp_path, start, "x.safetensors")
    with pytest.raises(NotModel, match="too complex"):
        formats.header(b'{"a":[' + b"1," * 2_000_000, 1)
    path = tmp_path / "sparse.safetensors"
    with open(path, "wb") as file:
        file.write((50_000_000).to_bytes(8, "little") + b"{}" + b" " * 49_999_998)
    assert formats.check(str(path), path.name).tensors == 0
    os.truncate(path, 40_000_000)
    with pytest.raises(IntegrityError, match="is cut: its header has 50000000 bytes"):
        formats.check(str(path), path.name)


SAFETENSORS = modelmaker.safetensors(b"12345678", {"format": "pt"}, "F32")


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (SAFETENSORS, "x.safetensors", "safetensors"),
        (SAFETENSORS, "X.SFT", "safetensors"),
        (SAFETENSORS, "x.ckpt", "safetensors"),
        (modelmaker.gguf(), "x.gguf", "gguf"),
        (modelmaker.gguf(version=1), "x.gguf", "gguf"),
        (modelmaker.torch_zip(), "x.pt", "pickle"),
        (modelmaker.torch_zip(("x/data.pkl",)), "x.bin", "pickle"),
        (modelmaker.LEGACY_TORCH, "x.pth", "pickle"),
        (b"\x80\x04\x95", "x.dat", "pickle"),
        (b"storages".ljust(257, b"\0") + b"ustar\0", "x.pt", "pickle"),
        (b"\x08\x07\x12\x07pytorch", "x.onnx", "onnx"),
        (b"PK\x03\x04" + b"\0" * 40, "x.zip", "unknown"),
        (b"ggml", "whisper.bin", "unknown"),
        (b"", "empty.txt", "unknown"),
        (b'{"a": 1}', "config.json", "unknown"),
        (b"<html>", "README.md", "unknown"),
        (b"GGUF is a format", "README", "unknown"),
    ],
)
def test_formats(tmp_path: Path, data: bytes, name: str, kind: str) -> None:
    """Each format is known by its first bytes, and where these say nothing by the name."""
    assert look(tmp_path, data, name).kind == kind


def test_what_a_header_says(tmp_path: Path) -> None:
    """Number and types of tensors, and metadata, as far as a format gives them."""
    found = look(tmp_path, SAFETENSORS, "x.safetensors")
    assert found == Format("safetensors", 1, {"F32": 8}, {"format": "pt"})
    assert look(tmp_path, modelmaker.gguf(7), "x.gguf").tensors == 7
    assert look(tmp_path, modelmaker.torch_zip(), "x.pt").tensors is None


@pytest.mark.parametrize(
    ("data", "name", "text"),
    [
        (b"<!DOCTYPE html>\n<html>", "x.safetensors", "x.safetensors is a web page and no model"),
        (b"\xef\xbb\xbf\n <!doctype  HTML>", "x.ckpt", "is a web page"),
        (b"<!-- a --><!-- b -->\n<html lang=en>", "x.bin", "is a web page"),
        (b"<html>", "config.json", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "x", "is a pointer of Git LFS"),
        (b'{"error": "not found"}', "x.safetensors", "is a JSON document and no model"),
        (b'[{"error": 1}]', "x.pt", "is a JSON document"),
        (b"{}", "x.bin", "is a JSON document"),
        (b"<?xml version='1.0'?><Error>", "x.gguf", "is an XML document"),
        (b"<Error><Code>AccessDenied</Code></Error>", "x.onnx", "is an XML document"),
    ],
)
def test_something_else_in_its_place(tmp_path: Path, data: bytes, name: str, text: str) -> None:
    """A page, an error or a pointer is told from a model."""
    with pytest.raises(SourceError, match=text) as caught:
        look(tmp_path, data, name)
    assert caught.value.hint


def test_a_page_of_comments_is_told_at_once() -> None:
    """No page takes long to look at, however it begins."""
    assert formats.instead(b"<!---->" * 500 + b"<!--", "x.bin") is not None
    assert formats.instead(b"<!---->" * 500 + b"<!--", "x.txt") is None


@pytest.mark.parametrize(
    ("data", "name", "text"),
    [
        (b"", "x.safetensors", "is empty"),
        (b"", "x.ckpt", "is empty"),
        (b"1234567", "x.safetensors", "is no safetensors file: it has 7 bytes"),
        (b"weights and more", "x.safetensors", "is no safetensors file: its header would"),
        (SAFETENSORS[:-1], "x.safetensors", "is cut: it has 119 bytes of 120"),
        (SAFETENSORS[:20], "x.safetensors", "is cut: its header has 104 bytes, the whole file 20"),
        (SAFETENSORS + b"1", "x.sft", "is too long: it has 121 bytes"),
        (modelmaker.torch_zip(), "x.safetensors", "is in the format pickle, not in that"),
        (modelmaker.gguf(), "x.safetensors", "is in the format gguf, not in that"),
        (b"PK\x03\x04" + b"\0" * 40, "x.safetensors", "is in another format, not in that"),
        (SAFETENSORS, "x.gguf", "does not begin with GGUF"),
        (b"GGUF\3\0\0\0", "x.gguf", "is cut: it has 8 bytes"),
        (modelmaker.gguf(1 << 40), "x.gguf", "is no GGUF file: 1099511627776 tensors"),
        (modelmaker.gguf(version=0), "x.gguf", "is no GGUF file"),
    ],
)
def test_cut_or_broken(tmp_path: Path, data: bytes, name: str, text: str) -> None:
    """What is no whole file of the format of its name is refused."""
    with pytest.raises(IntegrityError, match=text):
        look(tmp_path, data, name)


@pytest.mark.parametrize(
    ("data", "name", "text"),
    [
        (modelmaker.torch_zip(), "x.pt", "x.pt is a pickle, which may run any program"),
        (modelmaker.LEGACY_TORCH, "x.ckpt", "x.ckpt is a pickle"),
        (b"\x80\x04\x95", "x.dat", "x.dat is a pickle"),
        # Loaded as one, though it does not begin as others do: "cos\nsystem".
        (b"cos\nsystem\n(S'id'\ntR.", "x.bin", "x.bin would be loaded as a pickle"),
        (b"PK\x03\x04" + b"\0" * 40, "x.pth", "x.pth would be loaded as a pickle"),
    ],
)
def test_no_pickles(tmp_path: Path, data: bytes, name: str, text: str) -> None:
    """A spec may refuse pickles, and all that would be loaded as one."""
    assert look(tmp_path, data, name)
    with pytest.raises(InputError, match=text) as caught:
        look(tmp_path, data, name, allow_pickle=False)
    assert "options.allow_pickle is false" in caught.value.message


def test_others_without_pickles(tmp_path: Path) -> None:
    """What is no pickle is taken where none is allowed."""
    for data, name in [
        (SAFETENSORS, "x.safetensors"),
        (SAFETENSORS, "x.ckpt"),
        (modelmaker.gguf(), "x.gguf"),
        (b"\x08\x07", "x.onnx"),
        (b"{}", "config.json"),
    ]:
        look(tmp_path, data, name, allow_pickle=False)


@given(st.binary(max_size=300), st.sampled_from(["x.safetensors", "x.gguf", "x.pt", "x"]))
def test_any_bytes_give_a_sentence(data: bytes, name: str) -> None:
    """Whatever the bytes and the name are, a file is read or refused as an error of cvs."""
    descriptor = os.memfd_create("model")
    try:
        os.write(descriptor, data)
        formats.check(f"/proc/self/fd/{descriptor}", name, allow_pickle=False)
    except CvsError as error:
        assert error.message.startswith(name)
    finally:
        os.close(descriptor)


def test_names() -> None:
    """A name says whether a model, and whether a pickle, is expected."""
    names = ["a.safetensors", "a.CKPT", "a.bin", "a.onnx", "a.txt", "safetensors"]
    assert [name for name in names if formats.is_model(name)] == names[:4]
    assert [name for name in names if formats.is_pickle(name)] == ["a.CKPT", "a.bin"]
