"""Storage: local folders and object stores, and the lease of their one writer.

files.py          local files that appear whole and durably, are read only if regular, or locked
object_client.py  clients of object stores: locations, time limits, retries
object_folder.py  folders in object stores
folder.py         the protocol of all folders, and local folders
lease.py          one writer at a time
"""
