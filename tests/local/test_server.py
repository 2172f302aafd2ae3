"""gpt.local: llama.cpp's own server in a process of its own, spoken to over HTTP like any other."""

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import requests

from gpt import local
from gpt.local.server import BUNDLED

pytest.importorskip("xllamacpp")

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(scope="module")
def server() -> Iterator[local.Server]:
    with local.Server() as server:
        yield server


def complete(server: local.Server, **body: Any) -> dict[str, Any]:
    response = requests.post(
        f"{server.url}/completions",
        json={"prompt": "A class definition", "max_tokens": 16, "temperature": 0, **body},
        timeout=60,
    )
    response.raise_for_status()
    return cast(dict[str, Any], response.json())


def text(server: local.Server, **body: Any) -> str:
    return str(complete(server, **body)["choices"][0]["text"])


def run(program: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python of its own, where a crash or a deadlock of the engine is only a failed test."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def port_of(server: local.Server) -> int:
    return int(server.url.removesuffix("/v1").rpartition(":")[2])


# What it responds


def test_server_with_default_options_completes_at_a_url_ending_in_v1(server: local.Server) -> None:
    """A client needs nothing but the URL."""
    assert server.url.startswith("http://127.0.0.1:")
    assert server.url.endswith("/v1")
    response = complete(server)
    assert response["object"] == "text_completion"
    assert response["usage"]["completion_tokens"] == 16


def test_server_given_temperature_0_repeats_the_text(server: local.Server) -> None:
    """The same prompt at temperature 0 gives the same text, whatever was requested in between."""
    first = text(server, max_tokens=60)
    assert first.strip()
    text(server, prompt="A class", max_tokens=60)
    assert text(server, max_tokens=60) == first


def test_server_given_the_same_seed_repeats_the_sampled_text(server: local.Server) -> None:
    """The same seed gives the same text at temperature 1, another seed another text."""
    first = text(server, temperature=1, seed=7, max_tokens=60)
    assert text(server, temperature=1, seed=7, max_tokens=60) == first
    assert text(server, temperature=1, seed=8, max_tokens=60) != first


def test_server_given_token_ids_takes_them_as_the_prompt(server: local.Server) -> None:
    """The ids that OpenAI's reference gives as an example exist in the bundled vocabulary."""
    assert complete(server, prompt=[1212, 318, 257, 1332, 13])["usage"]["prompt_tokens"] == 5


def test_server_given_stream_true_sends_events_that_add_up_to_the_text(server: local.Server) -> None:
    """The events of a stream add up to the text of the plain response, and the stream ends as OpenAI's does."""
    response = requests.post(
        f"{server.url}/completions",
        json={"prompt": "A class definition", "max_tokens": 16, "temperature": 0, "stream": True},
        timeout=60,
    )
    events = [
        line.removeprefix("data: ") for line in response.content.decode().splitlines() if line.startswith("data: ")
    ]
    assert events.pop() == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events) == text(server)


def test_server_given_more_clients_than_slots_responds_to_all(server: local.Server) -> None:
    """More clients than parallel slots all get a response."""
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda number: complete(server, prompt=f"Item {number}", ignore_eos=True), range(48)))
    assert {response["usage"]["completion_tokens"] for response in responses} == {16}


@pytest.mark.parametrize("n_parallel", [1, 3])
def test_server_with_parallel_slots_gives_each_request_the_whole_context(n_parallel: int) -> None:
    """256 tokens of prompt and completion fit, however many slots share the engine; the next one does not."""
    with local.Server(n_parallel=n_parallel) as server:
        longest = {"prompt": [1212] * 200, "max_tokens": 100, "ignore_eos": True}
        assert complete(server, **longest)["usage"]["total_tokens"] == 256
        with pytest.raises(requests.HTTPError, match="400"):
            complete(server, prompt=[1212] * 257)


# Models


def test_server_given_another_gguf_file_serves_it_under_its_name(tmp_path: Path) -> None:
    """Any GGUF file is served, under its own name."""
    mine = tmp_path / "mine.gguf"
    shutil.copy(BUNDLED, mine)
    with local.Server(mine, n_parallel=2) as server:
        response = complete(server)
    assert response["model"] == "mine"
    assert response["usage"]["completion_tokens"] == 16


def test_model_bundled_with_the_package_is_at_most_2_5_mb() -> None:
    """The model adds at most 2.5 MB to the package."""
    assert BUNDLED.stat().st_size <= 2_500_000


def test_server_given_a_missing_model_raises_file_not_found_error(tmp_path: Path) -> None:
    """A path without a file is an error that names it."""
    with pytest.raises(FileNotFoundError, match=r"absent\.gguf"):
        local.Server(tmp_path / "absent.gguf")


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 a zip", b"{}"])
def test_server_given_a_file_that_is_not_gguf_raises_value_error(tmp_path: Path, content: bytes) -> None:
    """The error names the file, what was expected and what is there."""
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.bin.*b'GGUF'") as refusal:
        local.Server(path)
    assert repr(content[:4]) in str(refusal.value)


@pytest.mark.parametrize("damage", ["magic only", "truncated", "zeros", "another architecture"])
def test_server_given_a_damaged_model_raises_and_the_next_one_serves(tmp_path: Path, damage: str) -> None:
    """A file with the right magic and wrong contents is an error that names it; the process goes on to serve."""
    whole = BUNDLED.read_bytes()
    path = tmp_path / "damaged.gguf"
    path.write_bytes(
        {
            "magic only": whole[:4],
            "truncated": whole[: len(whole) // 2],
            "zeros": whole[:8] + bytes(5000),
            "another architecture": whole.replace(b"llama", b"lemma"),
        }[damage]
    )
    program = """
        import sys
        from gpt import local
        try:
            local.Server(sys.argv[1])
        except RuntimeError as error:
            print(error)
        with local.Server():
            print("serves")
    """
    finished = run(program, path)
    assert finished.returncode == 0, finished.stderr
    complaint, last = finished.stdout.splitlines()
    assert str(path) in complaint
    assert last == "serves"


# Options


def test_server_without_xllamacpp_raises_import_error_with_the_install_command() -> None:
    """Without xllamacpp the module imports, and a Server says what to install."""
    program = """
        import sys
        sys.modules["xllamacpp"] = None
        from gpt import local
        try:
            local.Server()
        except ImportError as error:
            print(error)
    """
    finished = run(program)
    assert finished.returncode == 0, finished.stderr
    assert "pip install '.[local]' in a clone of gpt-sdk" in finished.stdout


def test_server_started_and_closed_loads_no_engine_into_this_process() -> None:
    """Neither the import nor a Server loads the engine into this process."""
    finished = run("import sys; from gpt import local; local.Server().close(); print('xllamacpp' in sys.modules)")
    assert finished.stdout.strip() == "False", finished.stderr


def test_server_given_a_key_keeps_it_out_of_the_process_list() -> None:
    """A key goes to the engine where other users of the machine cannot read it."""
    with local.Server(api_key="a-secret-key"):
        listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, timeout=60, check=True)
        assert "engine.py" in listed.stdout
        assert "a-secret-key" not in listed.stdout


@pytest.mark.parametrize(
    "options",
    [
        {"n_parallel": 0},
        {"n_parallel": 257},
        {"n_parallel": 1.5},
        {"port": -1},
        {"port": 65_536},
        {"port": "8080"},
        {"api_key": ""},
        {"api_key": " "},
        {"api_key": b"key"},
    ],
)
def test_server_given_an_invalid_option_raises_value_error(options: dict[str, Any]) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match=next(iter(options))):
        local.Server(**options)


def test_server_given_a_key_responds_401_without_it() -> None:
    """With a key, a request without it or with another is a 401; the key shows in no repr."""
    with local.Server(api_key="a-secret-key") as server:
        url = f"{server.url}/completions"
        body: dict[str, Any] = {"prompt": "A class", "max_tokens": 1}
        right, wrong = {"Authorization": "Bearer a-secret-key"}, {"Authorization": "Bearer another"}
        assert requests.post(url, json=body, timeout=60).status_code == 401
        assert requests.post(url, json=body, headers=wrong, timeout=60).status_code == 401
        assert requests.post(url, json=body, headers=right, timeout=60).status_code == 200
        assert "secret" not in repr(server)
        assert server.url in repr(server)


def test_server_given_a_taken_port_raises_os_error(server: local.Server) -> None:
    """A port that anything listens on, a socket or another server, is an OSError."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match=str(taken.getsockname()[1])):
        local.Server(port=taken.getsockname()[1])
    with pytest.raises(OSError, match=str(port_of(server))):
        local.Server(port=port_of(server))


def test_server_given_the_port_of_a_closed_server_serves_on_it() -> None:
    """A port is served again as soon as a server before it has closed."""
    with local.Server() as before:
        complete(before)
    with local.Server(port=port_of(before)) as server:
        assert server.url == before.url
        complete(server)


def test_server_given_a_foreign_origin_sends_no_cors_header(server: local.Server) -> None:
    """A browser hands the response to pages served from this machine only."""
    url = f"{server.url}/models"
    near = requests.get(url, headers={"Origin": "http://localhost:3000"}, timeout=60)
    far = requests.get(url, headers={"Origin": "https://example.com"}, timeout=60)
    assert near.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert "Access-Control-Allow-Origin" not in far.headers


# Its end


def test_server_closed_twice_refuses_connections() -> None:
    """A closed server refuses connections, says that it is closed, and may be closed again."""
    server = local.Server()
    complete(server)
    server.close()
    server.close()
    assert "closed" in repr(server)
    with pytest.raises(requests.ConnectionError):
        complete(server)


def test_server_in_a_with_block_that_fails_is_closed() -> None:
    """An error in the with block closes the server and goes on."""
    with pytest.raises(KeyError), local.Server() as server:
        raise KeyError
    with pytest.raises(requests.ConnectionError):
        complete(server)


def test_server_closed_beside_others_leaves_their_connections_open(server: local.Server) -> None:
    """Closing one server leaves the others, their clients and every other connection of the process alone."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as ours,
        requests.Session() as session,
    ):
        there, _ = listener.accept()
        session.get(f"{server.url}/models", timeout=60).raise_for_status()
        with local.Server() as other:
            complete(other)
        ours.sendall(b"still here")
        with there:
            assert there.recv(10) == b"still here"
        session.get(f"{server.url}/models", timeout=60).raise_for_status()
    complete(server)


BUSY = """
    import sys, threading, time
    import requests
    from gpt import local

    server = local.Server()
    url = f"{server.url}/completions"
    responses = []

    def ask_for_ever(stream):
        body = {"prompt": "A class", "max_tokens": 250, "ignore_eos": True, "stream": stream}
        while True:
            try:
                responses.append(requests.post(url, json=body, timeout=60))
            except requests.RequestException:
                pass

    for number in range(8):
        threading.Thread(target=ask_for_ever, args=(number % 2 == 0,), daemon=True).start()
    while len(responses) < 8:
        time.sleep(0.01)
"""


@pytest.mark.parametrize("last", ["server.close()", "del server", "pass"])
def test_server_closed_under_load_ends_without_delay(last: str) -> None:
    """Clients that never stop sending, in this very process, hold up neither close nor the end of the process."""
    finished = run(textwrap.dedent(BUSY) + last + "\nprint('over')")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "over\n", "")


def test_server_closed_during_an_unread_stream_cuts_it_off() -> None:
    """A consumer that stopped reading does not hold up close, and learns that the rest will not come."""
    with local.Server() as server:
        response = requests.post(
            f"{server.url}/completions",
            json={"prompt": "A class", "stream": True, "ignore_eos": True, "max_tokens": 250},
            stream=True,
            timeout=60,
        )
    response.close()
    with pytest.raises(requests.ConnectionError):
        complete(server)


WEDGED = """
    import os, sys, threading, time
    import requests
    from gpt import local

    server = local.Server(n_parallel=1)
    url = f"{server.url}/completions"

    def wedge():
        body = {"prompt": "a", "grammar": "root ::= " + '("a"?)' * 1000, "max_tokens": 5}
        try:
            requests.post(url, json=body, timeout=100)
        except requests.ConnectionError:
            print("cut off")

    thread = threading.Thread(target=wedge, daemon=True)
    thread.start()
    time.sleep(1)
    try:
        requests.post(url, json={"prompt": "a", "max_tokens": 1}, timeout=1)
    except requests.Timeout:
        print("nobody else is served")
"""


def test_server_closed_with_a_wedged_engine_cuts_the_request_off() -> None:
    """A grammar that keeps llama.cpp busy for ever freezes neither close nor the process; its request is cut off."""
    finished = run(textwrap.dedent(WEDGED) + "server.close()\nthread.join()\nprint('over')")
    assert finished.stdout.splitlines() == ["nobody else is served", "cut off", "over"], finished.stderr


def test_server_whose_process_is_killed_leaves_no_engine() -> None:
    """A process that is killed leaves no engine behind, a wedged one neither."""
    finished = run(textwrap.dedent(WEDGED) + "print(server.url, flush=True)\nos.kill(os.getpid(), 9)")
    url = finished.stdout.splitlines()[-1]
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", int(url.removesuffix("/v1").rpartition(":")[2])), 1).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("it still listens")


def test_server_given_ctrl_c_keeps_its_engine_running() -> None:
    """A SIGINT to the whole process group, as a terminal sends it, leaves requests in flight alone."""
    program = """
        import os, signal, time
        import requests
        from gpt import local
        signal.signal(signal.SIGINT, lambda *_: None)
        with local.Server() as server:
            os.killpg(os.getpgrp(), signal.SIGINT)
            time.sleep(1)  # an engine that had got it would be gone by now
            print(requests.get(f"{server.url}/models", timeout=60).status_code)
    """
    finished = run(program, start_new_session=True)
    assert (finished.returncode, finished.stdout) == (0, "200\n"), finished.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_server_used_by_a_forked_child_lets_the_child_exit() -> None:
    """A forked child may use the engine, start one of its own, and end in the ordinary way."""
    program = """
        import os, sys, warnings
        import requests
        from gpt import local
        warnings.simplefilter("ignore", DeprecationWarning)
        with local.Server() as server:
            child = os.fork()
            if child == 0:
                requests.get(f"{server.url}/models", timeout=60).raise_for_status()
                with local.Server() as other:
                    requests.get(f"{other.url}/models", timeout=60).raise_for_status()
                sys.exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            print(requests.get(f"{server.url}/models", timeout=60).status_code)
    """
    finished = run(program)
    assert (finished.returncode, finished.stdout) == (0, "7\n200\n"), finished.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_server_closed_in_a_forked_child_keeps_running_in_the_parent() -> None:
    """Closing the copy that a child process has leaves the parent's server alone."""
    program = """
        import os, warnings
        import requests
        from gpt import local
        warnings.simplefilter("ignore", DeprecationWarning)
        with local.Server() as server:
            child = os.fork()
            if child == 0:
                server.close()
                os._exit(0)
            os.waitpid(child, 0)
            print(requests.get(f"{server.url}/models", timeout=60).status_code)
    """
    finished = run(program)
    assert (finished.returncode, finished.stdout) == (0, "200\n"), finished.stderr


def test_server_with_good_and_damaged_models_prints_nothing(tmp_path: Path) -> None:
    """Neither stream hears of the engine: whoever pipes the response gets the response alone."""
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(BUNDLED.read_bytes()[:100_000])
    mine = tmp_path / "mine.gguf"
    shutil.copy(BUNDLED, mine)
    program = """
        import contextlib, sys
        import requests
        from gpt import local
        for model in (None, *sys.argv[1:]):
            with contextlib.suppress(RuntimeError), local.Server(model) as server:
                requests.post(f"{server.url}/completions", json={"prompt": "A class", "max_tokens": 3}, timeout=60)
                requests.post(f"{server.url}/completions", json={"prompt": 5}, timeout=60)
    """
    finished = run(program, damaged, mine)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
