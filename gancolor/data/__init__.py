"""Pictures: named sets, folders, the generated set, augmentation and the loader. A picture is uint8
RGB (H, W, 3).
"""

from __future__ import annotations
