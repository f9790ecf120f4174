"""Worker processes that compute pairs, on one machine or on a cluster, with Ray. Ray is optional."""
