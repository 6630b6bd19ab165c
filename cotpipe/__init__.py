"""cotpipe: distil a teacher's chains of thought into a small student, in three stages."""
