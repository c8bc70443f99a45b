"""For t_takeover: what answers like a daemon, up to a point.

fake_daemon.py SOCKET STATE_DIR MODE
    old       knows no daemon.leave
    replaced  gives up its socket when asked for its pools, and answers on SIGUSR1
"""
import json
import os
import signal
import socket
import sys

PATH, STATE, MODE = sys.argv[1:4]


def refusal(code, name):
    return {"error": {"code": code, "message": name, "data": {"name": name, "errno": 1}}}


def pools():
    if MODE == "replaced":
        os.unlink(PATH)
        signal.sigwait([signal.SIGUSR1])
    return {"result": {"pools": []}}


def answer(method):
    if method == "daemon.info":
        return {"result": {"version": "0.0.9", "pid": os.getpid(), "state_dir": STATE}}
    if method == "pool.list":
        return pools()
    return refusal(-32601, "RPC_METHOD")


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
listener = socket.socket(socket.AF_UNIX)
listener.bind(PATH)
listener.listen(8)
while True:
    connection, _ = listener.accept()
    stream = connection.makefile("rw")
    for line in stream:
        request = json.loads(line)
        reply = {"jsonrpc": "2.0", "id": request["id"], **answer(request["method"])}
        stream.write(json.dumps(reply) + "\n")
        stream.flush()
