"""From a job file to a run on a cluster: composed, checked, told, uploaded, applied, followed."""
