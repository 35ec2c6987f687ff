import json
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest

from winnow.errors import DataError
from winnow.reading import (
    MAX_DEPTH,
    MAX_UNPACKED_BYTES,
    UnreadableError,
    as_float,
    naming,
    parse_json,
    parse_record,
    parse_xml,
    parse_yaml,
    read_arrays,
    read_json,
    read_xml,
    read_yaml,
    require_no_growth,
)  # fmt: skip


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("text", [
    "[" * 10**5, nested(MAX_DEPTH + 1), '{"a":' * 200, "9" * 5000, "", "{", b"\xff\xfe[", b"\x80", '{"a": 1,}', "'a'",
])  # fmt: skip
def test_text_that_is_no_json_gives_one_reason(text):
    with pytest.raises(UnreadableError) as error:
        parse_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, "x" * 9]}, "[" * 1000, {"[{" * 200: ']\\"[' * 200}, 10**400])
def test_json_is_read_as_python_reads_it(value):
    text = json.dumps(value)
    assert parse_json(text) == parse_json(text.encode("utf-16")) == value
    assert parse_json(nested(MAX_DEPTH)) == json.loads(nested(MAX_DEPTH))


@pytest.mark.parametrize("text", [
    "NaN", "[1e400, -1e400]", "1" * 40, "-0.0", '"\\ud800"', '"\\ud83d\\ude00"', '{"a": 1, "a": 2}', "0.1234567890123456789", "é",
    b'"\xed\xa0\x80"', "[1,]", "", "[" * 50 + "]" * 50, "'a'", '"\x01"', "9007199254740993",
])  # fmt: skip
def test_large_json_is_read_as_small_is(text):
    size = 1 << 20
    data = text if isinstance(text, bytes) else f'"{text}"'.encode() if text == "é" else text.encode()
    large = b'["' + b"x" * size + b'", ' + data + b"]"
    small = b'["", ' + data + b"]"
    try:
        expected = parse_json(small)
    except UnreadableError:
        with pytest.raises(UnreadableError, match="not JSON"):
            parse_json(large)
    else:
        assert repr(parse_json(large)[1]) == repr(expected[1])
        assert repr(parse_json(large.decode("utf-8", "surrogatepass"))[1]) == repr(expected[1])


def laughs(levels=40):
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, levels))]
    return "\n".join(lines)


@pytest.mark.parametrize("text", [
    "!!int x", "!!timestamp x", "!!bool x", "!!python/object/apply:os.system [ls]", "? [a]\n: b", "&a [*a]", "2020-99-99", "a: [",
    b"\x00", b"\xff\xfe\x00", "[" * 3000, "{a: " * 150 + "}" * 150, laughs(),
])  # fmt: skip
def test_text_that_is_no_yaml_gives_one_reason(text):
    with pytest.raises(UnreadableError) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)


def test_yaml_may_name_a_list_twice():
    assert parse_yaml("a: &a [1, 2]\nb: *a\nc: *a") == {name: [1, 2] for name in "abc"}


@pytest.mark.parametrize(("data", "reason"), [
    (b"<?xml version='1.0' encoding='zork'?><a/>", "unknown encoding"),
    (b"<?xml version='1.0' encoding='utf-7'?><a/>", "multi-byte encodings"),
    (b"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "declares the entity 'x'"),
    (b"<!DOCTYPE a [<!ENTITY % x SYSTEM 'file:///etc/passwd'>]><a/>", "declares the entity 'x'"),
    (b"<a>" * 100_000, "no element found"), (b"", "no element found"), (b"\x00\x01", "not XML"), (b"<a></b>", "mismatched tag"),
])  # fmt: skip
def test_bytes_that_are_no_xml_give_one_reason(data, reason):
    with pytest.raises(UnreadableError, match=reason):
        parse_xml(data)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_name_that_no_file_can_have_is_refused_as_one_that_is_not_there(tmp_path, name):
    with pytest.raises(DataError, match="can't be read as a COCO file: "):
        read_json(tmp_path / name, "a COCO file", DataError)


def test_errors_name_the_file_and_what_it_was_to_be(tmp_path):
    path = tmp_path / "x"
    for read in (read_json, read_yaml, read_xml):
        path.write_bytes(b"{[")
        with pytest.raises(DataError, match=r"x can't be read as a thing: not (JSON|YAML|XML): .*(line|column)"):
            read(path, "a thing", DataError)
        path.unlink()
        with pytest.raises(DataError, match="x can't be read as a thing: No such file"):
            read(path, "a thing", DataError)


@pytest.mark.parametrize(("value", "number"), [
    (1, 1.0), (2.5, 2.5), ("1e3", 1000.0), (" 7 ", 7.0), ("1e999", float("inf")), (10**400, None), ("9" * 5000, float("inf")),
    (True, None), (None, None), ("x", None), ([1], None), ("nan", None), (b"1", None),
])  # fmt: skip
def test_a_number_is_a_float_or_nan(value, number):
    found = as_float(value)
    assert found == number if number is not None else found != found


@dataclass
class Note:
    name: str
    sizes: tuple[int, ...] = ()


def test_a_record_is_checked_by_its_annotations():
    assert parse_record(Note, '{"name": "a", "sizes": [1, 2], "newer": 3}') == Note("a", (1, 2))
    for text, place in (
        ('{"name": 3}', "name"),
        ('{"sizes": []}', "name"),
        ('{"name": "a", "sizes": ["x"]}', "sizes.0"),
        ("[]", "it"),
    ):
        with pytest.raises(UnreadableError, match=f"no Note: {place}: "):
            parse_record(Note, text)


def test_arrays_come_back_in_kind_and_order(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "zero": np.zeros((0, 4)),
              "text": np.array("page"), "flag": np.array(True)}  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found = read_arrays(tmp_path / "x.npz", DataError)
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert (found[name].dtype, found[name].flags.f_contiguous) == (array.dtype, array.flags.f_contiguous)
            assert found[name].flags.writeable


def member(folder, header, data, compress=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(folder / "x.npz", "w", compress) as archive:
        text = header.encode().ljust(117) + b"\n"
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)
    return folder / "x.npz"


@pytest.mark.parametrize(("header", "data", "reason"), [
    ("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", bytes(10**7), "x.npy promises 16 bytes and holds more"),
    ("{'descr': '<f8', 'fortran_order': False, 'shape': (20,)}", bytes(16), "x.npy promises 160 bytes and holds 16"),
    ("{'descr': '<f8', 'fortran_order': False, 'shape': (2000000000,)}", b"",
     f"promises 16000000000 bytes; .*{MAX_UNPACKED_BYTES}"),
    ("{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}", b"", "promises -16 bytes"),
    ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"x", "holds objects, which are never loaded"),
    ("{'descr': 'zork', 'fortran_order': False, 'shape': (1,)}", b"x", "x.npz can't be read as arrays"),
    ("__import__('os').system('ls')", b"x", "x.npz can't be read as arrays"),
])  # fmt: skip
def test_arrays_hold_what_their_headers_promise(tmp_path, header, data, reason):
    with pytest.raises(DataError, match=reason):
        read_arrays(member(tmp_path, header, data), DataError)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x" * 99])
def test_a_damaged_file_of_arrays_is_named(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="x.npz can't be read as arrays"):
        read_arrays(tmp_path / "x.npz", DataError)


def test_what_is_shared_counts_as_often_as_it_stands_there():
    shared = [0] * 100
    require_no_growth([shared] * 9, 950)
    with pytest.raises(UnreadableError, match="have over 1000 entries"):
        require_no_growth([shared] * 11, 950)
    chain = [[0]]
    for _ in range(MAX_DEPTH):
        chain = [chain]
    with pytest.raises(UnreadableError, match="deep"):
        require_no_growth(chain, 10**9)
    chain.append(chain)
    with pytest.raises(UnreadableError, match="contains itself"):
        require_no_growth({"a": chain}, 10**9)


def test_errors_are_told_with_the_file_that_they_are_about():
    with pytest.raises(DataError, match="^x.yaml: wrong$"), naming("x.yaml"):
        raise DataError("wrong")
    with pytest.raises(DataError, match="^line 3 of x.yaml$"), naming("x.yaml"):
        raise DataError("line 3 of x.yaml")
    with pytest.raises(DataError, match="^going on from x.yaml: wrong$"), naming("x.yaml", "going on from "):
        raise DataError("wrong")
    with pytest.raises(KeyError), naming("x.yaml"):
        raise KeyError("a")
