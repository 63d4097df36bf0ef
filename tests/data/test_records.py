"""Lists of a user's own videos: every form that is in use, told apart by itself, and wrong ones in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpbench.data import Seconds
from vpbench.data.lists.records import Record, records
from vpbench.errors import UsageError

SOURCE = Path("list.csv")


def read(text: str, *there: str) -> list[Record]:
    return records(SOURCE, text, lambda path: path in there)


PLAIN = [
    "a/x.mp4 0\nb/y.mp4 1\n",
    "a/x.mp4,0\nb/y.mp4,1\n",
    "a/x.mp4\t0\nb/y.mp4\t1\n",
    "a/x.mp4; 0\nb/y.mp4; 1\n",
    '"a/x.mp4",0\n"b/y.mp4",1\n',
    "path,label\na/x.mp4,0\nb/y.mp4,1\n",
    "label;video\n0;a/x.mp4\n1;b/y.mp4\n",
    "file_name\tclass\na/x.mp4\t0\nb/y.mp4\t1\n",
    "path label\na/x.mp4 0\nb/y.mp4 1\n",
    'File Name,Frames,Label\n"a/x.mp4",9,"0"\nb/y.mp4,9,1\n',
    '{"file_name": "a/x.mp4", "label": 0}\n{"file_name": "b/y.mp4", "label": 1}\n',
    '[{"video": "a/x.mp4", "label": "0"}, {"video": "b/y.mp4", "label": "1"}]',
    "\n  a/x.mp4   0 \n\n\tb/y.mp4 1",
    "a/x 120 0\nb/y 90 1\n".replace("/x", "/x.mp4").replace("/y", "/y.mp4"),
]


@pytest.mark.parametrize("text", PLAIN)
def test_paths_and_numbers(text: str) -> None:
    assert [(r.path, r.label, r.part, r.split) for r in read(text)] == [
        ("a/x.mp4", "0", None, None), ("b/y.mp4", "1", None, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "a, b/x y.mp4 play guitar\nc.MOV run\n",
        "a, b/x y.mp4\tplay guitar\nc.MOV\trun\n",
        '"a, b/x y.mp4",play guitar\nc.MOV,run\n',
        'video,label\n"a, b/x y.mp4","play guitar"\nc.MOV,run\n',
        '{"path": "a, b/x y.mp4", "action": "play guitar"}\n{"path": "c.MOV", "action": "run"}\n',
        '"a, b/x y.mp4" "play guitar"\nc.MOV run\n'.replace('"play guitar"', "play guitar"),
    ],
)
def test_paths_and_names_that_hold_blanks_and_commas(text: str) -> None:
    assert [(r.path, r.label) for r in read(text)] == [("a, b/x y.mp4", "play guitar"), ("c.MOV", "run")]


@pytest.mark.parametrize("text", ["f/a 120 0\nf/b 90 1\n", "f/a,120,0\nf/b,90,1\n", "f/a\t120\t0\nf/b\t90\t1\n"])
def test_folders_of_frames(text: str) -> None:
    assert [(r.path, r.label) for r in read(text)] == [("f/a", "0"), ("f/b", "1")]
    assert [r.label for r in read(text.replace("0\n", "run\n").replace("1\n", "sit\n"))] == ["run", "sit"]


def test_names_that_end_in_numbers_are_known_by_what_is_there() -> None:
    text = "clip 1 0\nclip 2 1\n"
    assert [r.path for r in read(text)] == ["clip", "clip"]
    assert [r.path for r in read(text, "clip 2")] == ["clip 1", "clip 2"]
    assert [r.path for r in read("clip 1 30 0\nclip 2 30 1\n", "clip 1")] == ["clip 1", "clip 2"]


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4 1.5 4 0\na.mp4 4 6.25 1\n",
        "a.mp4,1.5,4,0\na.mp4,4,6.25,1\n",
        "a.mp4 1.5 4 0\na.mp4 4 6.25 1\n".replace(" ", "\t"),
        "video,start_time,end_time,label\na.mp4,1.5,4,0\na.mp4,4,6.25,1\n",
        '{"path": "a.mp4", "start": 1.5, "end": 4, "label": 0}\n{"path": "a.mp4", "start": 4, "end": 6.25, "label": 1}',
    ],
)
def test_parts_in_seconds(text: str) -> None:
    assert [(r.path, r.part, r.label) for r in read(text)] == [
        ("a.mp4", Seconds(1.5, 4), "0"), ("a.mp4", Seconds(4, 6.25), "1"),
    ]  # fmt: skip
    named = [r.label for r in read(text.replace('"label": ', '"label": "x').replace("}", '"}'))] if "{" in text else []
    assert named in ([], ["x0", "x1"])


def test_parts_with_names() -> None:
    assert read("a b.mp4 1.5 4 long jump\n") == [Record(1, "a b.mp4", "long jump", part=Seconds(1.5, 4))]


def test_names_numbers_and_splits_of_a_header() -> None:
    text = "video_path,label,class_name,split\na.mp4,3,jump,train\nb.mp4,0,run,val\n"
    assert read(text) == [Record(2, "a.mp4", "jump", "3", None, "train"), Record(3, "b.mp4", "run", "0", None, "val")]


def test_tables_of_kinetics_name_trimmed_files() -> None:
    text = 'label,youtube_id,time_start,time_end,split\n"air drumming",--07WQ2iBlw,1,11,val\n'
    assert read(text) == [Record(2, "--07WQ2iBlw_000001_000011", "air drumming", split="val")]
    assert read("label,youtube_id\nrun,abc\n") == [Record(2, "abc", "run")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty; lines look like"),
        ("hello\n", "line 1: 'hello' is no video; lines look like"),
        ("a.mp4 0\nhello\n", "line 2: 'hello' is no video"),
        ("../a.mp4 0\n", "leaves the folder"),
        ("a.mp4 0\n..\\b.mp4 1\n", "leaves the folder"),
        ("path,label\n", "a header, but no videos below it"),
        ("path,label\na.mp4\n", "line 2: 1 columns instead of the 2 of the header"),
        ("path,label\na, b.mp4,0\n", 'line 2: 3 columns instead of the 2 of the header; put cells that hold the sep'),
        ("path,label\na.mp4,\n", "line 2: no label"),
        ("file_name,emotion\na.mp4,joy\n", "no column names the label; it has 'file_name, emotion'"),
        ("label,class\n0,jump\n", "no column names the video; it has 'label, class'"),
        ("path,start,label\na.mp4,1,0\n", "a column 'start' without its end"),
        ("path,start_frame,end_frame,label\na.mp4,1,3,0\n", "parts in frames; give columns start and end in seconds"),
        ("path,label,action\na.mp4,run,jump\n", "columns 'label' and 'action' are both labels, and differ"),
        ("a.mp4 4 1.5 0\n", "line 1: the part from 4 s to 1.5 s holds nothing"),
        ("a.mp4,x,run\n", "of three columns the second is a number of frames, not 'x'"),
        ("a.mp4,1,y,run\n", "'y' is no number of seconds"),
        ('{"path": "a.mp4", "label": 0}\n{"path":\n', "not JSON, one object a line"),
        ("[1]", "line 1: not an object like"),
        ("a" * 9000 + " 0", "longer than any line"),
        ("a\x1b.mp4 0\n", "control character U[+]001B"),
    ],
)  # fmt: skip
def test_wrong_lists_are_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        read(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_list_or_refused(text: str) -> None:
    said, found = "", list[Record]()
    try:
        found = read(text)
    except UsageError as error:
        said = str(error)
    assert "\n" not in said
    assert all(record.path and record.label for record in found)


@given(st.lists(st.tuples(st.sampled_from(["a b.mp4", "c,d.mov", "e 1.mkv", "ü.mp4"]), st.integers(0, 99)), min_size=1))
def test_what_is_written_is_read_back(rows: list[tuple[str, int]]) -> None:
    for separator in (" ", ",", "\t"):
        text = "".join(f"{path}{separator}{label}\n" for path, label in rows)
        assert [(r.path, int(r.label)) for r in read(text)] == rows
