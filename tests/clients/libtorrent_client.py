"""A libtorrent session for the suites, driven by lines of JSON.

    libtorrent_client.py session '{"listen": "10.0.0.2:6881", ...}'   commands on stdin, events on stdout
    libtorrent_client.py make '{"path": ..., "out": ..., "kind": "v1|v2|hybrid", ...}'
    libtorrent_client.py info FILE...

Commands: add (torrent, dir, peers, web_seeds), add_magnet (link, dir, peers), peers (torrent, peers), stat (torrent), connections (torrent).
Events: up, added, checked, finished (verified), done (and written), stat, connections (ip, and whether it
came by peer exchange), note, error.
"""
import json
import os
import sys
import threading
import warnings

import libtorrent as lt

warnings.simplefilter("ignore", DeprecationWarning)


speaking = threading.Lock()


def say(event, **fields):
    with speaking:
        print(json.dumps({"event": event, **fields}), flush=True)


def hashes(path):
    info = lt.torrent_info(path)
    both = info.info_hashes()
    return {
        "v1": str(both.v1) if both.has_v1() else None,
        "v2": str(both.v2) if both.has_v2() else None,
        "name": info.name(),
        "piece_length": info.piece_length(),
        "files": info.num_files(),
        "bytes": info.total_size(),
    }


def make(spec):
    storage = lt.file_storage()
    lt.add_files(storage, spec["path"])
    flags = {"v1": lt.create_torrent.v1_only, "v2": lt.create_torrent.v2_only, "hybrid": 0}[spec["kind"]]
    creator = lt.create_torrent(storage, spec.get("piece_length", 0), int(flags))
    for tier, url in enumerate(spec.get("trackers", [])):
        creator.add_tracker(url, tier)
    for url in spec.get("web_seeds", []):
        creator.add_url_seed(url)
    creator.set_priv(spec.get("private", False))
    lt.set_piece_hashes(creator, os.path.dirname(os.path.abspath(spec["path"])))
    with open(spec["out"], "wb") as out:
        out.write(lt.bencode(creator.generate()))
    print(json.dumps(hashes(spec["out"])), flush=True)


class Session:
    # Discovery that could leave the test network is off; everything else is libtorrent's default.
    QUIET = {"enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False}

    def __init__(self, spec):
        kinds = lt.alert.category_t
        wanted = kinds.status_notification | kinds.error_notification | kinds.storage_notification
        settings = {**self.QUIET, "listen_interfaces": spec["listen"], "alert_mask": wanted}
        self.session = lt.session({**settings, **spec.get("settings", {})})
        self.handles = {}
        self.lock = threading.Lock()

    def commands(self):
        for line in sys.stdin:
            command = json.loads(line)
            try:
                getattr(self, "do_" + command.pop("do"))(**command)
            except Exception as error:  # whatever it is, the suite must see it
                say("error", message=repr(error))
        os._exit(0)

    def do_add(self, torrent, dir, peers=(), web_seeds=()):
        params = lt.add_torrent_params()
        params.ti = lt.torrent_info(torrent)
        params.save_path = dir
        params.flags &= ~lt.torrent_flags.auto_managed
        params.flags &= ~lt.torrent_flags.paused
        handle = self.session.add_torrent(params)
        with self.lock:
            self.handles[torrent] = handle
        for url in web_seeds:
            handle.add_url_seed(url)
        self.do_peers(torrent, peers)
        say("added", torrent=torrent)

    def do_add_magnet(self, link, dir, peers=()):
        params = lt.parse_magnet_uri(link)
        params.save_path = dir
        params.flags &= ~lt.torrent_flags.auto_managed
        params.flags &= ~lt.torrent_flags.paused
        handle = self.session.add_torrent(params)
        with self.lock:
            self.handles[link] = handle
        self.do_peers(link, peers)
        say("added", torrent=link)

    def do_peers(self, torrent, peers):
        for ip, port in peers:
            self.handles[torrent].connect_peer((ip, port))

    def do_stat(self, torrent):
        s = self.handles[torrent].status()
        say("stat", torrent=torrent, progress=s.progress, up=s.total_payload_upload,
            down=s.total_payload_download, peers=s.num_peers, seeding=s.is_seeding)

    def do_connections(self, torrent):
        known = [[p.ip[0], bool(p.source & lt.peer_info.pex)] for p in self.handles[torrent].get_peer_info()]
        say("connections", torrent=torrent, peers=known)

    def torrent_of(self, handle):
        with self.lock:
            return next((path for path, known in self.handles.items() if known == handle), None)

    def run(self):
        threading.Thread(target=self.commands, daemon=True).start()
        say("up")
        while True:
            self.session.wait_for_alert(200)
            for alert in self.session.pop_alerts():
                if isinstance(alert, lt.torrent_checked_alert):
                    say("checked", torrent=self.torrent_of(alert.handle))
                elif isinstance(alert, lt.torrent_finished_alert):
                    say("finished", torrent=self.torrent_of(alert.handle))
                    # Finished says nothing of the disk; wait until all is written.
                    alert.handle.flush_cache()
                elif isinstance(alert, lt.cache_flushed_alert):
                    if alert.handle.status().is_finished:
                        say("done", torrent=self.torrent_of(alert.handle))
                elif isinstance(alert, lt.listen_failed_alert):
                    say("error", message=alert.message())
                elif isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert, lt.tracker_error_alert)):
                    say("note", message=alert.message())


mode, arguments = sys.argv[1], sys.argv[2:]
if mode == "session":
    Session(json.loads(arguments[0])).run()
elif mode == "make":
    make(json.loads(arguments[0]))
else:
    for path in arguments:
        print(json.dumps(hashes(path)), flush=True)
