"""What image data really is, judged while it passes. Knows no store and no image row.

`judge` compares content with claim and asks oslo.utils' format inspector; a wall of our own stands around it, because
what qemu and other readers would do with the data counts, not what one parser sees: one module for each format whose
files may name others. `reading` gives a wall the pieces of the stream that it asks for.
"""

from xloud_image.inspection.judge import Inspection

__all__ = ["Inspection"]
