"""Makes attempts to get somewhere, one after the other, and prints what became of each as JSON.

Reads a list of attempts from the first line of its input. An attempt is an object; "try" says which kind. The answer has "end",
a word for how it ended, "ms", how long that took, and sometimes "data", what was received, as text.
"""

import base64, errno, json, os, socket, struct, sys, time

# A container's proxy has a port of its own; where nothing is said, it is the one that processes have.
PROXY = ("127.0.0.1", int(os.environ.get("HTTP_PROXY", "http://127.0.0.1:61081").rsplit(":", 1)[1]))
# The other doors are beside it, in a range that ends and begins again. An attempt may call a port by these names.
DOORS = {"{proxy}": PROXY[1], "{capture}": PROXY[1] - 1 if PROXY[1] > 61000 else 65535, "{dns}": 61053 if PROXY[1] == 61081 else PROXY[1] + 1 if PROXY[1] < 65535 else 61000}
heard = 0.0


def receive(sock, limit):
    """Reads until the other side is done or has been quiet for a moment."""
    global heard
    sock.settimeout(limit)
    data = b""
    try:
        while True:
            piece = sock.recv(65536)
            heard = time.monotonic()
            if not piece:
                return "closed", data
            data += piece
            sock.settimeout(0.15)
    except ConnectionResetError:
        return "reset", data
    except (socket.timeout, TimeoutError):
        return ("quiet" if data else "timeout"), data


def octets(attempt, key="send"):
    if key + "64" in attempt:
        return base64.b64decode(attempt[key + "64"])
    text = attempt.get(key, "")
    return text.encode("latin-1" if max(text, default=" ") <= "\xff" else "utf-8")


def tcp(attempt):
    try:
        sock = socket.create_connection((attempt["host"], int(attempt["port"])), timeout=attempt.get("wait", 5))
    except socket.gaierror:
        return "unresolved", b""
    with sock:
        try:
            for piece in pieces(attempt):
                sock.sendall(piece)
                if "pause" in attempt:
                    time.sleep(attempt["pause"])
        except (ConnectionResetError, BrokenPipeError):
            return "reset", b""
        return receive(sock, attempt.get("wait", 5))


def pieces(attempt):
    data = octets(attempt)
    size = attempt.get("piece", len(data) or 1)
    return [data[at:at + size] for at in range(0, len(data), size)]


def proxy(attempt):
    """Sends octets to the proxy listener and returns the answer."""
    with socket.create_connection(PROXY, timeout=5) as sock:
        try:
            for piece in pieces(attempt):
                sock.sendall(piece)
                if "pause" in attempt:
                    time.sleep(attempt["pause"])
        except (ConnectionResetError, BrokenPipeError):
            pass
        end, data = receive(sock, attempt.get("wait", 5))
        if "then" in attempt and data:
            sock.sendall(octets(attempt, "then"))
            end, more = receive(sock, attempt.get("wait", 5))
            data += more
        return end, data


def connect(attempt):
    authority = attempt["authority"]
    head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    return proxy(attempt | {"send": head})


def forward(attempt):
    url = attempt["url"]
    host = attempt.get("host", url.split("://", 1)[-1].split("/", 1)[0])
    return proxy(attempt | {"send": f"GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"})


def socks(attempt):
    """SOCKS5 without authentication; the destination is a name unless it parses as an address."""
    with socket.create_connection(PROXY, timeout=5) as sock:
        sock.sendall(b"\5\1\0")
        if sock.recv(2) != b"\5\0":
            return "no greeting", b""
        host = attempt["host"].encode("latin-1")
        kind = bytes([3, len(host)]) + host
        for family, code in (() if attempt.get("name") else ((socket.AF_INET, b"\1"), (socket.AF_INET6, b"\4"))):
            try:
                kind = code + socket.inet_pton(family, attempt["host"])
            except OSError:
                pass
        command = attempt.get("command", 1)
        sock.sendall(bytes([5, command, 0]) + kind + struct.pack(">H", int(attempt["port"])))
        end, data = receive(sock, attempt.get("wait", 5))
        if not data:
            return end, data
        if data[1] != 0:
            return f"reply {data[1]}", data
        sock.sendall(octets(attempt))
        return receive(sock, attempt.get("wait", 5))


def dns(attempt):
    """Asks a name server, by default some resolver on the internet; says the response code and the addresses."""
    labels = attempt["name"].rstrip(".").split(".") if attempt["name"] not in ("", ".") else []
    name = b"".join(bytes([len(label)]) + label.encode("latin-1") for label in labels) + b"\0"
    kind = attempt.get("type", 1)
    edns = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    question = b"\x12\x34\1\0\0\1\0\0\0\0\0\1" + name + struct.pack(">HH", kind, 1) + edns
    server = (attempt.get("server", "8.8.8.8"), attempt.get("port", 53))
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    if attempt.get("over") == "tcp":
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(3)
            sock.connect(server)
            sock.sendall(struct.pack(">H", len(question)) + question)
            _, data = receive(sock, 3)
            data = data[2:]
    else:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(3)
            sock.connect(server)
            sock.send(question)
            data = sock.recv(4096)
    if len(data) < 12:
        return "no answer", data
    return f"rcode {data[3] & 15} answers {struct.unpack('>H', data[6:8])[0]}", data


def udp(attempt):
    family = socket.AF_INET6 if ":" in attempt["host"] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(attempt.get("wait", 1))
        sock.connect((attempt["host"], attempt["port"]))
        sock.send(octets(attempt) or b"ping")
        return "data", sock.recv(65536)


def unix(attempt):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(attempt["path"].replace("@", "\0"))
        return "connected", b""


def make(attempt):
    """Creates a socket and, where there is an address to it, sends something."""
    family, kind, protocol = attempt["socket"]
    with socket.socket(family, kind, protocol) as sock:
        sock.settimeout(1)
        if "host" in attempt:
            sock.connect((attempt["host"], attempt.get("port", 0)))
            sock.send(octets(attempt) or b"\x08\0\0\0\0\0\0\0")
            return "data", sock.recv(65536)
        if "cid" in attempt:
            sock.connect((attempt["cid"], attempt["port"]))
        return "made", b""


KINDS = {"tcp": tcp, "proxy": proxy, "connect": connect, "forward": forward, "socks": socks, "dns": dns, "udp": udp,
         "unix": unix, "socket": make}


def run(attempt):
    start = time.monotonic()
    try:
        end, data = KINDS[attempt["try"]](attempt)
    except (socket.timeout, TimeoutError):
        end, data = "timeout", b""
    except OSError as error:
        end, data = errno.errorcode.get(error.errno, str(error)), b""
    # Waiting to see whether more would come does not count.
    done = max(heard, start) if data else time.monotonic()
    return {"end": end, "ms": round((done - start) * 1000, 1), "data": data.decode("latin-1")}


def main():
    asked = sys.stdin.readline()
    for name, port in DOORS.items():
        asked = asked.replace(name, str(port))
    for attempt in json.loads(asked):
        answer = run(attempt)
        # A machine that is busy with other things makes anything slow now and then; a time-out is slow every time.
        for _ in range(4):
            if answer["ms"] < attempt.get("fast", 0) or "fast" not in attempt:
                break
            time.sleep(0.1)
            answer = min(answer, run(attempt), key=lambda one: one["ms"])
        print(json.dumps(answer), flush=True)


main()
