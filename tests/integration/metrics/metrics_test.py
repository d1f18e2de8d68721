# SPDX-License-Identifier: Apache-2.0
"""Ranks whose numbers are known (metrics_member.c), looked at while they run; and clients that want
no metrics."""
import glob
import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import prometheus

KOLO = os.environ["BIN_DIR"] + "/kolo"
MEMBER = os.environ["TEST_DIR"] + "/metrics_member"
PATIENCE_S = 60
SMALL, LARGE, LARGE_BYTES, STEPS = 100, 3, 4 << 18, 4  # as in metrics_member.c


def free_ports():
    """The second of three neighbours that nobody has: kolo run's, and two ranks'."""
    for port in range(23001 + os.getpid() % 4000, 32000, 3):
        try:
            for p in (port - 1, port, port + 1):
                with socket.socket() as s:
                    s.bind(("0.0.0.0", p))
            return port
        except OSError:
            continue
    sys.exit("no free ports")


PORT = free_ports()


def get(port, path, host="127.0.0.1", method="GET", body=None):
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
    connection.request(method, path, body=body)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def scrape(port, host="127.0.0.1", launcher=False):
    answer, text = get(port, "/metrics", host)
    assert answer.status == 200, answer.status
    assert answer.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    return prometheus.read(text, launcher)


class Job:
    """Two ranks; they stop at places, each told by a file."""
    all = []

    def __init__(self, mode, ranks=2, port=None, prefix=(), **variables):
        for file in glob.glob("done.*") + glob.glob("aborted.*"):
            os.remove(file)
        environment = dict(os.environ, KOLO_TIMEOUT="60", KOLO_INIT_TIMEOUT="60")
        environment["KOLO_METRICS_PORT"] = str(PORT if port is None else port)
        environment.update(variables)
        self.ranks = ranks
        self.process = subprocess.Popen([KOLO, "run", "-n", str(ranks), "--", *prefix, MEMBER, mode],
                                        env=environment, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        Job.all.append(self.process)

    def reached(self, place):
        deadline = time.monotonic() + PATIENCE_S
        while not all(os.path.exists(f"{place}.{r}") for r in range(self.ranks)):
            assert time.monotonic() < deadline and self.process.poll() is None, self.end(place)
            time.sleep(0.02)

    def go_on(self, place):
        open(place + ".go", "w").close()

    def end(self, *places):
        for place in places:
            self.go_on(place)
        output = self.process.communicate(timeout=PATIENCE_S)[0]
        return self.process.returncode, output


def check_numbers(algorithm):
    """Operations, bytes, waits and failures of both ranks over TCP."""
    job = Job("all", KOLO_TRANSPORT="tcp", KOLO_ALGORITHM=algorithm)
    job.reached("done")
    ranks = [scrape(PORT), scrape(PORT + 1)]
    again = scrape(PORT)
    prometheus.check_grows(ranks[0], again)
    sent = []
    for rank, families in enumerate(ranks):
        def value(sample, **labels):
            return prometheus.value(families, sample, rank=str(rank), **labels)
        expected = prometheus.documented(os.environ["SOURCE_DIR"] + "/docs/METRICS.md")
        assert {n: f[0] for n, f in families.items()} == expected, "docs/METRICS.md has others"
        assert value("kolo_world_info", launcher="kolo") == 1
        assert value("kolo_world_size") == 2
        assert value("kolo_operations_total", collective="broadcast") == 1
        assert value("kolo_operation_bytes_total", collective="broadcast") == 1000
        assert value("kolo_operations_total", collective="send/recv") >= 7
        assert value("kolo_operation_bytes_total", collective="send/recv") >= 7000
        assert value("kolo_operations_total", collective="barrier") == 3 * 5 + 1
        assert value("kolo_operations_total", collective="allreduce") >= SMALL + LARGE
        assert value("kolo_operation_bytes_total", collective="allreduce") >= \
            SMALL * 8 + LARGE * LARGE_BYTES
        assert value("kolo_operation_seconds_count", collective="barrier") == 3 * 5 + 1
        assert value("kolo_reducer_steps_total") == 0
        assert value("kolo_received_bytes_total", transport="shm") == 0
        assert value("kolo_received_bytes_total", transport="mapped") == 0
        sent.append(value("kolo_sent_bytes_total", transport="tcp"))
        assert value("kolo_failures_total", status="KOLO_ERR_ABORTED") == 0
    # Nothing is on its way: what one sent the other has, and it is what the operations need.
    assert [prometheus.value(f, "kolo_received_bytes_total", transport="tcp") for f in ranks] == \
        sent[::-1], "not all that was sent has come"
    assert sent[0] > SMALL * 8 + LARGE * LARGE_BYTES + 1000 + 7000
    # Rank 1 came a second late.
    assert prometheus.value(ranks[0], "kolo_wait_seconds_total") > 0.3
    assert prometheus.value(ranks[0], "kolo_peer_wait_seconds_total", peer="1") > 0.3
    assert prometheus.value(ranks[0], "kolo_late_arrivals_total", peer="1") >= 1
    assert prometheus.value(ranks[0], "kolo_operation_seconds_sum", collective="barrier") > 0.3
    job.go_on("done")
    job.reached("aborted")
    for rank in range(2):
        after = scrape(PORT + rank)
        prometheus.check_grows(ranks[rank], after)
        assert [labels["status"] for _, labels, v in after["kolo_failures_total"][2] if v == 1] == \
            ["KOLO_ERR_ABORTED"]
        assert prometheus.value(after, "kolo_reducer_steps_total") == STEPS
        assert prometheus.value(after, "kolo_reducer_wait_seconds_total") > 0
    assert job.end("aborted")[0] == 0


def check_mapped():
    """Through shared memory: half of each vector is read at the other rank, and half written."""
    job = Job("mapped", KOLO_TRANSPORT="shm", KOLO_ALGORITHM="shm_direct")
    job.reached("done")
    for rank in range(2):
        families = scrape(PORT + rank)
        payload = SMALL * 8 + LARGE * LARGE_BYTES
        assert prometheus.value(families, "kolo_operations_total", collective="allreduce") == \
            SMALL + LARGE
        assert prometheus.value(families, "kolo_operation_bytes_total",
                                collective="allreduce") == payload
        for way in "sent", "received":
            assert prometheus.value(families, f"kolo_{way}_bytes_total",
                                    transport="mapped") == payload / 2, way
            assert prometheus.value(families, f"kolo_{way}_bytes_total", transport="tcp") == 0
    assert job.end("done")[0] == 0


def raw(data):
    """What comes back until the end of the connection; no more than the data will come."""
    answer = b""
    with socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE_S) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while part := s.recv(65536):
                answer += part
        except OSError as error:  # the server has ended it already
            assert not isinstance(error, TimeoutError), data[:20]
    return answer


class Drip(threading.Thread):
    """Clients that never come to an end, each with a byte now and then, so that none is silent."""

    def __init__(self, count):
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.sockets = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(count)]
        self.send(b"GET /metrics HTTP/1.1\r\nx: ")
        self.start()

    def send(self, data):
        for s in self.sockets:
            try:
                s.sendall(data)
            except OSError:
                pass

    def run(self):
        while not self.stop.wait(0.2):
            self.send(b"x")

    def end(self):
        self.stop.set()
        self.join()
        for s in self.sockets:
            s.close()


def check_strangers():
    """Others than Prometheus get little, hold nothing up, and the job does not notice."""
    job = Job("mapped")
    job.reached("done")
    answer, text = get(PORT, "/healthz")
    assert (answer.status, text) == (200, "ok\n")
    assert get(PORT, "/metrics", method="HEAD")[0].status == 200
    for path in "/", "/metrics/", "/metrics2", "/../etc/passwd", "/" + "x" * 2000:
        assert get(PORT, path)[0].status == 404, path
    for method in "POST", "PUT", "DELETE", "OPTIONS":
        answer = raw(f"{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 405 "), answer[:60]
    # A body is not read: the answer comes before it does.
    answer = raw(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4"), answer[:60]
    for garbage in (b"\0" * 4096, os.urandom(65536), b"\x16\x03\x01\x02\x00\x01", b"GET",
                    b"GET /metrics HTTP/1.1\r\n" + b"x: y\r\n" * 100000,
                    b"GET /" + b"a" * 1000000 + b" HTTP/1.1\r\n\r\n"):
        assert b" 200 " not in raw(garbage)[:20], garbage[:20]
    # Who never ends gives way to who comes; who says nothing is let go.
    drip = Drip(100)
    scrape(PORT)
    scrape(PORT)
    drip.end()
    with socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE_S) as s:
        assert s.recv(1) == b""
    scrape(PORT)
    assert job.end("done")[0] == 0


def check_launcher():
    """What kolo run shows of its ranks, one port below the first: who runs, how the others ended."""
    if os.path.exists("over.go"):
        os.remove("over.go")
    script = 'test $KOLO_RANK = 0 || exit 7; trap "" TERM; while [ ! -e over.go ]; do sleep 0.05; done'
    process = subprocess.Popen([KOLO, "run", "-n", "3", "--", "sh", "-c", script],
                               env=dict(os.environ, KOLO_METRICS_PORT=str(PORT)))
    Job.all.append(process)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            families = scrape(PORT - 1, launcher=True)
            if prometheus.value(families, "kolo_launcher_ranks_ended_total", code="7") == 2:
                break
        except OSError:
            pass  # not yet
        except AssertionError as error:
            assert "ended_total" in str(error)
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    expected = prometheus.documented(os.environ["SOURCE_DIR"] + "/docs/METRICS.md", launchers=True)
    assert {n: f[0] for n, f in families.items()} == expected, "docs/METRICS.md has others"
    assert prometheus.value(families, "kolo_launcher_info", role="run") == 1
    assert prometheus.value(families, "kolo_launcher_ranks") == 1
    assert prometheus.value(families, "kolo_launcher_ranks_started_total") == 3
    assert prometheus.value(families, "kolo_launcher_ranks_ended_total", code="0") == 0
    assert 0 <= time.time() - prometheus.value(families, "kolo_launcher_start_time_seconds") < 3600
    open("over.go", "w").close()
    process.wait(timeout=PATIENCE_S)
    # A port in use is a word only to who asked for metrics: a pod's agent has it when something is run beside it.
    for port, variables, said in (9699, {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, ""), \
            (PORT - 1, {"KOLO_METRICS_PORT": str(PORT)}, "no metrics of kolo run"):
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before may linger
            try:
                taken.bind(("0.0.0.0", port))
                taken.listen()
            except OSError:
                pass  # then somebody else has it
            done = subprocess.run([KOLO, "run", "-n", "1", "--", "true"], env=dict(os.environ, **variables),
                                  capture_output=True, text=True, check=True, timeout=PATIENCE_S)
        assert said in done.stderr and bool(said) == bool(done.stderr), done.stderr


def check_places():
    """Where it listens, and what is said where it does not."""
    def answers(host):
        try:
            scrape(PORT, host)
            return True
        except ConnectionRefusedError:
            return False
    pod = ("env", "KUBERNETES_SERVICE_HOST=10.96.0.1")
    for port, prefix, everywhere in (PORT, (), False), (f"0.0.0.0:{PORT}", (), True), \
            (f"*:{PORT}", (), True), (PORT, pod, True), (f"127.0.0.1:{PORT}", pod, False):
        job = Job("mapped", ranks=1, port=port, prefix=prefix)
        job.reached("done")
        assert answers("127.0.0.1"), port
        assert answers("127.0.0.2") == everywhere, (port, prefix)
        assert job.end("done")[0] == 0
    for port, prefix in ("", ()), ("0", ()), ("0", pod):
        job = Job("mapped", ranks=1, port=port, prefix=prefix)
        job.reached("done")
        assert not answers("127.0.0.1")
        assert job.end("done")[0] == 0
    for port in "x", "-1", "65536", "localhost:", "127.0.0.1:0", "9700 ":
        code, output = Job("mapped", ranks=1, port=port).end("done")
        assert code != 0 and "KOLO_METRICS_PORT=" + port in output, output
    # A port in use, an address of another host: a warning, and the job goes on.
    with socket.create_server(("127.0.0.1", PORT)):
        for port in PORT, f"192.0.2.1:{PORT}":
            code, output = Job("mapped", ranks=1, port=port).end("done")
            assert code == 0 and "no metrics of this rank: cannot listen on" in output, output


def check_without_module():
    """Who asks for metrics learns what is missing; a pod that did not ask goes on."""
    os.makedirs("alone", exist_ok=True)
    library = os.environ["BUILD_DIR"] + "/lib/libkolo.so.0"
    shutil.copy(library, "alone/libkolo.so.0")
    code, output = Job("mapped", ranks=1, prefix=("env", "LD_LIBRARY_PATH=alone")).end("done")
    assert code != 0 and "Install libmicrohttpd-dev" in output, output
    pod = ("env", "LD_LIBRARY_PATH=alone", "KUBERNETES_SERVICE_HOST=10.96.0.1")
    code, output = Job("mapped", ranks=1, port="", prefix=pod).end("done")
    assert code == 0, output


try:
    for algorithm in "ring", "":
        check_numbers(algorithm)
    check_mapped()
    check_strangers()
    check_launcher()
    check_places()
    check_without_module()
finally:  # nothing outlives a test that fails
    for process in Job.all:
        if process.poll() is None:
            process.terminate()
            process.wait()
print("ok")
