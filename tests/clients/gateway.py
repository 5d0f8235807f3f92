"""A router that maps ports by UPnP, as far as our programs ask: it answers the search by multicast, describes
itself, and says what it is asked for as lines of JSON.

    gateway.py ADDRESS [rogue]

A rogue answers everything with bytes without an end, and the search a thousand times with what is none.
"""
import http.server
import json
import re
import socket
import struct
import sys
import threading

ADDRESS = sys.argv[1]
ROGUE = sys.argv[2:] == ["rogue"]
GROUP = ("239.255.255.250", 1900)
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"

DEVICE = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>
<controlURL>/control</controlURL><eventSubURL>/events</eventSubURL><SCPDURL>/schema.xml</SCPDURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>"""


def action(name, arguments):
    each = "".join(
        f"<argument><name>{argument}</name><direction>in</direction></argument>" for argument in arguments
    )
    return f"<action><name>{name}</name><argumentList>{each}</argumentList></action>"


KEY = ["NewRemoteHost", "NewExternalPort", "NewProtocol"]
REST = ["NewInternalPort", "NewInternalClient", "NewEnabled", "NewPortMappingDescription", "NewLeaseDuration"]
SCHEMA = f"""<?xml version="1.0"?><scpd xmlns="urn:schemas-upnp-org:service-1-0"><actionList>
{action("AddPortMapping", KEY + REST)}{action("DeletePortMapping", KEY)}</actionList></scpd>"""


class Control(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        if ROGUE:
            return self.never_end()
        body = body.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def never_end(self):
        print(json.dumps({"event": "asked"}), flush=True)
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"<root>" * 10_000)
        except OSError:
            pass

    def do_GET(self):
        self.answer(DEVICE if self.path == "/device.xml" else SCHEMA)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        name = self.headers["SOAPAction"].strip('"').split("#")[1]
        fields = dict(re.findall(r"<(New\w+)>([^<]*)</", body))
        print(json.dumps({"event": name, **fields}), flush=True)
        self.answer(
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
            f'<u:{name}Response xmlns:u="{SERVICE}"></u:{name}Response></s:Body></s:Envelope>'
        )

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer((ADDRESS, 0), Control)
threading.Thread(target=server.serve_forever, daemon=True).start()
search = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
search.bind(GROUP)
membership = struct.pack("4s4s", socket.inet_aton(GROUP[0]), socket.inet_aton(ADDRESS))
search.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
answers.bind((ADDRESS, 0))
print(json.dumps({"event": "up"}), flush=True)
while True:
    asked, sender = search.recvfrom(2048)
    target = re.search(rb"(?mi)^ST: *(\S+)", asked)
    if asked.startswith(b"M-SEARCH") and target:
        location = f"http://{ADDRESS}:{server.server_port}/device.xml"
        answer = f"HTTP/1.1 200 OK\r\nST: {target[1].decode()}\r\nLOCATION: {location}\r\n\r\n"
        for number in range(1000 if ROGUE else 0):
            answers.sendto(b"HTTP/1.1 200 OK\r\nLOCATION: http://[::\xff\x1b" + bytes(number), sender)
        answers.sendto(answer.encode(), sender)
