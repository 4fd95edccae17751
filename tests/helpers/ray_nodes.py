"""A Ray cluster of two nodes with one CPU each: python ray_nodes.py PORT, the port of its client server.

Prints {"head": name of the first node, "other": name of the second}. Kills the second node when it reads a line, and
ends the cluster at the end of stdin.
"""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster

# neither an autoscaler nor copies of logs are needed
first = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
cluster = Cluster(initialize_head=True, head_node_args={**first, "ray_client_server_port": None})
head = cluster.head_node
other = cluster.add_node()
head._ray_params.ray_client_server_port = int(sys.argv[1])
head.start_ray_client_server()
print(json.dumps({"head": head.node_id, "other": other.node_id}), flush=True)
if sys.stdin.readline():
    cluster.remove_node(other, allow_graceful=False)
    print("killed", flush=True)
    sys.stdin.read()
cluster.shutdown()
