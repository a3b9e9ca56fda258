"""Where bytes lie: files of this machine and object stores, and who may write there.

files.py          files that appear whole and durably, and are read without surprise
folder.py         one protocol for a folder of either kind, by names below its root
object_client.py  the client of an object store
object_folder.py  a folder in an object store
lease.py          one writer at a time
lease_file.py     its file in a local folder
object_lease.py   the same in an object store
"""
