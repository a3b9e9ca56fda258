"""The teacher store on disk, as `store_schemas` specifies it.

writer.py    plan, shards, manifest          (plan.py, publishing.py, manifest.py)
reader.py    open, check, read               (opening.py, shards.py)
"""
