"""Where bytes lie: files of this machine and object stores, and who may write there.

files.py          files that appear whole and durably, and are read without surprise
folder.py         one protocol for a folder of either kind, and the folder of local files
object_client.py  the client of an object store
object_folder.py  a folder in an object store
lease.py          one writer at a time
"""
