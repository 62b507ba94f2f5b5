"""What the processes of a run say: from its pods while they are there, from the archive in its store afterwards."""
