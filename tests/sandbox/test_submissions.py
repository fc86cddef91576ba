"""Submissions of several files, archives, output files and neighbours: the cases of the table, and ours."""

import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from attack_table import cases
from hypothesis import given
from hypothesis import strategies as st

from dreamprm_cli import types
from dreamprm_cli.errors import ConfigError
from dreamprm_sandbox import Sandbox
from dreamprm_sandbox.submission import Refused, taken_apart, unpacked

CASES = cases("cases.jsonl", "attacks.jsonl")
FUNCTION = types.Problem(
    "add", "", entry_point="add", tests=types.Tests("plain", payload={"tests": [{"input": [1, 2], "output": 3}]})
)
FILE = types.Problem(
    "file", "", tests=types.Tests("plain", payload={"tests": [{"stdin": "", "output_file": "out.txt", "content": "3"}]})
)
SUITE = types.Problem(
    "suite",
    "",
    tests=types.Tests(
        "pytest", payload={"files": {"test_f.py": "from solution import add\ndef test(): assert add(1, 2) == 3\n"}}
    ),
)


def of(mode: str) -> list[dict[str, str]]:
    return [case for case in CASES if case["mode"] == mode]


def files_of(code: str) -> dict[str, str]:
    return dict(part.partition(":")[::2] if not part.startswith("C:") else (part, "") for part in code.split("\0"))


@pytest.mark.docker
@pytest.mark.parametrize("problem", [FUNCTION, SUITE], ids=["fn", "pytest"])
@pytest.mark.parametrize("case", of("files"), ids=lambda case: case["id"])
def test_files(box: Sandbox, case, problem):
    files = files_of(case["code"])
    honest = (
        {} if case["verdict"] == "PASS" or "solution.py" in files else {"solution.py": "def add(a, b): return a + b"}
    )
    verdict = box.run(problem, {**honest, **files})
    assert verdict.status == case["verdict"], verdict
    assert verdict.trust == "strong"
    if verdict.status == "REJECT":
        assert "\n" not in verdict.detail
        assert verdict.detail


@pytest.mark.docker
@pytest.mark.parametrize("case", of("copyout"), ids=lambda case: case["id"])
def test_output_files(box: Sandbox, case):
    verdict = box.run(FILE, case["code"])
    assert verdict.status == case["verdict"], (verdict, case["invariant"])
    assert box.run(FILE, "open('out.txt', 'w').write('3')").status == "PASS"


@pytest.mark.docker
def test_what_is_printed_can_count_beside_the_file(box: Sandbox):
    test = {"stdin": "7", "stdout": "7", "output_file": "sub/out.txt", "content": "a b"}
    problem = replace(FILE, id="both", tests=types.Tests("plain", payload={"tests": [test]}))
    code = "import os\nos.mkdir('sub')\nopen('sub/out.txt', 'w').write('a  b\\n')\nprint(input())"
    assert box.run(problem, code).status == "PASS"
    assert box.run(problem, code.replace("print(input())", "print(8)")).status == "WA"


HONEST = b"def add(a, b): return a + b\n"


def tar(*members: tarfile.TarInfo, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        main = tarfile.TarInfo("solution.py")
        main.size = len(HONEST)
        archive.addfile(main, io.BytesIO(HONEST))
        for one in members:
            archive.addfile(one, io.BytesIO(b"x" * one.size))
    return out.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size = 1
    for key, value in fields.items():
        setattr(made, key, value)
    if made.type != tarfile.REGTYPE:
        made.size = 0
    return made


BAD_MEMBERS = {
    "parent": [member("../../x")],
    "absolute": [member("/etc/x")],
    "hardlink": [member("x.py", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "symlink": [member("x.py", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "symlink-parent": [member("d", type=tarfile.SYMTYPE, linkname="/etc"), member("d/x.py")],
    "device": [member("x", type=tarfile.CHRTYPE, devmajor=1, devminor=5)],
    "block-device": [member("x", type=tarfile.BLKTYPE)],
    "fifo": [member("x", type=tarfile.FIFOTYPE)],
    "setuid": [member("x.py", mode=0o4755)],
    "setgid-folder": [member("d", type=tarfile.DIRTYPE, mode=0o2755)],
    "conftest": [member("d/conftest.py")],
    "twice": [member("solution.py")],
    "below-a-file": [member("solution.py/x.py")],
}


@pytest.mark.docker
@pytest.mark.parametrize("name", BAD_MEMBERS)
def test_a_bad_member_refuses_the_archive(box: Sandbox, name):
    [case] = of("tar-in")
    for mode in ("w", "w:gz", "w:xz"):
        assert box.run(FUNCTION, tar(*BAD_MEMBERS[name], mode=mode)).status == case["verdict"]


def sparse(size: int) -> bytes:
    """An archive with a member of `size` bytes, none of which is there."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        made = tarfile.TarInfo("solution.py")
        made.size = size
        archive.fileobj.write(made.tobuf(tarfile.GNU_FORMAT))
    return out.getvalue() + bytes(1024)


@pytest.mark.parametrize(
    "archive",
    [
        sparse(10 << 30),
        tar(member("x.py", type=tarfile.GNUTYPE_SPARSE)),
        b"\x1f\x8b" + b"junk",
        b"BZh9" + b"junk",
        b"",
        b"PK\x03\x04junk",
        tar(mode="w:gz")[:-12],
        tar(*[member(f"m{number}.py") for number in range(500)]),
        gzip.compress(bytes(64 << 20)),
        lzma.compress(bytes(64 << 20)),
    ],
    ids=[f"archive{number}" for number in range(10)],
)
def test_a_huge_or_damaged_archive_is_refused(archive):
    with pytest.raises(Refused):
        taken_apart(archive)


def zipped(name: str, mode: int = 0, content: bytes = HONEST) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "mode", "content"),
    [
        ("../solution.py", 0, HONEST),
        ("solution.py", stat.S_IFLNK | 0o777, b"/etc/passwd"),
        ("solution.py", stat.S_IFREG | 0o4755, HONEST),
        ("solution.py", 0, bytes(32 << 20)),
        ("solution.py", 0, b"\xff\xfe"),
        ("/solution.py", 0, HONEST),
    ],
)
def test_a_bad_zip_is_refused(name, mode, content):
    with pytest.raises(Refused):
        taken_apart(zipped(name, mode, content))


@pytest.mark.docker
def test_honest_archives_are_run(box: Sandbox):
    for archive in (tar(), tar(mode="w:gz"), tar(mode="w:bz2"), tar(mode="w:xz"), zipped("solution.py", 0o100644)):
        assert box.run(FUNCTION, archive).status == "PASS"


@given(st.binary(max_size=2000))
def test_any_bytes_are_refused_or_read(data):
    with contextlib.suppress(Refused):
        assert isinstance(unpacked(data), dict)


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=20), max_size=4))
def test_paths_that_are_accepted_stay_below_the_folder(files):
    try:
        found = taken_apart(files)
    except Refused:
        return
    for path in found.data:
        assert not path.startswith("/")
        assert ".." not in path.split("/")
    assert all(part.isidentifier() for name in found.sources for part in name.split("."))


@pytest.mark.docker
def test_programs_do_not_meet(box: Sandbox):
    """I01: what one program does to builtins is gone for the next."""
    assert box.run(FUNCTION, "import builtins\nbuiltins.sum = lambda *a: 0\ndef add(a, b): return 0").status == "WA"
    assert box.run(FUNCTION, "def add(a, b): return sum([a, b])").status == "PASS"


@pytest.mark.docker
@pytest.mark.parametrize(
    "hostile",
    [
        "import os\ndef add(a, b):\n    while True:\n        try: os.fork()\n        except OSError: pass",
        "def add(a, b):\n    x = []\n    while True: x.append(bytearray(1 << 24))",
    ],
    ids=["fork-bomb", "out-of-memory"],
)
def test_a_neighbour_does_not_suffer(box: Sandbox, hostile):
    """I02: programs at work at once have control groups of their own."""
    with ThreadPoolExecutor(2) as threads:
        worse = threads.submit(box.run, FUNCTION, hostile)
        better = [threads.submit(box.run, FUNCTION, "def add(a, b): return a + b") for _ in range(10)]
        assert {one.result().status for one in better} == {"PASS"}
        assert worse.result().status != "PASS"


@pytest.mark.docker
def test_the_same_program_does_the_same_twice(box: Sandbox):
    """I03: hashes, random numbers, time zone and locale are the same in every run and container."""
    code = (
        "import random, time, locale, os\n"
        "seen = (hash('a'), random.random(), list({'a', 'b', 'c', 'd'}), time.tzname, locale.getlocale(), id is id,\n"
        "        sorted(os.environ.items()), os.getcwd())\n"
        "print(repr(seen))"
    )
    told = "print('nothing')"
    problem = types.Problem(
        "seeds", "", tests=types.Tests("plain", payload={"tests": [{"stdin": "", "stdout": "nothing"}]})
    )
    assert box.run(problem, told).status == "PASS"
    with Sandbox(workers=1, limits=box.limits) as other:
        texts = {printed(one, code) for one in (box, box, other)}
    assert len(texts) == 1
    assert "UTC" in texts.pop()


def printed(box: Sandbox, code: str) -> str:
    """What a program prints, straight from a container."""
    from dreamprm_sandbox.slot import Job

    slot = box._take()
    run = slot.start(Job("program", code), box.limits, stdin=b"")
    run.wait()
    box._give(slot, worn=False)
    return run.stdout.decode()


@pytest.mark.docker
@pytest.mark.parametrize("kind", ["plain", "pytest"])
def test_no_tests_are_a_configuration_error(box: Sandbox, kind):
    """I07: all of no tests would pass."""
    payload = {"tests": []} if kind == "plain" else {"files": {"test_f.py": "import solution\n"}}
    with pytest.raises(ConfigError):
        box.run(types.Problem("none", "", entry_point="add", tests=types.Tests(kind, payload=payload)), HONEST.decode())
