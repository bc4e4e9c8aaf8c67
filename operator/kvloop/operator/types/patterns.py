"""Patterns of texts, and how people say them. Go's and Rust's engines read them alike."""

from __future__ import annotations

_PART = r"\.?[A-Za-z0-9_@+=,~-][A-Za-z0-9._@+=,~-]*"
"""Of a path; neither . nor .. is one."""

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
RELATIVE_PATH = rf"^{_PART}(/{_PART})*$"
RELATIVE_PATH_OR_NONE = rf"^({_PART}(/{_PART})*)?$"
ABSOLUTE_PATH = rf"^(/{_PART})+/?$"
URL = r"^https?://[^\s]+$"
_ADDRESS = r"[A-Za-z0-9._-]+:[0-9]{1,5}"
HOST_PORT = rf"^{_ADDRESS}$"
MASTERS = rf"^({_ADDRESS}(,{_ADDRESS})*|etcd://{_ADDRESS}(;{_ADDRESS})*)$"
DEVICE = r"^[A-Za-z0-9_.-]+$"
CRON = r"^([^\s]+ +){4}[^\s]+$"
EXTENDED_RESOURCE = r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
MODULE = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"

WORDS = {
    QUANTITY: "a quantity, such as 500m, 2 or 16Gi",
    NAME: "small letters, digits and '-', with a letter or digit at both ends",
    RELATIVE_PATH: "a path without '..' that does not begin with '/', such as models/demo",
    RELATIVE_PATH_OR_NONE: "a path without '..' that does not begin with '/', or empty",
    ABSOLUTE_PATH: "a path without '..' that begins with '/', such as /mnt/cache",
    URL: "an address that begins with http:// or https://",
    HOST_PORT: "host:port, such as master.example:50051",
    MASTERS: "host:port, several with commas, or etcd://host:port;host:port",
    DEVICE: "a device, such as mlx5_0",
    CRON: "five fields as cron writes them, such as */10 * * * *",
    EXTENDED_RESOURCE: "a resource of a device plug-in, such as rdma/hca_shared_devices_a",
    LABEL_VALUE: "letters, digits, '-', '_' and '.', with a letter or digit at both ends",
    MODULE: "a Python module, such as acme.kv",
}
"""What would be right."""
