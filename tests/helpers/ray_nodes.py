"""A Ray cluster of two nodes with one CPU each: python ray_nodes.py PORT, the port of its client server.

Prints {"head": name of the first node, "other": name of the second}. Kills the second node when it reads a line, and
ends the cluster at the end of stdin.
"""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster

first = {"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": int(sys.argv[1])}
cluster = Cluster(initialize_head=True, head_node_args=first)
other = cluster.add_node(num_cpus=1)
print(json.dumps({"head": cluster.head_node.node_id, "other": other.node_id}), flush=True)
if sys.stdin.readline():
    cluster.remove_node(other, allow_graceful=False)
    print("killed", flush=True)
    sys.stdin.read()
cluster.shutdown()
