"""Pictures to look at: poses and heat on crops (poses.py), sheets of them (contact_sheet.py)."""
