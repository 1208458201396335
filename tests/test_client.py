"""The client: what it retries, reads and prints."""

import http.server
import json
import re
import threading
import time

import classification
import connection
import pytest
import serving_cases
from cases import pixels
from serving_cases import CLASS_NAMES
from serving_cases import SCHEMES
from serving_cases import broken
from serving_cases import png

ANSWER = {
    "classes": [[1, 0], [0, 1]],
    "probabilities": [[0.25, 0.75], [0.5, 0.5]],
    "gates": [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]],
    "macs": [12345, 678],
}


class Scripted:
    """A connection that gives answers, or raises, in the order it is told."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def predict(self, signature, inputs, seconds):
        self.requests.append((signature, inputs, seconds))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def short_pauses(monkeypatch):
    monkeypatch.setattr(connection, "_FIRST_PAUSE", 0.01)


@pytest.fixture
def pictures(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "c.jpeg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def row(number):
    return {
        name: values[number : number + 1] for name, values in ANSWER.items()
    }


def test_what_may_pass_is_tried_again(short_pauses):
    service = Scripted(*3 * [connection.Unavailable("busy")], ANSWER)
    got = connection.with_retries(
        lambda left: service.predict("image_bytes", {}, left), 10.0
    )
    assert got is ANSWER
    left = [seconds for _, _, seconds in service.requests]
    assert left == sorted(left, reverse=True) and left[0] <= 10.0


@pytest.mark.parametrize("kind", [connection.Rejected, connection.Failure])
def test_what_will_not_pass_is_not(kind):
    service = Scripted(kind("no"), ANSWER)
    with pytest.raises(kind, match="no"):
        connection.with_retries(
            lambda left: service.predict("image_bytes", {}, left), 10.0
        )
    assert len(service.requests) == 1


def test_attempts_end_with_the_deadline():
    service = Scripted(*99 * [connection.Unavailable("busy")])
    start = time.monotonic()
    with pytest.raises(connection.Failure, match=r"busy \(attempts within"):
        connection.with_retries(
            lambda left: service.predict("image_bytes", {}, left), 0.5
        )
    assert time.monotonic() - start < 0.5
    # Pauses of 0.05, 0.1 and 0.2 s at least; the next is 0.4 s.
    assert 2 <= len(service.requests) <= 4


@pytest.fixture
def scripted_server():
    """A REST server that answers with the codes it is given."""
    codes = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            code = codes.pop(0)
            self.send_response(code)
            self.end_headers()
            answer = {"error": f"says {code}"}
            if code == 200:
                answer = {"outputs": ANSWER}
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    service = connection.connect(
        f"http://localhost:{server.server_port}", "skipnet"
    )
    yield codes, service
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("code", [503, 429])
def test_a_busy_server_is_asked_again(scripted_server, short_pauses, code):
    codes, service = scripted_server
    codes += [code, code, 200]
    got = connection.with_retries(
        lambda left: service.predict("image_bytes", {"bytes": [b""]}, left), 9
    )
    assert got == ANSWER and not codes


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, connection.Rejected),
        (413, connection.Rejected),
        (404, connection.Failure),
        (500, connection.Failure),
        (504, connection.Failure),
    ],
)
def test_other_codes_are_final(scripted_server, code, kind):
    codes, service = scripted_server
    codes += [code, 200]
    with pytest.raises(connection.Failure, match=f"HTTP {code}: says") as got:
        connection.with_retries(
            lambda left: service.predict("image_bytes", {}, left), 9.0
        )
    assert got.type is kind and codes == [200]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_not_there_is_unavailable(scheme):
    # Nothing can listen at port 1 without being asked to by the superuser.
    service = connection.connect(f"{scheme}://localhost:1", "skipnet")
    with pytest.raises(connection.Unavailable, match="(?i)refused"):
        service.predict("image_bytes", {"bytes": [b""]}, 5.0)


def test_urls_are_checked():
    for url in ("localhost:8501", "ftp://localhost", "http://"):
        with pytest.raises(ValueError, match=f"`url`.*Received: url={url}"):
            connection.connect(url, "skipnet")


def test_images_of_a_folder_are_sorted_and_others_left_out(pictures):
    found = classification.find_images([str(pictures), "-"])
    names = ["a.jpg", "b.PNG", "c.jpeg"]
    assert found == [*(str(pictures / name) for name in names), "-"]
    assert classification.find_images([]) == ["-"]


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no .jpg"):
        classification.find_images([str(tmp_path)])


def test_an_image_is_described_in_one_line():
    named = {"class_names": ["cat", "dog"]}
    first = {name: values[0] for name, values in ANSWER.items()}
    # Two of three gates are open, and the first block has none.
    expected = "class 1 0.750, 3 of 4 blocks, 12,345 multiply-adds"
    assert classification.describe(first) == expected
    assert classification.describe(first | named).startswith("cat 0.750")


def test_a_rejected_batch_is_sent_again_one_by_one(pictures):
    rejected = connection.Rejected("broken")
    service = Scripted(rejected, row(0), rejected, row(1))
    names = classification.find_images([str(pictures)])
    got = dict(
        classification.classify(
            service, names, classification.Request(), batch=3
        )
    )
    assert list(got) == names
    assert got[names[0]].startswith("class 1 0.750, 3 of 4 blocks")
    assert got[names[1]] is rejected
    assert got[names[2]].startswith("class 0 0.500, 1 of 4 blocks")
    sent = [len(inputs["bytes"]) for _, inputs, _ in service.requests]
    assert sent == [3, 1, 1, 1]


def test_a_file_that_cannot_be_read_spoils_no_other(pictures):
    names = [str(pictures / "a.jpg"), str(pictures / "gone.png")]
    service = Scripted(row(0))
    got = dict(
        classification.classify(
            service, names, classification.Request(), batch=2
        )
    )
    assert isinstance(got[names[1]], FileNotFoundError)
    assert got[names[0]].startswith("class 1")


def test_a_server_that_fails_ends_the_run(pictures):
    names = classification.find_images([str(pictures)])
    service = Scripted(row(0), connection.Failure("HTTP 404: no such model"))
    got = classification.classify(service, names, classification.Request())
    next(got)
    with pytest.raises(connection.Failure, match="no such model"):
        next(got)


def test_threshold_and_signature_go_together():
    for wrong in ({"threshold": 0.5}, {"signature": "tunable"}):
        with pytest.raises(ValueError, match="signature=tunable. Received"):
            classification.Request(**wrong)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return serving_cases.export_tiny(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(folder):
    with serving_cases.serve(folder) as server:
        yield server


@pytest.fixture(scope="module")
def direct(folder):
    return serving_cases.direct(folder)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_client_prints_a_line_for_each_image(
    server, direct, tmp_path, scheme
):
    images = pixels(3)
    for name, image in zip("abd", images, strict=True):
        (tmp_path / f"{name}.png").write_bytes(png(image))
    (tmp_path / "c.jpg").write_bytes(broken("jpeg"))
    expected = direct("serving_default", {"images": images})
    for batch in (1, 3):
        got = dict(
            classification.classify(
                server.services[scheme],
                classification.find_images([str(tmp_path)]),
                classification.Request(),
                batch,
            )
        )
        lines = [got[str(tmp_path / f"{name}.png")] for name in "abd"]
        for row, line in enumerate(lines):
            best = expected["classes"][row][0]
            executed = 1 + int(sum(expected["gates"][row]))
            probability = expected["probabilities"][row][best]
            begin, end = line.split(" blocks, ")
            assert begin == (
                f"{CLASS_NAMES[best]} {probability:.3f}, {executed} of 4"
            )
            macs = f"{expected['macs'][row]:,}"
            assert re.fullmatch(rf"{macs} multiply-adds, \d+\.\d ms", end)
        assert isinstance(got[str(tmp_path / "c.jpg")], connection.Rejected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_client_tunes(server, direct, tmp_path, scheme):
    (image,) = pixels(1)
    (tmp_path / "a.png").write_bytes(png(image))
    for threshold in (0.0, 1.0):
        ((_, line),) = classification.classify(
            server.services[scheme],
            [str(tmp_path / "a.png")],
            classification.Request("tunable", threshold, "digits"),
        )
        # Probabilities are above 0 and below 1.
        assert f"{1 if threshold else 4} of 4 blocks" in line
    ((_, error),) = classification.classify(
        server.services[scheme],
        [str(tmp_path / "a.png")],
        classification.Request("tunable", 2.0),
    )
    assert isinstance(error, connection.Rejected)
