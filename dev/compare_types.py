#!/usr/bin/env python3
"""Compares the types of all tensors of two GGUF files by name: "N equal", or what differs. Needs the gguf package.

usage: dev/compare_types.py OURS PEER
"""
import sys

from gguf import GGUFReader

ours, peer = ({t.name: t.tensor_type.name for t in GGUFReader(path).tensors} for path in sys.argv[1:3])
different = [f"{name} {ours.get(name)} {peer.get(name)}" for name in sorted(ours.keys() | peer.keys()) if ours.get(name) != peer.get(name)]
print(f"{len(ours)} equal" if not different else f"{len(different)} of {len(ours)} differ: {'; '.join(different[:4])}")
sys.exit(bool(different))
