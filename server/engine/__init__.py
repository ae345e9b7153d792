"""Requests, scheduling, the step loop and streams: policy that never imports torch or grpc."""
