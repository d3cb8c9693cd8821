"""The guest's side of vm.py: runs the host's commands over a virtio-serial port, one JSON object per line both ways.

It starts as the guest's first process, which only reaps orphans; its child serves, and when the child ends, the guest powers
off.
"""

import json
import os
import pathlib
import signal
import subprocess
import threading
import time

PORT = "vdpa.agent"
OUTPUT_LIMIT = 4 << 20


def main():
    child = os.fork()
    if child == 0:
        serve()
        os._exit(0)
    while os.waitpid(-1, 0)[0] != child:
        pass
    subprocess.run(["busybox", "poweroff", "-f"], check=False)


def open_port():
    subprocess.run(["modprobe", "virtio_console"], check=True)
    while True:
        for name in pathlib.Path("/sys/class/virtio-ports").glob("*/name"):
            if name.read_text(encoding="ascii").strip() == PORT:
                return os.open(f"/dev/{name.parent.name}", os.O_RDWR)
        time.sleep(0.05)


def serve():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    port = open_port()
    writing = threading.Lock()
    programs = {}

    def send(answer):
        line = json.dumps(answer).encode() + b"\n"
        with writing:
            while line:
                line = line[os.write(port, line):]

    def handle(request):
        try:
            answer = HANDLERS[request["do"]](programs, request)
        except (OSError, KeyError, ValueError) as e:
            answer = {"error": f"{type(e).__name__}: {e}"}
        send(answer | {"id": request["id"]})

    send({"id": 0})
    received = b""
    while True:
        data = os.read(port, 65536)
        if not data:          # the host isn't there
            return
        *lines, received = (received + data).split(b"\n")
        for line in lines:
            threading.Thread(target=handle, args=(json.loads(line),), daemon=True).start()


def popen(command, output):
    return subprocess.Popen(["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                            start_new_session=True)


def run(_, request):
    """Runs it to its end or its deadline. The output is a file, not a pipe, since background processes may keep it open."""
    with open(f"/tmp/agent-{request['id']}", "w+b") as output:
        os.unlink(output.name)
        process = popen(request["command"], output)
        try:
            code = process.wait(request["timeout"])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        size = os.fstat(output.fileno()).st_size
        output.seek(max(0, size - OUTPUT_LIMIT))
        return {"code": code, "output": output.read().decode(errors="replace")}


def start(programs, request):
    with open(request["log"], "ab") as log:
        process = popen("exec " + request["command"], log)
    programs[process.pid] = process
    return {"pid": process.pid}


def wait(programs, request):
    try:
        return {"code": programs[request["pid"]].wait(request["timeout"])}
    except subprocess.TimeoutExpired:
        return {"code": None}


def kill(programs, request):
    """The program and all processes in its session."""
    process = programs[request["pid"]]
    if process.poll() is None:
        os.killpg(process.pid, request["signal"])
    return {}


HANDLERS = {"run": run, "start": start, "wait": wait, "kill": kill}

if __name__ == "__main__":
    main()
