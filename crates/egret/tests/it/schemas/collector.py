"""A collector that holds what it is sent against OTLP's published messages, and prints it, a line for each request."""

import base64
import http.server
import json
import re
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MESSAGES = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
IDS = {"traceId": 32, "spanId": 16, "parentSpanId": 16}


def as_protobuf(value):
    """Ids are hexadecimal in OTLP, and base64 in the JSON of everybody else."""
    if isinstance(value, list):
        return [as_protobuf(one) for one in value]
    if not isinstance(value, dict):
        return value
    fields = {}
    for name, field in value.items():
        if name in IDS:
            assert re.fullmatch("[0-9a-f]{%d}" % IDS[name], field) and set(field) != {"0"}, field
            field = base64.b64encode(bytes.fromhex(field)).decode()
        # The other spelling is allowed by protobuf and not by OTLP.
        assert "_" not in name, name
        fields[name] = as_protobuf(field)
    return fields


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        told = {"path": self.path, "headers": dict(self.headers)}
        status = int(sys.argv[2]) if len(sys.argv) > 2 else 200
        try:
            assert self.headers["Content-Type"] == "application/json"
            told["body"] = json.loads(body)
            json_format.ParseDict(as_protobuf(told["body"]), MESSAGES[self.path]())
        except Exception as error:  # Whatever it is, the test has to see it.
            told["wrong"] = repr(error)
            status = 400
        print(json.dumps(told), flush=True)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Collector)
print("ready", flush=True)
server.serve_forever()
