#!/usr/bin/env python3
"""Compares two files of log-probabilities (nibble eval --save-logits, llama-perplexity --save-all-logits).

usage: dev/compare_logits.py OURS PEER [MARGIN]
Prints how many scored predictions there are, the share whose most likely token is the same in both, how many of them the
peer decides by more than MARGIN (0.01 nats), the share of those that agree, and the largest difference of a log-probability
within 10 nats of the top. Exits with 1 when a prediction beyond the margin differs. Needs numpy.
"""
import sys

import numpy as np


class Logits:
    def __init__(self, path):
        with open(path, "rb") as file:
            if file.read(8) != b"_logits_":
                sys.exit(f"{path}: not a file of log-probabilities")
            self.context, self.vocab, self.chunks = (int(n) for n in np.fromfile(file, "<i4", 3))
            self.tokens = np.fromfile(file, "<i4", self.context * self.chunks).reshape(self.chunks, self.context)
            start = file.tell()
        rows = self.chunks * (self.context - 1 - self.context // 2)
        row = np.dtype([("scale", "<f4"), ("lowest", "<f4"), ("level", "<u2", (self.vocab + 1) // 2 * 2)])
        self.rows = np.memmap(path, row, "r", start, (rows,))

    def log_probs(self, begin, end):
        rows = self.rows[begin:end]
        return rows["lowest"][:, None] + rows["scale"][:, None] * rows["level"][:, : self.vocab]


def main(ours_path, peer_path, margin=0.01):
    ours, peer = Logits(ours_path), Logits(peer_path)
    # The first token of a chunk is the beginning token in both runs, whatever the file says there.
    if ours.vocab != peer.vocab or not np.array_equal(ours.tokens[:, 1:], peer.tokens[:, 1:]):
        sys.exit("the files are not of the same tokens")
    n = len(ours.rows)
    same = decided = decided_same = 0
    largest = 0.0
    for begin in range(0, n, 512):
        a, b = ours.log_probs(begin, begin + 512), peer.log_probs(begin, begin + 512)
        second, first = np.partition(b, -2, axis=1)[:, -2:].T
        agree = a.argmax(1) == b.argmax(1)
        clear = first - second > margin
        same += agree.sum()
        decided += clear.sum()
        decided_same += (agree & clear).sum()
        largest = max(largest, np.abs(a - b)[b > first[:, None] - 10].max())
    print(f"{n} predictions, top-1 the same in {100 * same / n:.3f} %; {decided} decided by more than {margin}, "
          f"of them {100 * decided_same / decided:.3f} % ({decided - decided_same} differ); "
          f"log-probabilities within {largest:.5f}")
    return int(decided_same != decided)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])))
