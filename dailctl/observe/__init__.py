"""Runs on a cluster as people see and steer them: listed, described, watched, logged, stopped, cleaned up."""
