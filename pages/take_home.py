"""Take home: the slimmed ONNX file, its card and recipe, a report, and the lines that make the same bytes again."""

from __future__ import annotations

from pages.ui import frame, taking
from pages.ui.state import session
from pages.ui.workspaces import workspace_panel

frame.draw_title("take-home")
frame.needs_model()
known = taking.attempt()
if known is not None:
    taking.draw_files(known)
    taking.draw_lines(known)
taking.draw_link(session())
workspace_panel.draw()
frame.follow()
