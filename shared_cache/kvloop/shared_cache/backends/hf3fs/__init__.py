"""The backend `hf3fs`: pages as files on a mount of 3FS, by USRBIO or by POSIX calls."""

from kvloop.shared_cache.backends.hf3fs.opener import hf3fs_opener as prepare

__all__ = ["prepare"]
