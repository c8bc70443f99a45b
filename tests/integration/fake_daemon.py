"""For t_takeover: what answers like a daemon, up to a point.

fake_daemon.py SOCKET STATE_DIR MODE
    old       knows no daemon.leave
    lies      gives another process's pid, its parent's, for its own
    pauses    when asked for its pools makes STATE_DIR/asked, and answers on SIGUSR1; leaves when told to
    hangs-up  closes the connection when it is told to leave, and stays
    ends      closes the connection when it is told to leave, and ends half a second later
"""
import json
import os
import signal
import socket
import sys
import time

PATH, STATE, MODE = sys.argv[1:4]


def refusal(code, name):
    return {"error": {"code": code, "message": name, "data": {"name": name, "errno": 1}}}


def info():
    pid = os.getppid() if MODE == "lies" else os.getpid()
    return {"result": {"version": "0.0.9", "pid": pid, "state_dir": STATE}}


def pools():
    if MODE == "pauses":
        with open(os.path.join(STATE, "asked"), "w"):
            pass
        signal.sigwait([signal.SIGUSR1])
    return {"result": {"pools": []}}


def answer(method):
    if method == "daemon.info":
        return info()
    if method == "pool.list":
        return pools()
    if method != "daemon.leave" or MODE == "old":
        return refusal(-32601, "RPC_METHOD")
    return {"result": {}} if MODE == "pauses" else None


def serve(connection):
    """True: it was told to leave, and does."""
    for line in connection.makefile("r"):
        request = json.loads(line)
        reply = answer(request["method"])
        if reply is None:
            return MODE == "ends"
        connection.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}).encode() + b"\n")
        if request["method"] == "daemon.leave" and "result" in reply:
            return True
    return False


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
signal.alarm(300)  # it does not outlive a test that failed
listener = socket.socket(socket.AF_UNIX)
listener.bind(PATH)
listener.listen(8)
left = False
while not left:
    connection, _ = listener.accept()
    left = serve(connection)
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()
time.sleep(0.5)
