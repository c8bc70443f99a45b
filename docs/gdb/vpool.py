"""gdb helpers: coroutines of the vpool engine.

    (gdb) source docs/gdb/vpool.py
    (gdb) vpool-co                  # all coroutines of the selected thread's reactor, with `why`
    (gdb) vpool-co-bt ADDRESS       # backtrace of a suspended one (live process only)

From another thread, or where thread-local variables cannot be read, give the reactor's address:
vpool-co ADDRESS.
"""
import gdb

STATES = ("idle", "ready", "running", "suspended")


def reactor(argument):
    if argument:
        return gdb.parse_and_eval(f"*(struct reactor *)({argument})")
    current = gdb.parse_and_eval("reactor_current")
    if not int(current):
        raise gdb.GdbError("this thread runs no reactor; give a reactor's address")
    return current.dereference()


def coroutines(r):
    """Walks reactor.live."""
    co_type = gdb.lookup_type("struct co")
    offset = next(f.bitpos // 8 for f in co_type.fields() if f.name == "live_link")
    head = r["live"].address
    link = r["live"]["next"]
    while int(link) != int(head):
        yield gdb.Value(int(link) - offset).cast(co_type.pointer())
        link = link["next"]


class Coroutines(gdb.Command):
    """List the coroutines of a reactor: vpool-co [REACTOR]"""

    def __init__(self):
        super().__init__("vpool-co", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        for co in coroutines(reactor(argument)):
            state = STATES[int(co["state"])]
            name, why = co["name"].string(), co["why"].string()
            entry = str(co["fn"]).split(" ", 1)[-1]
            print(f"{int(co):#x}  {state:9}  {why:20}  {name:20}  {entry}")


class Backtrace(gdb.Command):
    """Backtrace of a suspended coroutine: vpool-co-bt ADDRESS"""

    def __init__(self):
        super().__init__("vpool-co-bt", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        co = gdb.parse_and_eval(f"*(struct co *)({argument})")
        if STATES[int(co["state"])] != "suspended":
            raise gdb.GdbError("that coroutine is not suspended")
        sp, pc = int(co["context"]["sp"]), int(gdb.parse_and_eval("(long)&co_switch_resume"))
        saved = [(name, int(gdb.parse_and_eval(f"(long)${name}"))) for name in ("sp", "pc")]
        frame = gdb.selected_frame()
        try:
            gdb.newest_frame().select()
            gdb.execute(f"set var $sp = {sp}")
            gdb.execute(f"set var $pc = {pc}")
            gdb.execute("backtrace")
        finally:
            for name, value in saved:
                gdb.execute(f"set var ${name} = {value}")
            if frame.is_valid():
                frame.select()


Coroutines()
Backtrace()
