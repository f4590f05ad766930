from __future__ import annotations

from recsparse import _host


def test_philox_known_answers():
    """Vectors that the Random123 distribution publishes for philox4x32-10."""
    ones = 2**32 - 1
    assert _host.philox(0, 0, 0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert _host.philox(2**64 - 1, 2**64 - 1, ones, ones) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = _host.philox(0x299F31D0A4093822, 0x85A308D3243F6A88, 0x13198A2E, 0x03707344)
    assert pi == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
