"""The run folder: what it keeps of a run, how it is written, and the checks when a run resumes."""
