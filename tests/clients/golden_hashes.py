"""libtorrent's info-hashes for the same content: the golden values.

    golden_hashes.py create PATH v1|v2|hybrid PIECE_LENGTH
    golden_hashes.py read FILE...

One line of JSON for each torrent: {"v1": ..., "v2": ...}, null where there is none.
"""
import hashlib
import json
import os
import sys
import warnings

import libtorrent as lt

warnings.simplefilter("ignore", DeprecationWarning)


def tree_order(entry):
    # As a folder lists its files depends on the file system; the order of the BEP 52 tree does not.
    return [part.encode() for part in entry.filename.split("/")]


def create(path, kind, piece_length):
    maker = lt.create_torrent
    kinds = {"v1": maker.v1_only, "v2": maker.v2_only, "hybrid": 0}
    flags = kinds[kind] | maker.symlinks
    files = lt.list_files(path, lambda name: True, flags)
    files = sorted(files, key=tree_order)
    torrent = maker(files, int(piece_length), flags)
    lt.set_piece_hashes(torrent, os.path.dirname(path))
    info = lt.bencode(torrent.generate()[b"info"])
    return {
        "v1": None if kind == "v2" else hashlib.sha1(info).hexdigest(),
        "v2": None if kind == "v1" else hashlib.sha256(info).hexdigest(),
    }


def read(path):
    hashes = lt.torrent_info(path).info_hashes()
    return {
        "v1": str(hashes.v1) if hashes.has_v1() else None,
        "v2": str(hashes.v2) if hashes.has_v2() else None,
    }


if sys.argv[1] == "create":
    print(json.dumps(create(*sys.argv[2:])))
else:
    for name in sys.argv[2:]:
        print(json.dumps(read(name)))
