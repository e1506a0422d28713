"""Requests for images, as `<topic>.generate` carries them."""

from __future__ import annotations

import hashlib

import msgspec

from streamgen.publishing.requests import LONGEST_ID, Refusal, Refused

MOST = 200  # images of a request: it is one transaction


class ImageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked for: so many images of a seed. Image n of a seed is the same, however many there are."""

    count: int = 1
    seed: int | None = None
    correlation_id: str | None = None

    @property
    def digest(self) -> str:
        """Tells requests apart that ask for something else."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=8).hexdigest()


def parse(value: bytes | None) -> ImageRequest:
    """A request from a record's value, within the limits. Raises `Refused`."""
    try:
        request = msgspec.json.decode(value or b"", type=ImageRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(Refusal.MALFORMED, f"not a request: {error}"[:1000]) from None
    if not 1 <= request.count <= MOST:
        raise Refused(Refusal.BAD_COUNT, f"count is {request.count}; allowed: 1 to {MOST}")
    if request.seed is not None and not 0 <= request.seed < 2**63:
        raise Refused(Refusal.MALFORMED, f"seed is {request.seed}; allowed: 0 to 2⁶³ − 1")
    if request.correlation_id is not None and len(request.correlation_id) > LONGEST_ID:
        raise Refused(Refusal.MALFORMED, f"correlation_id has more than {LONGEST_ID} characters")
    return request
