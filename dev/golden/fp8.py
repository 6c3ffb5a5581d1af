"""FP8 as ml_dtypes converts it: src/tensor/testdata/fp8.txt.

Lines: "values TYPE V0 .. V255", the bits of the f32 value of each code (every NaN as 7fc00000); "codes TYPE HASH", FNV-1a over the codes of a million
floats drawn by bits() below, which overflow to NaN (float8_e4m3fn) or infinity (float8_e5m2); "saturated TYPE HASH", the same of values held
within the largest first; "vector F32 C C C C", the bits of a float and its codes in the order codes and saturated of e4m3, codes and saturated of e5m2.
Made with ml_dtypes 0.6. Run: python dev/golden/fp8.py
"""
import pathlib

import ml_dtypes
import numpy as np

FILE = pathlib.Path(__file__).resolve().parents[2] / "src/tensor/testdata/fp8.txt"
TYPES = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}
COUNT = 1_000_000


def random_bits(seed, stream, index):
    """random_bits of base/rng.h."""
    def mix(z):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    with np.errstate(over="ignore"):
        start = mix(np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(stream + 1))
        return mix(start + np.uint64(0x9E3779B97F4A7C15) * (index + np.uint64(1)))


def bits():
    """A third any f32 at all; a third of exponents that FP8 has and some beyond; a third of those with few bits set, so that most are ties."""
    draw = random_bits(8, 0, np.arange(COUNT, dtype=np.uint64))
    any_float = (draw >> np.uint64(32)).astype(np.uint32)
    exponent = (np.uint64(127 - 20) + (draw & np.uint64(0xFF)) % np.uint64(40)).astype(np.uint32)
    near = (any_float & np.uint32(0x807FFFFF)) | exponent << np.uint32(23)
    kind = np.arange(COUNT) % 3
    return np.where(kind == 0, any_float, np.where(kind == 1, near, near & np.uint32(0xFFF80000)))


def codes_of(values, dtype):
    largest = np.float32(ml_dtypes.finfo(dtype).max)
    with np.errstate(invalid="ignore", over="ignore"):
        return values.astype(dtype).view(np.uint8), np.clip(values, -largest, largest).astype(dtype).view(np.uint8)


def fnv(codes):
    value = 0xCBF29CE484222325
    for code in codes.tolist():
        value = (value ^ code) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def edges():
    """Every value of both, the middle between neighbours and the floats beside that, zeros, infinities, NaN."""
    found = [np.array([0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 1, 0x7F7FFFFF, 0xFF7FFFFF], np.uint32)]
    for dtype in TYPES.values():
        values = np.arange(128, dtype=np.uint8).view(dtype).astype(np.float32)
        values = values[np.isfinite(values)]
        values = np.append(values, 2 * values[-1] - values[-2])
        middles = (values[1:] + values[:-1]) / 2
        found += [np.concatenate([values, middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(np.inf))]).view(np.uint32)]
    some = np.unique(np.concatenate(found))
    return np.unique(np.concatenate([some, some | np.uint32(0x80000000)]))


def main():
    lines = []
    drawn = bits().view(np.float32)
    for name, dtype in TYPES.items():
        values = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
        table = np.where(np.isnan(values), np.uint32(0x7FC00000), values.view(np.uint32))
        lines.append(f"values {name} " + " ".join(f"{v:08x}" for v in table))
        free, held = codes_of(drawn, dtype)
        lines += [f"codes {name} {fnv(free)}", f"saturated {name} {fnv(held)}"]
    vectors = edges()
    columns = [codes for dtype in TYPES.values() for codes in codes_of(vectors.view(np.float32), dtype)]
    lines += [f"vector {v:08x} " + " ".join(f"{int(c[i]):02x}" for c in columns) for i, v in enumerate(vectors)]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("\n".join(lines) + "\n")
    print(FILE, len(vectors), FILE.stat().st_size)


if __name__ == "__main__":
    main()
