"""The previous release's messages and files, recorded by tests/neighbour/record.py, and programs that replay them.

Run as a program, it stands in for a worker, switch or vdpa-pmd of the previous release that vdpa-datapath supervises:
neighbour.py DIALOGUES CONTROL DIRECTORY holds the lock and the control socket, answers as the recorded process did, prints each
requested operation, and ends at "stop"."""

import fcntl
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
from concurrent import futures

HERE = pathlib.Path(__file__).resolve().parents[1] / "neighbour"
VERSION, COMMIT = (HERE / "previous-release").read_text().split()
RECORDED = HERE / VERSION
BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")
NETNS = "/proc/self/ns/net"  # the same for every recorded pod


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


def exchanges(dialogue):
    """The pairs (request, answer) in the order of the requests."""
    answers = {message["from"]["id"]: message["from"] for message in dialogue if "id" in message.get("from", {})}
    requests = sorted((message["to"] for message in dialogue if "to" in message), key=lambda request: request["id"])
    return [(request, answers[request["id"]]) for request in requests]


def here(record):
    """Changes a record to this boot and to this machine's network namespace."""
    record["bootId"] = BOOT_ID.read_text().strip()
    if "owner" in record:
        namespace = os.stat(NETNS)
        record["owner"] |= {"netnsDevice": namespace.st_dev, "netnsInode": namespace.st_ino}
    return record


def leave_state(directory, *devices):
    """Writes the previous release's files of these devices to the state and run directories of a Datapath."""
    (directory / "state/owners").mkdir(parents=True)
    for device in devices:
        record = here(json.loads((RECORDED / f"state/owners/{device}.json").read_text()))
        (directory / f"state/owners/{device}.json").write_text(json.dumps(record, indent=2))
        shutil.copytree(RECORDED / "run/devices" / device, directory / "run/devices" / device)


# --- the gRPC side

def messages():
    """The previous release's own message types by name, separate from ours."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    done = subprocess.run(["protoc", f"--proto_path={RECORDED}", "--descriptor_set_out=/dev/stdout", "datapath.proto"],
                          capture_output=True, check=True)
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(done.stdout).file:
        pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    return lambda name: factory.GetPrototype(pool.FindMessageTypeByName(f"vdpa.datapath.v1.{name}"))


class Answers:
    """A datapath that answers each call with the recorded bytes, in the order of that method's calls; it repeats the last one.
    `change` may alter an answer: change(method, bytes) -> bytes."""

    def __init__(self, path, *recordings, change=lambda method, answer: answer):
        import grpc
        self.path = path
        self.asked = []    # (method, bytes of the request)
        self._change = change
        self._lock = threading.Lock()
        self._answers = {}
        for recording in recordings:
            for call in recording:
                answers = call["answers"] if call["method"] == "Watch" else [call["answer"]]
                self._answers.setdefault(call["method"], []).append([bytes.fromhex(answer) for answer in answers])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[self._handler(grpc)], options=[
            ("grpc.http2.min_ping_interval_without_data_ms", 500)])
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def _next(self, method, request):
        with self._lock:
            self.asked.append((method, request))
            answers = self._answers[method]
            return [self._change(method, answer) for answer in (answers.pop(0) if len(answers) > 1 else answers[0])]

    def _handler(self, grpc):
        answers = self

        def stream(request, context):
            yield from answers._next("Watch", request)
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait()

        class Handler(grpc.GenericRpcHandler):
            def service(self, details):
                method = details.method.rsplit("/", 1)[1]
                if method == "Watch":
                    return grpc.unary_stream_rpc_method_handler(stream)
                return grpc.unary_unary_rpc_method_handler(lambda request, _: answers._next(method, request)[0])
        return Handler()

    def methods(self):
        return [method for method, _ in self.asked]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()


# --- the supervised processes

def supervised(program, what, control, directory):
    """A recorded process, as a Program."""
    from support import Program
    name = f"{VERSION}-{program}-{what}"
    path = RECORDED / f"control/{program}-{what}.json"
    process = Program(name, [sys.executable, __file__, path, control, directory], directory)
    process.wait_log("listening")
    return process


def _answer(dialogues, request):
    """The most recent answer of the recorded process to such a request."""
    candidates = [(asked, answer) for dialogue in dialogues["started"] + dialogues["adopted"]
                  for asked, answer in exchanges(dialogue) if asked["op"] == request["op"]]
    same = [pair for pair in candidates if pair[0]["args"].get("id") == request["args"].get("id")] or candidates
    if not same:
        return {"error": f"unknown op '{request['op']}'"}
    return {key: value for key, value in same[-1][1].items() if key != "id"}


def _serve(client, dialogues, stopped):
    lines = client.makefile("rw")
    for line in lines:
        request = json.loads(line)
        print(f"asked: {request['op']} {json.dumps(request['args'])}", flush=True)
        answer = _answer(dialogues, request)
        if request["op"] == "hello":
            answer["ok"]["pid"] = os.getpid()
        if request["op"] == "stop":
            answer = {"ok": {}}
        lines.write(json.dumps({"id": request["id"], **answer}) + "\n")
        lines.flush()
        if request["op"] == "stop":
            stopped.set()


def _listen(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def _main(path, control, directory):
    text = pathlib.Path(path).read_text().replace("{dir}", directory)
    dialogues, control = json.loads(text), pathlib.Path(control)
    control.parent.mkdir(parents=True, exist_ok=True)
    lock = open(control.with_suffix(".lock"), "a", encoding="utf-8")  # pylint: disable=consider-using-with
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    hello = _answer(dialogues, {"op": "hello", "args": {}})["ok"]
    sockets = [_listen(pathlib.Path(hello["socket"]))] if "socket" in hello else []
    listener = _listen(control)
    stopped = threading.Event()

    def accept():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, dialogues, stopped), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    print("listening", flush=True)
    stopped.wait()
    for path in control, *(pathlib.Path(s.getsockname()) for s in sockets):
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
