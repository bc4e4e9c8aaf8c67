"""Patterns of texts, and how people say them. Go's and Rust's engines read them alike."""

from __future__ import annotations

_PART = r"\.?[A-Za-z0-9_@+=,~-][A-Za-z0-9._@+=,~-]*"
"""Of a path; neither . nor .. is one."""

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
RELATIVE_PATH = rf"^{_PART}(/{_PART})*$"
ABSOLUTE_PATH = rf"^(/{_PART})+/?$"
URL = r"^https?://[^\s]+$"
HOST_PORT = r"^[A-Za-z0-9._-]+:[0-9]{1,5}$"
EXTENDED_RESOURCE = r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
MODULE = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"

WORDS = {
    QUANTITY: "a quantity, such as 500m, 2 or 16Gi",
    NAME: "small letters, digits and '-', with a letter or digit at both ends",
    RELATIVE_PATH: "a path without '..' that does not begin with '/', such as models/demo",
    ABSOLUTE_PATH: "a path without '..' that begins with '/', such as /mnt/cache",
    URL: "an address that begins with http:// or https://",
    HOST_PORT: "host:port, such as master.example:50051",
    EXTENDED_RESOURCE: "a resource of a device plug-in, such as rdma/hca_shared_devices_a",
    LABEL_VALUE: "letters, digits, '-', '_' and '.', with a letter or digit at both ends",
    MODULE: "a Python module, such as acme.kv",
}
"""What would be right."""
